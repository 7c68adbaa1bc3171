"""Published measurements compared with the prediction: the errors, and the fit of the two slack constants.

`python -m harness.memory.published_measurements` prints the slack fitted to all sources together, and the table of
errors, where each source is predicted with the slack of the other sources.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from harness.memory.job import AllocatorSlack, MemoryJob, constants
from harness.memory.prediction import Prediction, predict
from harness.recipe.shapes import shapes_of

_TABLE = Path(str(resources.files("harness"))) / "memory" / "published_measurements.toml"

Kind = Literal["allocated", "reserved", "device"]
KINDS: tuple[Kind, ...] = ("allocated", "reserved", "device")

_UNITS = {"B": 1.0, "MiB": 2.0**20, "GiB": 2.0**30, "GB": 1e9}


class MeasuredRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published run; its figures as published, with their unit."""

    name: str
    job: dict[str, Any]
    allocated: str | None = None
    reserved: str | None = None
    device: str | None = None


class MeasurementSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`job`: settings of all its rows. `card_bytes`: near this limit the allocator returns unused blocks."""

    id: str
    title: str
    url: str
    date: str
    stack: str
    card: str
    because: str
    job: dict[str, Any]
    rows: tuple[MeasuredRun, ...]
    card_bytes: int | None = None


class ExcludedSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    what: str
    why: str
    url: str


class AllocatorSpread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    resident: str
    allocated: str
    device: str


class AllocatorSpreads(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Runs with batches of many lengths, whose figures give the allocator's slack whatever the job was."""

    source: str
    url: str
    date: str
    rows: tuple[AllocatorSpread, ...]


class MeasurementTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sources: tuple[MeasurementSource, ...]
    spreads: AllocatorSpreads
    excluded: tuple[ExcludedSource, ...]


class MeasuredFigure(msgspec.Struct, frozen=True):
    """One measured figure in bytes, and its job."""

    source: MeasurementSource
    row: MeasuredRun
    kind: Kind
    measured: float
    job: MemoryJob

    def predicted(self, fitted: AllocatorSlack) -> float:
        return _prediction_of(self, predict(self.job, fitted))

    def error(self, fitted: AllocatorSlack) -> float:
        """Relative error: above 0 the prediction is too high."""
        return self.predicted(fitted) / self.measured - 1


def _prediction_of(figure: MeasuredFigure, prediction: Prediction) -> float:
    if figure.kind == "allocated":
        return prediction.allocated
    reserved, context = float(prediction.reserved), constants().context
    if figure.source.card_bytes is not None:
        # on a full card the allocator returns what it holds and does not use
        reserved = max(float(prediction.allocated), min(reserved, figure.source.card_bytes - context))
    return reserved + (context if figure.kind == "device" else 0.0)


@cache
def measurements() -> MeasurementTable:
    import tomllib

    return msgspec.convert(tomllib.loads(_TABLE.read_text(encoding="utf-8")), MeasurementTable)


@cache
def figures() -> tuple[MeasuredFigure, ...]:
    """Every figure of every row."""
    return tuple(
        MeasuredFigure(source, row, kind, _bytes(text), job_of_row(source, row))
        for source in measurements().sources
        for row in source.rows
        for kind in KINDS
        if (text := getattr(row, kind)) is not None
    )


def job_of_row(source: MeasurementSource, row: MeasuredRun) -> MemoryJob:
    """The row's job; raises LookupError if its model is not in the table of shapes."""
    settings = source.job | row.job
    shapes = shapes_of(settings.pop("model"))
    if shapes is None:
        raise LookupError(f"{source.id}: {row.name}")
    return msgspec.convert({**settings, "shapes": msgspec.to_builtins(shapes)}, MemoryJob)


def fit_slack(rows: Iterable[MeasuredFigure]) -> AllocatorSlack:
    """The two slack constants with the least squares of the relative errors; every source has the same weight.

    A figure of a full card gives no information about slack. Each figure has either one batch shape or many, so the
    two constants are fitted separately.
    """
    lines: list[tuple[str, _Line]] = [(row.source.id, line) for row in rows if (line := _line(row))]
    spreads = measurements().spreads
    lines += [(spreads.source, _line_of_spread(row)) for row in spreads.rows]
    counts = Counter(source for source, _ in lines)
    return AllocatorSlack(*(_share(lines, counts, varied) for varied in (False, True)))


class _Line(NamedTuple):
    """One equation: the temporary memory, and what the prediction lacks without slack; both as shares of the figure."""

    varied: bool
    passing: float
    missing: float


