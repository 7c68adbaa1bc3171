"""Reports side by side: the same work under different conditions, with ratios and published speeds.

    reports ─▶ the same work? ─┬ no ─▶ refused, with the keys that differ
                               └ yes ▶ figures, ratios to the first, conditions that differ, what is published

A ratio's interval comes from both medians' intervals (MOVER on logarithms: Zou and Donner 2008, Statistics in Medicine
27, 1693), so that it is only as wide as the two together and need not be symmetric. A difference below the best
precision of a speed (measure/verdict.py) counts as equal, whatever the intervals are: two launches of one program
differ by as much without a known reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any, Literal

import msgspec

from harness.measure.measurement import Measurement, series
from harness.measure.verdict import WIDEST, Verdict
from harness.report.comparison_key import Conditions, Difference, Work, differences, list_conditions
from harness.report.published_speeds import PublishedMatch, RatedSpeed, match_published
from harness.report.run_report import Report
from machine.errors import BadUsage, Refused

# wider intervals are cut to this, so that no number in a report can overflow
WIDEST_SPREAD = 100.0
NO_SENSOR = Measurement("", None, note="not recorded")
# an interval that reaches further from 1 than this cannot show a real difference
COARSE = 0.10

RatioVerdict = Literal["equal", "faster", "slower", "unknown"]


class Ratio(msgspec.Struct, frozen=True):
    """This report's median divided by the first one's, with a 95 % interval. Faster or slower only beyond the noise."""

    value: float
    low: float | None
    high: float | None
    verdict: RatioVerdict

    @property
    def coarse(self) -> bool:
        """The interval contains 1 and is so wide that a real difference would not be seen."""
        return self.low is None or self.high is None or self.low < 1 - COARSE or self.high > 1 / (1 - COARSE)


class Figures(msgspec.Struct, frozen=True):
    """A report's measurements without the raw values. `peak_memory`: of the GPU, or of the worker on a CPU.

    `steps`: trained in a launch, warm-up included; with a time budget a slower machine trains fewer. `last_loss` is
    that of the last of them.
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


class ComparedRun(msgspec.Struct, frozen=True):
    """One of the reports. `ratio` is None for the first report, and for one whose training failed."""

    letter: str
    machine: str
    recipe: str
    started_at: str
    verdict: Verdict
    digest: str
    figures: Figures
    ratio: Ratio | None
    beside: PublishedMatch | None
    conditions: Conditions


class Comparison(msgspec.Struct, frozen=True):
    """`comparable` is false where the reports did different work; `differences` lists the keys, and ratios are null.

    `work`: of the first report. `same`: conditions that are equal in all reports; `changed`: those that are not.
    """

    comparable: bool
    work: Work
    differences: tuple[Difference, ...]
    runs: tuple[ComparedRun, ...]
    same: dict[str, Any]
    changed: tuple[Difference, ...]
    notes: tuple[str, ...]


def work_and_conditions(report: Report, called: str = "This report") -> tuple[Work, Conditions]:
    """The report's work and conditions; Refused for a report of a version that did not record them."""
    if report.work is None or report.conditions is None:
        raise Refused(
            "compare.no-work",
            f"{called} does not record what work was measured.",
            f"It was written on {report.started_at[:10]} by a version that did not record it.",
            "Measure again with this version: gpu-setup bench.",
        )
    return report.work, report.conditions


