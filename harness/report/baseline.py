"""A report against an earlier one of the same work: slower beyond the noise, and what has changed in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from harness.report.compare import Ratio, different_work, keyed, shown, speed_ratio, split_conditions
from harness.report.comparison_key import differences
from harness.report.run_report import AgainstBaseline, Report
from machine.errors import Refused

# a sensor's median that moved by more than this is worth telling
FELT_APART = 0.03


class Change(msgspec.Struct, frozen=True):
    """A condition that is not as it was."""

    name: str
    before: Any
    now: Any


class Baseline(msgspec.Struct, frozen=True):
    """A report against an earlier one of the same work. `share` is what was gained (+) or lost (-), of the baseline."""

    verdict: Literal["regression", "better", "same", "inconclusive"]
    ratio: Ratio
    share: float
    changed: tuple[Change, ...]
    sentence: str
    started_at: str


def against_baseline(report: Report, baseline: Report) -> Baseline:
    """Whether this report is slower than an earlier one beyond the noise, and what has changed in between.

    Raises Refused where the work is another, or either does not say what it measured.
    """
    work, now = keyed(report, "The new report")
    earlier, before = keyed(baseline, "The baseline")
    found = differences((earlier, work))
    if found:
        raise different_work(found, ("baseline", "new"))
    ratio = speed_ratio(baseline, report)
    if ratio is None:
        raise Refused(
            "compare.no-speed",
            "One of the two reports has no speed.",
            "Too few steps were measured.",
            "Measure again, with more steps.",
        )
    changed = tuple(Change(each.key, *each.values) for each in split_conditions([before, now])[1])
    verdict = _verdict(ratio, report, baseline)
    if report.verdict == "fail":
        sentence = "The training itself went wrong this time: a speed that is not held against the baseline."
    else:
        sentence = _sentence(verdict, ratio, changed) + _felt(baseline, report)
    return Baseline(verdict, ratio, ratio.value - 1, changed, sentence, baseline.started_at)


def with_baseline(report: Report, earlier: Report) -> Report:
    """The report with what became of its speed since an earlier one."""
    found = against_baseline(report, earlier)
    beside = AgainstBaseline(found.verdict, found.share, found.sentence, found.started_at)
    return msgspec.structs.replace(report, baseline=beside)


def is_bad(report: Report, strict: bool) -> bool:
    """Whether the training is wrong or slower than its baseline; `strict`: or either is inconclusive."""
    against = report.baseline.verdict if report.baseline else "same"
    return (
        report.verdict == "fail" or against == "regression" or (strict and "inconclusive" in (report.verdict, against))
    )


def _verdict(ratio: Ratio, report: Report, baseline: Report) -> Literal["regression", "better", "same", "inconclusive"]:
    if report.verdict == "fail":
        return "regression"
    if ratio.verdict == "unknown" or "inconclusive" in (report.verdict, baseline.verdict) or baseline.verdict == "fail":
        return "inconclusive"
    if ratio.verdict == "slower":
        return "regression"
    if ratio.verdict == "faster":
        return "better"
    return "inconclusive" if ratio.coarse else "same"


# conditions that follow from others, or that change nothing by themselves when another one did
_CONSEQUENCES = frozenset({"package lock", "attention kernels seen"})


def _sentence(verdict: str, ratio: Ratio, changed: Sequence[Change]) -> str:
    by = f"{abs(ratio.value - 1):.1%}"
    spread = f" ({ratio.low:.3f} to {ratio.high:.3f} of it)" if ratio.low is not None and ratio.high is not None else ""
    if verdict == "inconclusive":
        return f"Whether it is slower than the baseline cannot be said{spread}: the measurements are too coarse."
    if verdict == "same":
        return f"As fast as the baseline, within the intervals{spread}."
    way = "slower" if verdict == "regression" else "faster"
    head = f"{by} {way} than the baseline{spread}."
    causes = [change for change in changed if change.name not in _CONSEQUENCES] or list(changed)
    if not causes:
        return f"{head} Nothing that is recorded has changed: look for heat, power and other programs."
    if len(causes) == 1:
        (cause,) = causes
        did = "cost you" if verdict == "regression" else "gave you"
        told = f"{cause.name} {shown(cause.before)} → {shown(cause.now)}"
        return f"{head} This {_kind_of_change(cause)} {did} {by}: only it has changed ({told})."
    told = "; ".join(f"{cause.name} {shown(cause.before)} → {shown(cause.now)}" for cause in causes)
    return f"{head} One of these did it, or several: {told}."


def _felt(before: Report, now: Report) -> str:
    """Sensors that showed something else: no setting, so no cause by itself, but a trace of one."""
    one, other = before.measurements.sensors, now.measurements.sensors
    if one is None or other is None:
        return ""
    told = []
    for name, unit in (("clock", "MHz"), ("temperature", "°C"), ("power", "W")):
        was, is_now = getattr(one, name).median, getattr(other, name).median
        if was and is_now and abs(is_now / was - 1) > FELT_APART:
            told.append(f"{name} {was:,.0f} → {is_now:,.0f} {unit}")
    return f" Seen: {', '.join(told)}." if told else ""


_UPDATED = frozenset(
    {"driver", "kernel", "torch", "CUDA or ROCm", "Axolotl", "transformers", "peft", "bitsandbytes", "accelerate"}
    | {"Python", "system", "image", "stack"}
)


def _kind_of_change(change: Change) -> str:
    """`driver update` for software that has versions, `change of power limit (W)` for the rest."""
    return f"{change.name} update" if change.name in _UPDATED else f"change of {change.name}"