def _share(lines: list[tuple[str, _Line]], counts: Counter[str], varied: bool) -> float:
    """The least-squares slack for varied or uniform batches; 0 where no figure has such batches."""
    known = [(line, 1 / counts[source]) for source, line in lines if line.varied is varied]
    square = sum(weight * line.passing**2 for line, weight in known)
    return max(0.0, sum(weight * line.passing * line.missing for line, weight in known) / square) if square else 0.0


def _line(row: MeasuredFigure) -> _Line | None:
    if row.kind == "allocated" or _is_full(row):
        return None
    whole = predict(row.job, AllocatorSlack(1.0, 1.0))
    known = whole.allocated + (constants().context if row.kind == "device" else 0)
    return _Line(row.job.varied, (whole.reserved - whole.allocated) / row.measured, 1 - known / row.measured)


def _line_of_spread(row: AllocatorSpread) -> _Line:
    resident, allocated, device = (_bytes(text) for text in (row.resident, row.allocated, row.device))
    return _Line(True, (allocated - resident) / device, 1 - (allocated + constants().context) / device)


def _is_full(row: MeasuredFigure) -> bool:
    return row.source.card_bytes is not None and row.measured > 0.93 * row.source.card_bytes


class Errors(msgspec.Struct, frozen=True):
    """One source's figures, predicted with the slack fitted to the other sources."""

    source: MeasurementSource
    fitted: AllocatorSlack
    rows: tuple[tuple[MeasuredFigure, float], ...]

    @property
    def mean(self) -> float:
        """Mean absolute relative error."""
        return sum(abs(error) for _, error in self.rows) / len(self.rows)

    @property
    def worst(self) -> float:
        return max((error for _, error in self.rows), key=abs)


@cache
def errors_by_source() -> tuple[Errors, ...]:
    """Each source's errors, predicted with that source left out of the fit."""
    found = []
    for source in measurements().sources:
        rows = [row for row in figures() if row.source.id == source.id]
        others = [row for row in figures() if row.source.id != source.id]
        fitted = fit_slack(others)
        found.append(Errors(source, fitted, tuple((row, row.error(fitted)) for row in rows)))
    return tuple(found)


def _bytes(text: str) -> float:
    number, _, unit = text.partition(" ")
    return float(number) * _UNITS[unit]


def table() -> str:
    """Markdown: one line per source, then one per figure."""
    lines = [
        "| source left out | figures | mean error | without allocated | worst | slack of the others | varied |",
        "|---|---|---|---|---|---|---|",
    ]
    every = [(row, error) for errors in errors_by_source() for row, error in errors.rows]
    for errors in errors_by_source():
        lines.append(
            f"| {errors.source.id} | {len(errors.rows)} | {errors.mean:.1%} | {_mean(errors.rows, seen=True)} "
            f"| {errors.worst:+.1%} | {errors.fitted.slack:.2f} | {errors.fitted.slack_varied:.2f} |"
        )
    lines.append(
        f"| **all** | {len(every)} | **{_mean(every)}** | **{_mean(every, seen=True)}** "
        f"| {max((error for _, error in every), key=abs):+.1%} | | |"
    )
    lines += ["", "| source | run | kind | measured | predicted | error |", "|---|---|---|---|---|---|"]
    for errors in errors_by_source():
        for row, error in errors.rows:
            predicted = row.predicted(errors.fitted) / 1e9
            lines.append(
                f"| {errors.source.id} | {row.row.name} | {row.kind} | {row.measured / 1e9:.2f} | {predicted:.2f} "
                f"| {error:+.1%} |"
            )
    return "\n".join(lines) + "\n"


def excluded_list() -> str:
    """Markdown: the measurements that are not used, each with its reason."""
    return "\n".join(f"- [{row.what}]({row.url}): {row.why}." for row in measurements().excluded) + "\n"


def _mean(rows: Iterable[tuple[MeasuredFigure, float]], seen: bool = False) -> str:
    """`seen`: without the allocated figures, which do not depend on the slack."""
    errors = [abs(error) for row, error in rows if not seen or row.kind != "allocated"]
    return f"{sum(errors) / len(errors):.1%}" if errors else ""


if __name__ == "__main__":
    shares = fit_slack(figures())
    sys.stdout.write(f"slack {shares.slack:.3f}, varied {shares.slack_varied:.3f}\n\n{table()}\n{excluded_list()}")
