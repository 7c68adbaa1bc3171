"""A measured value as reports carry it: unit, median, interval, how many, and the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from harness.measure.intervals import median_interval

MOST_KEPT = 240


class Measurement(msgspec.Struct, frozen=True):
    """`ci95` is None where one value was read (`n` 1); `raw` in the order of the steps, or of the process launches.

    `note`: why there is no value, or what the value is worth.
    """

    unit: str
    median: float | None
    ci95: tuple[float, float] | None = None
    n: int = 0
    raw: tuple[float, ...] = ()
    note: str | None = None


def over(values: Sequence[float], unit: str) -> Measurement:
    if not values:
        return Measurement(unit, None, None, 0, (), "no steady step was measured")
    return Measurement(unit, median(values), median_interval(values), len(values), tuple(values))


def once(value: float | None, unit: str, unknown: str | None = None) -> Measurement:
    """A value that was read once; `unknown` says why there is none."""
    if value is None:
        return Measurement(unit, None, None, 0, (), unknown)
    return Measurement(unit, value, None, 1, (value,))


def thinned(values: tuple[float, ...]) -> tuple[float, ...]:
    """Evenly fewer of a long series, so that a report stays small."""
    return values[:: -(-len(values) // MOST_KEPT)] if len(values) > MOST_KEPT else values
