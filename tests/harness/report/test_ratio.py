"""Ratios with intervals: symmetric, never surer than the two medians, and right as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.intervals import median_interval
from harness.measure.measurement import Measurement
from harness.report.compare import Ratio, ratio_of

POSITIVE = st.floats(0.01, 1e6)


def measured(median: float, low: float, high: float) -> Measurement:
    return Measurement("tokens/s", median, (low, high), 20)


def ratio(first: Measurement, other: Measurement, told_apart: float = 0.01) -> Ratio:
    found = ratio_of(first, other, told_apart)
    assert found is not None
    return found


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    median = draw(POSITIVE)
    return measured(median, median * draw(st.floats(0.5, 1.0)), median * draw(st.floats(1.0, 2.0)))


@given(measurements(), measurements())
def test_the_other_way_round_it_is_the_reciprocal(one: Measurement, other: Measurement) -> None:
    there, back = ratio(one, other, 0.0), ratio(other, one, 0.0)
    assert there.low and there.high and back.low and back.high
    assert there.value == pytest.approx(1 / back.value)
    assert (there.low, there.high) == (pytest.approx(1 / back.high), pytest.approx(1 / back.low))
    turned = {"faster": "slower", "slower": "faster", "equal": "equal"}
    if not math.isclose(there.low, 1) and not math.isclose(there.high, 1):
        assert back.verdict == turned[there.verdict]


@given(measurements(), measurements())
def test_the_interval_holds_the_ratio_and_is_no_narrower_than_either(one: Measurement, other: Measurement) -> None:
    found = ratio(one, other)
    assert found.low and found.high and one.ci95 and other.ci95 and one.median and other.median
    assert found.low <= found.value * (1 + 1e-9) and found.value <= found.high * (1 + 1e-9)
    width = math.log(found.high / found.low)
    for each in (one, other):
        assert each.ci95
        assert width >= math.log(each.ci95[1] / each.ci95[0]) / math.sqrt(2) - 1e-9


@given(measurements())
def test_a_measurement_is_equal_to_itself(one: Measurement) -> None:
    assert ratio(one, one).verdict == "equal"


@pytest.mark.parametrize(
    ("first", "other", "verdict"),
    [
        ((100, 99, 101), (110, 109, 111), "faster"),
        ((100, 99, 101), (90, 89, 91), "slower"),
        ((100, 95, 105), (103, 98, 108), "equal"),
        ((100, 99.99, 100.01), (100.5, 100.49, 100.51), "equal"),  # apart, but by less than launches are
        ((100, 60, 170), (120, 70, 200), "equal"),
    ],
)
def test_verdicts(first: tuple[float, float, float], other: tuple[float, float, float], verdict: str) -> None:
    assert ratio(measured(*first), measured(*other)).verdict == verdict


def test_without_an_interval_the_verdict_is_unknown() -> None:
    few = Measurement("tokens/s", 50.0, None, 3)
    assert ratio(measured(100, 99, 101), few) == Ratio(0.5, None, None, "unknown")
    assert ratio_of(measured(100, 99, 101), Measurement("tokens/s", None), 0.01) is None
    assert ratio_of(Measurement("tokens/s", 0.0), few, 0.01) is None
    assert ratio(measured(100, 0.0, 101), measured(100, 99, 101)).verdict == "unknown"


def test_coarse_means_that_a_tenth_would_not_be_seen() -> None:
    assert not ratio(measured(100, 97, 103), measured(101, 98, 104)).coarse
    assert ratio(measured(100, 85, 117), measured(101, 86, 118)).coarse
    assert Ratio(1.0, None, None, "unknown").coarse


def test_the_interval_covers_the_ratio_as_often_as_it_states() -> None:
    """Of 600 pairs of runs with a true ratio of 0.9, at least 94 % of the intervals hold it."""
    chance = np.random.default_rng(20261124)
    right = 0
    for _ in range(600):
        one = sorted(chance.lognormal(math.log(100), 0.05, 20))
        other = sorted(chance.lognormal(math.log(90), 0.05, 20))
        found = ratio(*(measured(float(np.median(each)), *(median_interval(each) or (0, 0))) for each in (one, other)))
        assert found.low and found.high
        right += found.low <= 0.9 <= found.high
    assert right >= 0.94 * 600
