"""Reports beside each other: the same work under other conditions, with ratios and what is known of them.

    reports ─▶ the same work? ─┬ no ─▶ refused, with the keys that differ
                               └ yes ▶ figures, ratios to the first, conditions that differ, what is published

A ratio's interval comes from both medians' intervals (MOVER on logarithms: Zou and Donner 2008, Statistics in Medicine
27, 1693), so that it is only as wide as the two together and need not be symmetric. A difference smaller than a speed
is known at best (measure/verdict.py) is not told apart, whatever the intervals say: two launches of one program differ
by as much for no reason that anybody sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any, Literal

import msgspec

from harness.measure.measurement import Measurement, over
from harness.measure.verdict import WIDEST
from harness.report.comparison_key import Conditions, Difference, Work, differences, listed
from harness.report.published_speeds import Beside, Judged, beside
from harness.report.run_report import Report
from machine.errors import BadUsage, Refused

# no measurement is known worse; a report that says so cannot make a number overflow
WIDEST_SPREAD = 100.0
UNFELT = Measurement("", None, note="not recorded")
# an interval that reaches further from 1 than this cannot say whether something is lost
COARSE = 0.10

Verdict = Literal["equal", "faster", "slower", "unknown"]


class Ratio(msgspec.Struct, frozen=True):
    """This report's median divided by the first one's, with a 95 % interval; faster or slower only beyond the noise."""

    value: float
    low: float | None
    high: float | None
    verdict: Verdict

    @property
    def coarse(self) -> bool:
        """The interval holds 1 and reaches so far that a real difference would not be seen."""
        return self.low is None or self.high is None or self.low < 1 - COARSE or self.high > 1 / (1 - COARSE)


class Figures(msgspec.Struct, frozen=True):
    """A report's measurements without the raw values; `peak_memory` is the card's, or the worker's on a processor.

    `steps`: how many were trained in a launch, the warm-up among them; a budget ends fewer where the machine is slower,
    and the last loss is that of the last of them.
    """

    non_padding: Measurement
    processed: Measurement
    trainable: Measurement
    step_seconds: Measurement
    mfu: Measurement
    ceiling_share: Measurement
    matmul_ceiling_tflops: Measurement
    joules_per_token: Measurement
    peak_memory: Measurement
    power: Measurement
    clock: Measurement
    temperature: Measurement
    steps: Measurement
    first_loss: Measurement
    last_loss: Measurement


class Compared(msgspec.Struct, frozen=True):
    """One report among the others. `ratio` is None for the first, and where its own training went wrong."""

    letter: str
    machine: str
    recipe: str
    started_at: str
    verdict: str
    digest: str
    figures: Figures
    ratio: Ratio | None
    beside: Beside | None
    conditions: Conditions


class Comparison(msgspec.Struct, frozen=True):
    """`comparable` is false where the reports did different work: `differences` says in what, and nothing is rated.

    `work` is the first report's. `same` and `changed` are the conditions that all share and those that they don't.
    """

    comparable: bool
    work: Work
    differences: tuple[Difference, ...]
    runs: tuple[Compared, ...]
    same: dict[str, Any]
    changed: tuple[Difference, ...]
    notes: tuple[str, ...]


def keyed(report: Report, called: str = "This report") -> tuple[Work, Conditions]:
    """The report's work and conditions; Refused for a report of a version that did not note them."""
    if report.work is None or report.conditions is None:
        raise Refused(
            "compare.no-work",
            f"{called} does not say what work it measured.",
            f"It was written on {report.started_at[:10]} by a version that did not note it.",
            "Measure again with this version: gpu-setup bench.",
        )
    return report.work, report.conditions


