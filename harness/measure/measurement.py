"""A measured value in a report: unit, median, interval, the number of values, and the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from harness.measure.intervals import median_interval

MOST_KEPT = 240


class Measurement(msgspec.Struct, frozen=True):
    """`n` values in `raw`, in the order of the steps or of the launches. `ci95`: interval of the median; None for n 1.

    `note`: why there is no value, or how it was measured.
    """

    unit: str
    median: float | None
    ci95: tuple[float, float] | None = None
    n: int = 0
    raw: tuple[float, ...] = ()
    note: str | None = None


def series(values: Sequence[float], unit: str) -> Measurement:
    if not values:
        return Measurement(unit, None, None, 0, (), "no step after the warm-up was measured")
    return Measurement(unit, median(values), median_interval(values), len(values), tuple(values))


def single(value: float | None, unit: str, unknown: str | None = None) -> Measurement:
    """A value that was read once. `unknown`: why there is none."""
    if value is None:
        return Measurement(unit, None, None, 0, (), unknown)
    return Measurement(unit, value, None, 1, (value,))


def thin_out(values: tuple[float, ...]) -> tuple[float, ...]:
    """Every n-th value of a long series, so that a report stays small."""
    return values[:: -(-len(values) // MOST_KEPT)] if len(values) > MOST_KEPT else values
