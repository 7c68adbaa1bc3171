"""Does a speed stand? Facts of a run → pass, fail or inconclusive, each with its reasons. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import msgspec

from harness.measure.gpu_processes import CardUse
from harness.measure.intervals import half_width
from harness.measure.metrics import FEWEST_STEPS, Measurements, losses
from harness.process.worker_log import WorkerLog
from harness.recipe.loader import LossBand

# half of the interval, as a share of the median
WIDEST = {"gpu": 0.01, "cpu": 0.05}
# harness/measure/intervals.py gives none below
FEWEST_FOR_INTERVAL = 6
OTHER_LOAD = 0.05
DRIFT = 0.05
CEILING_CHANGE = 0.05
# the ceiling is a measurement too: a run may seem this much above it by chance
ABOVE_CEILING = 1.02
MATH = "_scaled_dot_product_attention_math"
OWN_SHARE = 0.01


class Speed(msgspec.Struct, frozen=True):
    """`reasons` say why it is not a pass; `notes` what else a reader must know."""

    verdict: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge_speed(
    measurements: Measurements,
    log: WorkerLog,
    band: LossBand | None = None,
    possible: float | None = None,
    computed: float | None = None,
    launches: int = 1,
) -> Speed:
    """`possible` and `computed`: TFLOP/s by physics and by this run; `band`: only where the recipe ran as written."""
    wrong = [*outside(log, band), *impossible(computed, possible)]
    unsure = [
        *too_few(measurements, launches),
        *too_wide(measurements, _kind(log), launches),
        *over_ceiling(measurements),
        *shared(measurements),
    ]
    verdict = "fail" if wrong else "inconclusive" if unsure else "pass"
    return Speed(verdict, (*wrong, *unsure), tuple(remarks(measurements, log)))


def learnt(measurements: Measurements) -> Speed:
    """Where a run was only to show that it learns: too few steps is all that can be wrong with its speed."""
    few = too_few(measurements, 1)
    return Speed("inconclusive" if few else "pass", tuple(few))


def outside(log: WorkerLog, band: LossBand | None) -> list[str]:
    """A run whose loss does not end where the recipe's does has not done the recipe's work."""
    every = losses(log)
    finished = log.end is not None and log.budget_spent is None
    if band is None or not finished or len(every) < band.steps:
        return []
    end = fmean(every[-band.steps :])
    if band.low <= end <= band.high:
        return []
    why = (
        f"The loss ends at {end:.3f} (mean of the last {band.steps} steps), outside the recipe's band of {band.low:g} "
        f"to {band.high:g}: it did not learn as it must, so its speed is no result."
    )
    return [why]


def impossible(computed: float | None, possible: float | None) -> list[str]:
    if computed is None or possible is None or computed <= possible:
        return []
    why = (
        f"{computed:.1f} TFLOP/s are more than the {possible:.1f} that this card can do at the highest clock seen: "
        "something was counted wrongly, or not all of the work was done."
    )
    return [why]


def too_few(measurements: Measurements, launches: int) -> list[str]:
    units = measurements.tokens_per_second.processed.n
    if launches > 1 or units >= FEWEST_STEPS:
        return []
    return [f"Only {units} steady steps: too few for a speed."]


def _kind(log: WorkerLog) -> str:
    return log.start.device_type if log.start else "cpu"


def too_wide(measurements: Measurements, kind: str, launches: int) -> list[str]:
    """The interval of processed tokens a second: what each step held differs, how fast it went should not."""
    speed = measurements.tokens_per_second.processed
    widest = WIDEST.get(kind, WIDEST["cpu"])
    half = half_width(speed.ci95, speed.median)
    if half is None and launches > 1:
        return [f"{launches} launches give no interval; 3 are needed."]
    if half is None:
        unspread = FEWEST_STEPS <= speed.n < FEWEST_FOR_INTERVAL
        return [f"{speed.n} steady steps give no interval; {FEWEST_FOR_INTERVAL} are needed."] if unspread else []
    if half <= widest:
        return []
    # rounded up: 5.01 % must not read as the 5 % that are allowed
    known = math.ceil(half * 1000) / 10
    why = (
        f"The speed is known to ± {known:.1f}% only; ± {widest:.0%} are needed{_because(measurements)}. "
        "More steps or a quieter machine make it narrower."
    )
    return [why]


def _because(measurements: Measurements) -> str:
    load = measurements.other_load.median
    return f" (other programs took {load:.0%} of the processors meanwhile)" if load and load > OTHER_LOAD else ""


def over_ceiling(measurements: Measurements) -> list[str]:
    share = measurements.roof_share.median
    if share is None or share <= ABOVE_CEILING:
        return []
    why = (
        f"The run reached {share:.0%} of the matmul ceiling, which cannot be: the machine was slower while the ceiling "
        "was measured. Measure again when nothing else runs."
    )
    return [why]


def shared(measurements: Measurements) -> list[str]:
    """Another program that began to compute on the card while it was measured."""
    programs = measurements.sensors.computing if measurements.sensors else None
    if programs is None or programs < 2:
        return []
    return [f"{programs} programs computed on the card at once: the speed is not this training's alone."]


def remarks(measurements: Measurements, log: WorkerLog) -> list[str]:
    """What does not change the verdict but belongs beside the figure."""
    notes = []
    share = measurements.own_share.median
    if share is not None and share > OWN_SHARE:
        notes.append(f"Recording took {share:.1%} of the step time: more than 1 %.")
    load = measurements.other_load.median
    if load is not None and load > OTHER_LOAD:
        notes.append(f"Other programs took {load:.0%} of the processors while it was measured.")
    if measurements.drift is not None and abs(measurements.drift) > DRIFT:
        way = "slower" if measurements.drift > 0 else "faster"
        notes.append(
            f"The last third of the steps was {abs(measurements.drift):.0%} {way} than the first: not settled."
        )
    change = measurements.ceiling_change
    if change is not None and abs(change) > CEILING_CHANGE:
        way = "higher" if change > 0 else "lower"
        notes.append(f"The matmul ceiling was {abs(change):.0%} {way} after the run: the device was not equally fast.")
    notes += attention_notes(log)
    if measurements.sensors is not None:
        notes += [
            f"The clock was held down by {reason} in {share:.0%} of the samples."
            for reason, share in measurements.sensors.throttled.items()
            if share >= 0.01
        ]
    return notes


def attention_notes(log: WorkerLog) -> list[str]:
    """A fall-back to plain products is a finding: PyTorch makes it without a word."""
    kernels = log.attention.kernels if log.attention else ()
    if any(MATH in name for name in kernels):
        asked = f" although the config asks for {log.start.attention}" if log.start and log.start.attention else ""
        words = f"Attention ran as plain matrix products (math){asked}"
        return [f"{words}: several times slower and larger than a fused kernel."]
    return []


def card_notes(use: CardUse, gpu: bool) -> list[str]:
    if gpu and not use.asked:
        return ["The driver does not say who uses the card: another program may have shared it."]
    return []


def kernel_words(kernels: Sequence[str]) -> str:
    """The attention back end in one word or two, from PyTorch's operator names."""
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
