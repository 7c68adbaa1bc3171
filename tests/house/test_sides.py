"""Which lab tests share a process."""

from __future__ import annotations

from tests.lab_groups import side


def test_guests_and_images_are_one_side_and_trainings_the_other() -> None:
    guests = side("tests/lab/provision/test_kills.py::test_every_moment_of_a_route[rx7900xt-rocm]")
    assert guests == side("tests/lab/containers/test_image.py::test_a_bench_runs_inside")
    assert side("tests/lab/harness/test_train.py::test_x") == side("tests/lab/harness/test_page.py::test_y") != guests


def test_what_needs_no_lab_goes_wherever_there_is_time() -> None:
    assert side("tests/gpu_setup/test_help.py::test_x") != side("tests/gpu_setup/test_help.py::test_y")
