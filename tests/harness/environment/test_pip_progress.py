"""How long the training environment will still take, by what pip has done."""

from __future__ import annotations

from harness.environment.pip import time_left


def test_the_first_packages_give_no_estimate() -> None:
    """torch alone takes as long as fifty others."""
    assert time_left(10.0, 2, 2, 120) is None


def test_collecting_is_half_of_the_work() -> None:
    assert time_left(30.0, 60, 0, 120) == 90.0
    assert time_left(60.0, 120, 0, 120) == 60.0


def test_what_pip_collects_twice_counts_once() -> None:
    assert time_left(60.0, 180, 60, 120) == 20.0


def test_in_the_end_nothing_is_left() -> None:
    assert time_left(70.0, 120, 120, 120) == 0.0
