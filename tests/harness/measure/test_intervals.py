"""Warm-up by rule, intervals over launches, drift."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.intervals import bootstrap_interval, drift, half_width, warm_up


def noisy(n: int, seed: int = 0, spread: float = 0.01) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(1.0, spread) for _ in range(n)]


def test_a_run_that_is_steady_from_the_start_keeps_the_recipes_least() -> None:
    assert warm_up(noisy(40), 3) == 3
    assert warm_up([1.0] * 40, 3) == 3


def test_a_slow_start_is_found() -> None:
    """An allocator that settles after nine steps; a ramp of compiled kernels over twenty."""
    assert 9 <= warm_up([3.0] * 5 + [1.5] * 4 + noisy(40), 3) <= 11
    ramp = [18.0 - 0.85 * step for step in range(20)]
    assert 19 <= warm_up(ramp + noisy(60), 3) <= 22


def test_a_fast_start_is_found_too() -> None:
    """A cold card boosts higher for its first steps; what counts is how it runs on."""
    assert 10 <= warm_up([0.9] * 10 + noisy(50, spread=0.005), 3) <= 12


def test_what_never_settles_loses_half() -> None:
    assert warm_up([2.0**-step for step in range(40)], 3) == 3 + 37 // 2


def test_a_short_run_gets_the_least_warm_up() -> None:
    assert warm_up([5.0, 1.0, 1.0], 3) == 3
    assert warm_up([5.0], 3) == 1
    assert warm_up([9.0] * 4 + [1.0] * 6, 3) == 3, "7 steps after the least warm-up are too few to find its end"
    assert warm_up([9.0] * 4 + [1.0] * 7, 3) == 4


@given(st.lists(st.floats(0.01, 100), max_size=60), st.integers(0, 5))
def test_it_leaves_at_least_half(values: list[float], least: int) -> None:
    found = warm_up(values, least)
    assert min(least, len(values)) <= found <= least + max(0, len(values) - least) // 2 or found == len(values)


def test_three_launches_give_their_range() -> None:
    assert bootstrap_interval([100.0, 101.0, 99.0]) == (99.0, 101.0)
    assert bootstrap_interval([100.0, 101.0]) is None


def test_nine_launches_give_less_than_their_range() -> None:
    values = [100.0, 100.2, 99.9, 100.1, 99.8, 100.3, 100.0, 99.7, 103.0]
    found = bootstrap_interval(values)
    assert found and min(values) <= found[0] <= 100.0 <= found[1] < 103.0
    assert bootstrap_interval(values) == found, "the same numbers give the same interval"


@pytest.mark.parametrize(
    ("interval", "centre", "expected"), [((99.0, 101.0), 100.0, 0.01), (None, 100.0, None), ((1.0, 2.0), None, None)]
)
def test_half_of_it_as_a_share(
    interval: tuple[float, float] | None, centre: float | None, expected: float | None
) -> None:
    assert half_width(interval, centre) == expected


def test_a_card_that_heats_up_drifts() -> None:
    assert drift([1.0 + 0.01 * step for step in range(30)]) == pytest.approx(0.19, abs=0.01)
    assert drift(noisy(90)) == pytest.approx(0.0, abs=0.01)
    assert drift([1.0] * 8) is None