def compare(reports: Sequence[Report], known: tuple[Judged, ...], called: Sequence[str] = ()) -> Comparison:
    """The comparison of one report or more; the first is what the others are set against.

    `known` are the published records. Raises Refused for a report without its work, BadUsage for one given twice.
    """
    names = called or [f"Report {letter(number)}" for number in range(len(reports))]
    keys = [keyed(report, name) for report, name in zip(reports, names, strict=True)]
    _no_twins(reports, names)
    works = tuple(work for work, _ in keys)
    found = differences(works)
    first = reports[0]
    runs = tuple(
        Compared(
            letter(number),
            machine_of(report),
            report.recipe.name,
            report.started_at,
            report.verdict,
            report.digest or "",
            figures_of(report),
            None if number == 0 or found or "fail" in (report.verdict, first.verdict) else speed_ratio(first, report),
            None if found else beside(work, conditions, _rate(report), known),
            conditions,
        )
        for number, (report, (work, conditions)) in enumerate(zip(reports, keys, strict=True))
    )
    same, changed = split_conditions([conditions for _, conditions in keys])
    return Comparison(
        comparable=not found,
        work=works[0],
        differences=found,
        runs=runs,
        same=same,
        changed=changed,
        notes=() if found else tuple(_notes(reports, runs)),
    )


def different_work(found: Sequence[Difference], sides: Sequence[str]) -> Refused:
    """The refusal, with every key in which the reports differ and what each has there."""
    told = [
        f"{each.key}: {', '.join(f'{side} {shown(value)}' for side, value in zip(sides, each.values, strict=True))}"
        for each in found
    ]
    return Refused(
        "compare.different-work",
        "These reports did different work, so their speeds cannot be compared.",
        f"{'; '.join(told)}.",
        what_to_compare(found),
    )


def what_to_compare(found: Sequence[Difference]) -> str:
    """What a person can do about reports that differ in these keys."""
    if {each.key for each in found} == {"tokens"}:
        return "Only the number of tokens differs: repeat one with the other's --quick, --record or --steps."
    return "Compare reports of one recipe with one data set; card, driver, kernels and power may differ."


def letter(number: int) -> str:
    """A, B … Z, then AA, AB …"""
    head, last = divmod(number, len(ascii_uppercase))
    return (letter(head - 1) if head else "") + ascii_uppercase[last]


def short_digest(run: Compared) -> str:
    """The digest's first characters; whatever else a strange report has there is left out."""
    return "".join(sign for sign in run.digest if sign in "0123456789abcdef")[:12] or "none"


