"""Which lab tests share a process."""

from __future__ import annotations

from tests.lab_groups import group


def test_guests_are_one_group_engines_another_and_trainings_one_a_file() -> None:
    guests = group("tests/lab/provision/test_kills.py::test_every_moment_of_a_route[rx7900xt-rocm]")
    assert guests == group("tests/lab/provision/test_routes.py::test_x")
    engines = group("tests/lab/containers/test_image.py::test_a_bench_runs_inside")
    assert engines == group("tests/lab/containers/test_podman.py::test_x")
    trainings = group("tests/lab/harness/test_train.py::test_x")
    assert trainings == group("tests/lab/harness/test_train.py::test_y[seed::1]")
    assert len({guests, engines, trainings, group("tests/lab/harness/test_page.py::test_y")}) == 4


def test_what_needs_no_lab_goes_wherever_there_is_time() -> None:
    assert group("tests/gpu_setup/test_help.py::test_x") != group("tests/gpu_setup/test_help.py::test_y")
    assert group("tests/lab/machine/test_bindings.py::test_x") != group("tests/lab/machine/test_bindings.py::test_y")
