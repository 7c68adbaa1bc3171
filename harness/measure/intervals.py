"""How well a median is known, where a run's warm-up ends, and whether its speed drifts. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

RESAMPLES = 2_000
# the standard deviation of a normal distribution in units of its median absolute deviation
MAD_TO_SD = 1.4826
# a step counts as settled within this many robust standard deviations of the settled ones; at least 1 % of the median
SETTLED_WITHIN = 3.0
SETTLED_SHARE = 0.01
# this many in a row end the warm-up
SETTLED_IN_A_ROW = 3
FEWEST_TO_FIND = 8


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A distribution-free 95 % interval of the median, from order statistics (binomial, p = 1/2); None below 6 values.

    The ranks are the widest cut whose coverage is at least 0.95: for 6 values the smallest and the largest.
    """
    from math import comb

    ordered, n = sorted(values), len(values)
    tail, low = 0.0, 0
    while low < n // 2 and (grown := tail + comb(n, low) / 2**n) <= 0.025:
        tail, low = grown, low + 1
    return (ordered[low - 1], ordered[n - low]) if low else None


def bootstrap_interval(medians: Sequence[float]) -> tuple[float, float] | None:
    """A percentile 95 % interval over the medians of process launches, resampled with one seed; None below 3.

    With 3 launches it is their range: 1 of 27 samples takes the lowest three times, which is more than 2.5 %. It shows
    how launches differ on this machine on this day, which an interval over the steps of one run cannot show.
    """
    import random

    if len(medians) < 3:
        return None
    draw, n = random.Random(0), len(medians)
    found = sorted(median(draw.choices(medians, k=n)) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]


def half_width(interval: tuple[float, float] | None, centre: float | None) -> float | None:
    """Half of an interval as a share of its centre; None where one of the two is missing."""
    if interval is None or not centre:
        return None
    return (interval[1] - interval[0]) / 2 / abs(centre)


def warm_up(values: Sequence[float], least: int) -> int:
    """How many of the first steps are warm-up: at least `least`, until three in a row are like the settled ones.

    `values` are times for the same work (seconds per token slot). The settled values are those of the second half:
    their median and spread. A run that never settles gets half of its steps as warm-up; one too short gets `least`.
    """
    rest = len(values) - least
    if rest < FEWEST_TO_FIND:
        return min(least, len(values))
    half = least + rest // 2
    settled = list(values[half:])
    centre = median(settled)
    spread = MAD_TO_SD * median(abs(value - centre) for value in settled)
    allowed = max(SETTLED_WITHIN * spread, SETTLED_SHARE * centre)
    for first in range(least, half):
        if all(abs(value - centre) <= allowed for value in values[first : first + SETTLED_IN_A_ROW]):
            return first
    return half


def drift(values: Sequence[float]) -> float | None:
    """The median of the last third against that of the first third, as a share; None below 9 values."""
    third = len(values) // 3
    if third < 3:
        return None
    first = median(values[:third])
    return median(values[-third:]) / first - 1 if first else None
