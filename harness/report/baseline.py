"""A report compared with an earlier one of the same work: slower beyond the noise or not, and what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from harness.report.compare import (
    Ratio,
    different_work_refusal,
    format_value,
    speed_ratio,
    split_conditions,
    work_and_conditions,
)
from harness.report.comparison_key import differences
from harness.report.run_report import BaselineResult, BaselineVerdict, Report
from machine.errors import Refused

# a larger change of a sensor's median is reported
FELT_APART = 0.03


class ConditionChange(msgspec.Struct, frozen=True):
    """A condition that has changed since the baseline."""

    name: str
    before: Any
    now: Any


class BaselineComparison(msgspec.Struct, frozen=True):
    """A report compared with an earlier one of the same work. `share`: how much faster (+) or slower (-) it is."""

    verdict: BaselineVerdict
    ratio: Ratio
    share: float
    changed: tuple[ConditionChange, ...]
    sentence: str
    started_at: str


def compare_with_baseline(report: Report, baseline: Report) -> BaselineComparison:
    """Whether this report is slower than an earlier one beyond the noise, and what has changed since.

    Raises Refused where the work differs, or where one of the reports has no work or no speed.
    """
    work, now = work_and_conditions(report, "The new report")
    earlier, before = work_and_conditions(baseline, "The baseline")
    found = differences((earlier, work))
    if found:
        raise different_work_refusal(found, ("baseline", "new"))
    ratio = speed_ratio(baseline, report)
    if ratio is None:
        raise Refused(
            "compare.no-speed",
            "One of the two reports has no speed.",
            "Too few steps were measured.",
            "Measure again with more steps.",
        )
    changed = tuple(ConditionChange(each.key, *each.values) for each in split_conditions([before, now])[1])
    verdict = _verdict(ratio, report, baseline)
    if report.verdict == "fail":
        sentence = "The training itself failed, so its speed is not compared with the baseline."
    else:
        sentence = _sentence(verdict, ratio, changed) + _sensor_changes(baseline, report)
    return BaselineComparison(verdict, ratio, ratio.value - 1, changed, sentence, baseline.started_at)


def with_baseline(report: Report, earlier: Report) -> Report:
    """The report with what became of its speed since an earlier one."""
    found = compare_with_baseline(report, earlier)
    beside = BaselineResult(found.verdict, found.share, found.sentence, found.started_at)
    return msgspec.structs.replace(report, baseline=beside)


def is_bad(report: Report, strict: bool) -> bool:
    """Whether the training is wrong or slower than its baseline; `strict`: or either is inconclusive."""
    against = report.baseline.verdict if report.baseline else "same"
    return (
        report.verdict == "fail" or against == "regression" or (strict and "inconclusive" in (report.verdict, against))
    )


def _verdict(ratio: Ratio, report: Report, baseline: Report) -> BaselineVerdict:
    if report.verdict == "fail":
        return "regression"
    if ratio.verdict == "unknown" or "inconclusive" in (report.verdict, baseline.verdict) or baseline.verdict == "fail":
        return "inconclusive"
    if ratio.verdict == "slower":
        return "regression"
    if ratio.verdict == "faster":
        return "better"
    return "inconclusive" if ratio.coarse else "same"


# conditions that follow from others
_CONSEQUENCES = frozenset({"package lock", "attention kernels seen"})


def _sentence(verdict: str, ratio: Ratio, changed: Sequence[ConditionChange]) -> str:
    by = f"{abs(ratio.value - 1):.1%}"
    spread = f" ({ratio.low:.3f} to {ratio.high:.3f} of it)" if ratio.low is not None and ratio.high is not None else ""
    if verdict == "inconclusive":
        return f"It is not known whether it is slower than the baseline{spread}: the measurements are too noisy."
    if verdict == "same":
        return f"As fast as the baseline within the intervals{spread}."
    way = "slower" if verdict == "regression" else "faster"
    head = f"{by} {way} than the baseline{spread}."
    causes = [change for change in changed if change.name not in _CONSEQUENCES] or list(changed)
    if not causes:
        return f"{head} No recorded condition has changed: check temperature, power and other programs."
    if len(causes) == 1:
        (cause,) = causes
        did = "cost you" if verdict == "regression" else "gave you"
        change = f"{cause.name} {format_value(cause.before)} → {format_value(cause.now)}"
        return f"{head} This {_kind_of_change(cause)} {did} {by}: nothing else has changed ({change})."
    changes = "; ".join(f"{cause.name} {format_value(cause.before)} → {format_value(cause.now)}" for cause in causes)
    return f"{head} One or several of these changes are the cause: {changes}."


def _sensor_changes(before: Report, now: Report) -> str:
    """Sensor values that changed: not settings and so not causes, but they hint at one."""
    one, other = before.measurements.sensors, now.measurements.sensors
    if one is None or other is None:
        return ""
    changes = []
    for name, unit in (("clock", "MHz"), ("temperature", "°C"), ("power", "W")):
        was, is_now = getattr(one, name).median, getattr(other, name).median
        if was and is_now and abs(is_now / was - 1) > FELT_APART:
            changes.append(f"{name} {was:,.0f} → {is_now:,.0f} {unit}")
    return f" Sensors: {', '.join(changes)}." if changes else ""


_UPDATED = frozenset(
    {"driver", "kernel", "torch", "CUDA or ROCm", "Axolotl", "transformers", "peft", "bitsandbytes", "accelerate"}
    | {"Python", "system", "image", "stack"}
)


def _kind_of_change(change: ConditionChange) -> str:
    """`driver update` for software that has versions, `change of power limit (W)` for the rest."""
    return f"{change.name} update" if change.name in _UPDATED else f"change of {change.name}"
