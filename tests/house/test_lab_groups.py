"""Which lab tests share a process."""

from __future__ import annotations

from tests.lab_groups import LONGEST, group
from tests.tool import ROOT


def test_guests_are_one_group_engines_another_and_the_rest_one_a_file() -> None:
    guests = group("tests/lab/provision/test_kills.py::test_every_moment_of_a_route[rx7900xt-rocm]")
    assert guests == group("tests/lab/provision/test_routes.py::test_x")
    engines = group("tests/lab/containers/test_image.py::test_a_bench_runs_inside")
    assert engines == group("tests/lab/containers/test_podman.py::test_x")
    trainings = group("tests/lab/harness/test_train.py::test_x")
    assert trainings == group("tests/lab/harness/test_train.py::test_y[seed::1]")
    assert len({guests, engines, trainings, group("tests/gpu_setup/test_help.py::test_x")}) == 4


def test_the_groups_that_begin_first_exist() -> None:
    assert [name for name in LONGEST if name.endswith(".py") and not (ROOT / name).is_file()] == []