def compare(reports: Sequence[Report], known: tuple[RatedSpeed, ...], called: Sequence[str] = ()) -> Comparison:
    """The comparison of one or more reports; ratios are relative to the first.

    `known`: the published speeds. Raises Refused for a report without its work, BadUsage for one given twice.
    """
    names = called or [f"Report {letter(number)}" for number in range(len(reports))]
    keys = [work_and_conditions(report, name) for report, name in zip(reports, names, strict=True)]
    _refuse_same_run(reports, names)
    works = tuple(work for work, _ in keys)
    found = differences(works)
    first = reports[0]
    runs = tuple(
        ComparedRun(
            letter(number),
            machine_of(report),
            report.recipe.name,
            report.started_at,
            report.verdict,
            report.digest or "",
            figures_of(report),
            None if number == 0 or found or "fail" in (report.verdict, first.verdict) else speed_ratio(first, report),
            None if found else match_published(work, conditions, _rate(report), known),
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


def different_work_refusal(found: Sequence[Difference], sides: Sequence[str]) -> Refused:
    """The refusal, with every key in which the reports differ and the value of each."""
    differing = [
        f"{each.key}: "
        + ", ".join(f"{side} {format_value(value)}" for side, value in zip(sides, each.values, strict=True))
        for each in found
    ]
    return Refused(
        "compare.different-work",
        "These reports did different work, so their speeds cannot be compared.",
        f"{'; '.join(differing)}.",
        what_to_compare(found),
    )


def what_to_compare(found: Sequence[Difference]) -> str:
    """What to do about reports that differ in these keys."""
    if {each.key for each in found} == {"tokens"}:
        return "Only the number of tokens differs: measure one again with the other's --quick, --record or --steps."
    return "Compare reports of the same recipe with the same data; GPU, driver, kernels and power may differ."


def letter(number: int) -> str:
    """A, B … Z, then AA, AB …"""
    head, last = divmod(number, len(ascii_uppercase))
    return (letter(head - 1) if head else "") + ascii_uppercase[last]


def short_digest(run: ComparedRun) -> str:
    """The digest's first characters; anything that is not a hexadecimal digit is left out."""
    return "".join(sign for sign in run.digest if sign in "0123456789abcdef")[:12] or "none"


def format_value(value: Any) -> str:
    """The value of a key or a condition, as text."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def machine_of(report: Report) -> str:
    """The GPU, or the CPU where no GPU was used."""
    conditions = report.conditions
    card = conditions.card if conditions else None
    return card or report.host.cpu or "an unknown CPU"


def figures_of(report: Report) -> Figures:
    found = report.measurements
    speed, memory, sensors = found.tokens_per_second, found.peak_memory, found.sensors
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
                sensors.power if sensors else NO_SENSOR,
                sensors.clock if sensors else NO_SENSOR,
                sensors.temperature if sensors else NO_SENSOR,
                series([launch.steps for launch in report.launches], "steps"),
                found.loss.first,
                found.loss.last,
            )
        )
    )


def ratio_of(first: Measurement, other: Measurement, least: float) -> Ratio | None:
    """`other` divided by `first`; None where one has no value. Without both intervals the verdict is unknown."""
    if not all(each.median is not None and 0 < each.median < math.inf for each in (first, other)):
        return None
    assert first.median and other.median
    value = other.median / first.median
    one, two = _spread(first), _spread(other)
    if one is None or two is None:
        return Ratio(value, None, None, "unknown")
    low = value / math.exp(math.hypot(two[0], one[1]))
    high = value * math.exp(math.hypot(two[1], one[0]))
    if low <= 1 <= high or abs(value - 1) < least:
        return Ratio(value, low, high, "equal")
    return Ratio(value, low, high, "faster" if value > 1 else "slower")


def split_conditions(each: Sequence[Conditions]) -> tuple[dict[str, Any], tuple[Difference, ...]]:
    """Conditions that are equal in all reports (unknown ones left out), and those that differ."""
    tables = [dict(list_conditions(conditions)) for conditions in each]
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
    """The non-padding tokens/s of `other`, divided by those of `first`."""
    least = max(WIDEST[_kind(first)], WIDEST[_kind(other)])
    one, two = (report.measurements.tokens_per_second.non_padding for report in (first, other))
    return ratio_of(one, two, least)


def _refuse_same_run(reports: Sequence[Report], names: Sequence[str]) -> None:
    """Raises BadUsage for a run that is given twice: it would always be equal to itself."""
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


def _notes(reports: Sequence[Report], runs: Sequence[ComparedRun]) -> list[str]:
    notes = []
    for report, run in zip(reports, runs, strict=True):
        why = "".join(f" {reason}" for reason in report.reasons[:1])
        if report.verdict == "fail":
            notes.append(f"The training of {run.letter} failed, so its speed is not compared.{why}")
        if report.verdict == "inconclusive":
            notes.append(f"The result of {run.letter} is inconclusive.{why}")
        if report.host.stub:
            notes.append(f"{run.letter} used a stand-in for the driver: nothing in it was measured on a GPU.")
        if run.ratio and run.ratio.verdict in ("equal", "unknown") and run.ratio.coarse:
            notes.append(
                f"The interval of {run.letter} is wide: a difference of {COARSE:.0%} would not be seen. "
                "Measure again while nothing else runs, or with more steps."
            )
    kinds = {_kind(report) for report in reports}
    if len(kinds) > 1:
        notes.append("A GPU is compared with a CPU.")
    weights = {run.conditions.weights for run in runs}
    if weights == {"real", "random"}:
        notes.append("Some models have random weights: speed and memory can be compared, losses cannot.")
    digests = [run.digest for run in runs if run.digest]
    if len(digests) > 1 and len(set(digests)) == 1 and len(digests) == len(runs):
        notes.append("All recorded settings are equal (equal digests): differences come from noise or temperature.")
    return notes
