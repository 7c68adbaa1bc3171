"""Is a speed reliable? Facts of a run → pass, fail or inconclusive, each with its reasons. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import msgspec

from harness.measure.gpu_processes import CardUse
from harness.measure.intervals import half_width
from harness.measure.metrics import FEWEST_STEPS, Measurements, losses
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import LossBand

# half of the interval, as a share of the median
WIDEST = {"gpu": 0.01, "cpu": 0.05}
# harness/measure/intervals.py gives no interval for fewer
FEWEST_FOR_INTERVAL = 6
OTHER_LOAD = 0.05
DRIFT = 0.05
CEILING_CHANGE = 0.05
# the ceiling is a measurement too: a run may be this much above it by chance
ABOVE_CEILING = 1.02
MATH = "_scaled_dot_product_attention_math"
OWN_SHARE = 0.01


Verdict = Literal["pass", "fail", "inconclusive"]


class SpeedVerdict(msgspec.Struct, frozen=True):
    """`reasons`: why it is not a pass; `notes`: what else a reader must know."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge_speed(
    measurements: Measurements,
    log: WorkerLog,
    band: LossBand | None = None,
    possible: float | None = None,
    computed: float | None = None,
    launches: int = 1,
) -> SpeedVerdict:
    """`possible` and `computed`: TFLOP/s, the physical limit and this run's; `band`: only for an unchanged recipe."""
    wrong = [*outside_band(log, band), *above_physical_limit(computed, possible)]
    unsure = [
        *too_few_steps(measurements, launches),
        *interval_too_wide(measurements, _kind(log), launches),
        *over_ceiling(measurements),
        *card_was_shared(measurements),
    ]
    verdict: Verdict = "fail" if wrong else "inconclusive" if unsure else "pass"
    return SpeedVerdict(verdict, (*wrong, *unsure), tuple(remarks(measurements, log)))


def judge_smoke_speed(measurements: Measurements) -> SpeedVerdict:
    """The speed of a run that only had to show learning: it is inconclusive with too few steps, else passed."""
    few = too_few_steps(measurements, 1)
    return SpeedVerdict("inconclusive" if few else "pass", tuple(few))


def outside_band(log: WorkerLog, band: LossBand | None) -> list[str]:
    """A run whose last loss is outside the recipe's band has not done the recipe's work."""
    every = losses(log)
    finished = log.end is not None and log.budget_spent is None
    if band is None or not finished or len(every) < band.steps:
        return []
    end = fmean(every[-band.steps :])
    if band.low <= end <= band.high:
        return []
    why = (
        f"The loss at the end is {end:.3f} (mean of the last {band.steps} steps), outside the recipe's band of "
        f"{band.low:g} to {band.high:g}: the model did not learn as expected, so the speed does not count."
    )
    return [why]


def above_physical_limit(computed: float | None, possible: float | None) -> list[str]:
    if computed is None or possible is None or computed <= possible:
        return []
    why = (
        f"{computed:.1f} TFLOP/s is more than the {possible:.1f} that this GPU can reach at the highest clock seen: "
        "a count is incorrect, or not all of the work was done."
    )
    return [why]


def too_few_steps(measurements: Measurements, launches: int) -> list[str]:
    units = measurements.tokens_per_second.processed.n
    if launches > 1 or units >= FEWEST_STEPS:
        return []
    return [f"Only {units} steps after the warm-up: at least {FEWEST_STEPS} are needed for a speed."]


def _kind(log: WorkerLog) -> str:
    return log.start.device_type if log.start else "cpu"