def shown(value: Any) -> str:
    """A key's or a condition's value for a person."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def machine_of(report: Report) -> str:
    """The card, or the processor where none was trained on."""
    conditions = report.conditions
    card = conditions.card if conditions else None
    return card or report.host.cpu or "an unknown processor"


def figures_of(report: Report) -> Figures:
    found = report.measurements
    speed, memory, felt = found.tokens_per_second, found.peak_memory, found.sensors
    card = memory.device_allocated.median is not None
    return Figures(
        *(
            msgspec.structs.replace(measurement, raw=())
            for measurement in (
                speed.non_padding,
                speed.processed,
                speed.trainable,
                found.step_seconds,
                found.mfu,
                found.ceiling_share,
                found.matmul_ceiling_tflops,
                found.joules_per_token,
                memory.device_allocated if card else memory.worker_rss,
                felt.power if felt else UNFELT,
                felt.clock if felt else UNFELT,
                felt.temperature if felt else UNFELT,
                over([launch.steps for launch in report.launches], "steps"),
                found.loss.first,
                found.loss.last,
            )
        )
    )


def ratio_of(first: Measurement, other: Measurement, told_apart: float) -> Ratio | None:
    """`other` divided by `first`; None where one of them has no value. Without both intervals nothing is told apart."""
    if not all(each.median is not None and 0 < each.median < math.inf for each in (first, other)):
        return None
    assert first.median and other.median
    value = other.median / first.median
    one, two = _spread(first), _spread(other)
    if one is None or two is None:
        return Ratio(value, None, None, "unknown")
    low = value / math.exp(math.hypot(two[0], one[1]))
    high = value * math.exp(math.hypot(two[1], one[0]))
    if low <= 1 <= high or abs(value - 1) < told_apart:
        return Ratio(value, low, high, "equal")
    return Ratio(value, low, high, "faster" if value > 1 else "slower")


def split_conditions(each: Sequence[Conditions]) -> tuple[dict[str, Any], tuple[Difference, ...]]:
    """Conditions that all have alike, unknown ones left out, and those that differ."""
    tables = [dict(listed(conditions)) for conditions in each]
    same: dict[str, Any] = {}
    changed = []
    for name in tables[0]:
        values = tuple(table[name] for table in tables)
        if len(set(values)) > 1:
            changed.append(Difference(name, values))
        elif values[0] is not None:
            same[name] = values[0]
    return same, tuple(changed)


def _spread(measurement: Measurement) -> tuple[float, float] | None:
    """How far the interval reaches below and above the median, as differences of logarithms."""
    if measurement.ci95 is None or not measurement.median or measurement.ci95[0] <= 0:
        return None
    low, high = measurement.ci95
    below, above = math.log(measurement.median) - math.log(low), math.log(max(high, low)) - math.log(measurement.median)
    return min(max(0.0, below), WIDEST_SPREAD), min(max(0.0, above), WIDEST_SPREAD)


def _rate(report: Report) -> float | None:
    return None if report.verdict == "fail" else report.measurements.tokens_per_second.non_padding.median


def _kind(report: Report) -> str:
    worker = report.environment.worker
    return worker.device_type if worker and worker.device_type in WIDEST else "cpu"


def speed_ratio(first: Report, other: Report) -> Ratio | None:
    """`other`'s tokens a second without padding, divided by `first`'s."""
    told_apart = max(WIDEST[_kind(first)], WIDEST[_kind(other)])
    one, two = (report.measurements.tokens_per_second.non_padding for report in (first, other))
    return ratio_of(one, two, told_apart)


def _no_twins(reports: Sequence[Report], names: Sequence[str]) -> None:
    """The same run twice would always be equal to itself, and look like a result."""
    seen: dict[tuple[str, str, tuple[float, ...]], str] = {}
    for report, name in zip(reports, names, strict=True):
        own = (report.started_at, report.folder, report.measurements.step_seconds.raw)
        if own in seen:
            raise BadUsage(
                "compare.same-run",
                f"{name} is the same run as {seen[own]}.",
                "A run is always equal to itself.",
                "Give each run once.",
            )
        seen[own] = name


def _notes(reports: Sequence[Report], runs: Sequence[Compared]) -> list[str]:
    notes = []
    for report, run in zip(reports, runs, strict=True):
        why = "".join(f" {reason}" for reason in report.reasons[:1])
        if report.verdict == "fail":
            notes.append(f"{run.letter} went wrong, so its speed is not rated.{why}")
        if report.verdict == "inconclusive":
            notes.append(f"{run.letter} calls itself inconclusive.{why}")
        if report.host.stub:
            notes.append(f"A stub stood in for {run.letter}'s driver: nothing of it was measured on a card.")
        if run.ratio and run.ratio.verdict in ("equal", "unknown") and run.ratio.coarse:
            notes.append(
                f"{run.letter}'s interval is wide: a difference of {COARSE:.0%} would not be seen. "
                "Measure again with nothing else running, or with more steps."
            )
    kinds = {_kind(report) for report in reports}
    if len(kinds) > 1:
        notes.append("A card and a processor are set side by side.")
    weights = {run.conditions.weights for run in runs}
    if weights == {"real", "random"}:
        notes.append("Random weights of the same shapes beside real ones: speed and memory compare, losses don't.")
    digests = [run.digest for run in runs if run.digest]
    if len(digests) > 1 and len(set(digests)) == 1 and len(digests) == len(runs):
        notes.append("All that is recorded is the same in all of them (equal digests): differences are chance or heat.")
    return notes
