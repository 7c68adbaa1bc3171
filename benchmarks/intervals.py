"""Ratios of paired measurements, with a bootstrap interval over the pairs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import exp, log
from statistics import fmean, median

Statistic = Callable[[Sequence[float], Sequence[float]], float]
RESAMPLES = 10_000


def ratio_of_medians(one: Sequence[float], other: Sequence[float]) -> float:
    return median(one) / median(other)


def mean_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The geometric mean of the pairs' own ratios: what drifts from pair to pair cancels."""
    return exp(fmean(log(a / b) for a, b in zip(one, other, strict=True)))


def interval(statistic: Statistic, one: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """The percentile 95 % interval, whole pairs resampled, always with the same seed; None below three pairs.

    With five pairs it is somewhat too narrow (percentile bootstrap of a small sample): read it as a guide.
    """
    if len(one) < 3:
        return None
    draw = random.Random(0)
    pairs = list(zip(one, other, strict=True))
    found = sorted(statistic(*zip(*draw.choices(pairs, k=len(pairs)), strict=True)) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES) - 1]