def interval_too_wide(measurements: Measurements, kind: str, launches: int) -> list[str]:
    """By the interval of processed tokens/s: steps differ in their content, but should not differ in their speed."""
    speed = measurements.tokens_per_second.processed
    widest = WIDEST.get(kind, WIDEST["cpu"])
    half = half_width(speed.ci95, speed.median)
    if half is None and launches > 1:
        return [f"{launches} launches are too few for an interval; 3 are needed."]
    if half is None:
        unspread = FEWEST_STEPS <= speed.n < FEWEST_FOR_INTERVAL
        return [f"{speed.n} steps are too few for an interval; {FEWEST_FOR_INTERVAL} are needed."] if unspread else []
    if half <= widest:
        return []
    # rounded up: 5.01 % must not be shown as the 5 % that are allowed
    known = math.ceil(half * 1000) / 10
    why = (
        f"The speed is known only to ± {known:.1f}%; ± {widest:.0%} is needed{_because(measurements)}. "
        "Use more steps or stop other programs to narrow it."
    )
    return [why]


def _because(measurements: Measurements) -> str:
    load = measurements.other_load.median
    return f" (other programs used {load:.0%} of the CPU during the run)" if load and load > OTHER_LOAD else ""


def over_ceiling(measurements: Measurements) -> list[str]:
    share = measurements.roof_share.median
    if share is None or share <= ABOVE_CEILING:
        return []
    why = (
        f"The run reached {share:.0%} of the matmul ceiling, which is impossible: the machine was slower while the "
        "ceiling was measured. Measure again while nothing else runs."
    )
    return [why]


def card_was_shared(measurements: Measurements) -> list[str]:
    """Another program started to compute on the GPU during the measurement."""
    programs = measurements.sensors.computing if measurements.sensors else None
    if programs is None or programs < 2:
        return []
    return [f"{programs} programs computed on the GPU at once, so the speed is not that of this training alone."]


def remarks(measurements: Measurements, log: WorkerLog) -> list[str]:
    """Notes that do not change the verdict."""
    notes = []
    share = measurements.own_share.median
    if share is not None and share > OWN_SHARE:
        notes.append(f"Recording took {share:.1%} of the step time; more than 1 % is too much.")
    load = measurements.other_load.median
    if load is not None and load > OTHER_LOAD:
        notes.append(f"Other programs used {load:.0%} of the CPU during the measurement.")
    if measurements.drift is not None and abs(measurements.drift) > DRIFT:
        way = "slower" if measurements.drift > 0 else "faster"
        notes.append(f"The last third of the steps was {abs(measurements.drift):.0%} {way} than the first third.")
    change = measurements.ceiling_change
    if change is not None and abs(change) > CEILING_CHANGE:
        way = "higher" if change > 0 else "lower"
        notes.append(f"The matmul ceiling was {abs(change):.0%} {way} after the run: the machine's speed had changed.")
    notes += attention_notes(log)
    if measurements.sensors is not None:
        notes += [
            f"The clock was reduced in {share:.0%} of the samples. Reason: {reason}."
            for reason, share in measurements.sensors.throttled.items()
            if share >= 0.01
        ]
    return notes


def attention_notes(log: WorkerLog) -> list[str]:
    """A fallback to plain matrix products is reported, because PyTorch falls back silently."""
    kernels = log.attention.kernels if log.attention else ()
    if any(MATH in name for name in kernels):
        asked = f" although the config asks for {log.start.attention}" if log.start and log.start.attention else ""
        words = f"Attention fell back to plain matrix products (math){asked}"
        return [f"{words}: several times slower than a fused kernel, and it needs several times the memory."]
    return []


def card_notes(use: CardUse, gpu: bool) -> list[str]:
    if gpu and not use.asked:
        return ["The driver does not list the programs on the GPU: another one may have shared it."]
    return []


def kernel_words(kernels: Sequence[str]) -> str:
    """The name of the attention backend, from PyTorch's operator names."""
    known = (
        ("flash_attn", "flash-attn"),
        ("cudnn_attention", "cuDNN"),
        ("efficient_attention", "memory-efficient"),
        ("flash_attention", "flash (PyTorch)"),
        ("flex_attention", "flex"),
        ("attention_math", "math"),
    )
    found = [word for part, word in known if any(part in name for name in kernels)]
    return ", ".join(found) or ("none seen" if not kernels else ", ".join(kernels))
