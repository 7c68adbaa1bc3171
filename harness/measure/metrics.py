"""From the worker's steps to measurements: medians over steady steps, with an interval for each.

The unit of repetition is one optimizer step of one run; steps of a run are correlated, so the interval says how well
this run's median is known, not how two runs differ. Over several launches (harness/jobs/bench.py) it is the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from harness.measure.gpu_processes import CardUse
from harness.measure.intervals import bootstrap_interval, drift, warm_up
from harness.measure.matmul_ceiling import Ceiling
from harness.measure.measurement import Measurement, once, over
from harness.measure.sensors import Sensors, joules_per_token, other_load, sensors
from harness.measure.telemetry import Telemetry
from harness.process.worker_log import StartEvent, StepEvent, WorkerLog
from harness.recipe.flops import DocumentSums, Sizes, hardware_flops, training_flops

FEWEST_STEPS = 5
# with fewer steps than this, their micro batches are the unit
FEWEST_UNITS = 12


class TokensPerSecond(msgspec.Struct, frozen=True):
    """processed: padding included; non_padding: what the attention mask keeps; trainable: what has a label."""

    processed: Measurement
    non_padding: Measurement
    trainable: Measurement


class PeakMemory(msgspec.Struct, frozen=True):
    """The worker's resident set on the host; allocated and reserved by PyTorch on the device.

    `device_peak` is the most that the card held, of everybody; `device_baseline` what it held before the run, and
    `device_run` the difference: the driver's context and the libraries are in it, a desktop is not.
    """

    worker_rss: Measurement
    device_allocated: Measurement
    device_reserved: Measurement
    device_peak: Measurement = Measurement("bytes", None, note="not recorded")
    device_baseline: Measurement = Measurement("bytes", None, note="not recorded")
    device_run: Measurement = Measurement("bytes", None, note="not recorded")


class Loss(msgspec.Struct, frozen=True):
    first: Measurement
    last: Measurement


NOT_RECORDED = Measurement("", None, note="not recorded")


class Measurements(msgspec.Struct, frozen=True):
    """`mfu`: model FLOPs a second over the card's published peak; `ceiling_share`: over the ceiling measured here.

    `roof_share`: over what that ceiling allows once recomputation is counted (recipe/flops.py); `data_wait`: share of
    the step time that waited for data; `other_load`: share of the processors that something else used meanwhile.
    `drift`: by what share the last third of the steps was slower than the first; `ceiling_change`: by what share the
    ceiling was higher after the run than before.
    """

    tokens_per_second: TokensPerSecond
    step_seconds: Measurement
    tokens_per_step: TokensPerSecond
    own_share: Measurement
    peak_memory: PeakMemory
    loss: Loss
    mfu: Measurement
    matmul_ceiling_tflops: Measurement
    joules_per_token: Measurement
    micro_step_seconds: Measurement = NOT_RECORDED
    data_wait: Measurement = NOT_RECORDED
    flops_per_token: Measurement = NOT_RECORDED
    model_tflops: Measurement = NOT_RECORDED
    ceiling_share: Measurement = NOT_RECORDED
    roof_share: Measurement = NOT_RECORDED
    other_load: Measurement = NOT_RECORDED
    sensors: Sensors | None = None
    warmup_steps: int | None = None
    drift: float | None = None
    ceiling_change: float | None = None


class Around(msgspec.Struct, frozen=True):
    """What was measured around a run, and what is known of its card.

    `peak_tflops` is the data sheet's for 16-bit products with FP32 sums; `target` the card's architecture.
    """

    telemetry: Telemetry = Telemetry()
    before: Ceiling | None = None
    after: Ceiling | None = None
    use: CardUse = CardUse(asked=False)
    peak_tflops: float | None = None
    target: str | None = None


def steady(steps: Sequence[StepEvent], warmup: int) -> tuple[StepEvent, ...]:
    """Steps that measure training: after the warm-up, without an evaluation or a save inside, longer than nothing."""
    return tuple(step for step in steps if step.step > warmup and not step.interrupted and step.seconds > 0)


def found_warm_up(steps: Sequence[StepEvent], least: int) -> int:
    """The number of the last step that warms up, by the time that each token slot took."""
    timed = [
        (step.step, seconds / slots)
        for step in steps
        if not step.interrupted and step.seconds > 0
        for seconds, slots in (
            zip(step.micro_seconds, step.micro_processed, strict=True)
            if micro_timed(step)
            else ((step.seconds, step.processed),)
        )
        if slots
    ]
    early = sum(number <= least for number, _ in timed)
    last = warm_up([seconds for _, seconds in timed], early)
    return max(least, timed[last - 1][0]) if last > early else least


class Unit(msgspec.Struct, frozen=True):
    """What is repeated: an optimizer step, or one of its micro batches with its share of what lies between them."""

    seconds: float
    processed: int
    non_padding: int
    trainable: int
    flops: float | None = None
    computed: float | None = None


def units(steps: Sequence[StepEvent], sizes: Sizes | None = None, checkpointing: bool = False) -> tuple[Unit, ...]:
    """The steps; where they are long and few, their micro batches. The optimizer's time is shared out evenly."""
    timed = all(micro_timed(step) for step in steps)
    small = timed and (
        any(step.interrupted for step in steps)
        or (len(steps) < FEWEST_UNITS and all(step.micro_batches > 1 for step in steps))
    )
    return tuple(
        unit for step in steps for unit in (_micro_units if small else _whole_unit)(step, sizes, checkpointing)
    )


def _whole_unit(step: StepEvent, sizes: Sizes | None, checkpointing: bool) -> list[Unit]:
    seen = documents_of(step)
    return [
        Unit(
            step.seconds,
            step.processed,
            step.non_padding,
            step.trainable,
            training_flops(sizes, seen) if sizes and seen else None,
            hardware_flops(sizes, seen, checkpointing) if sizes and seen else None,
        )
    ]


def _micro_units(step: StepEvent, sizes: Sizes | None, checkpointing: bool) -> list[Unit]:
    (whole,) = _whole_unit(step, sizes, checkpointing)
    between = _between(step) / step.micro_batches
    parts = zip(step.micro_seconds, step.micro_processed, step.micro_non_padding, step.micro_trainable, strict=True)

    def share(amount: float | None, tokens: int) -> float | None:
        return None if amount is None or not step.non_padding else amount * tokens / step.non_padding

    return [
        Unit(seconds + between, slots, tokens, labels, share(whole.flops, tokens), share(whole.computed, tokens))
        for seconds, slots, tokens, labels in parts
    ]


def _between(step: StepEvent) -> float:
    """What a step took beside its micro batches. An evaluation or a save that lies in it does not count."""
    if step.interrupted:
        return (step.wait_seconds or 0.0) + (step.optimizer_seconds or 0.0)
    return step.seconds - sum(step.micro_seconds)


def repeatable(steps: Sequence[StepEvent], warmup: int) -> tuple[StepEvent, ...]:
    """The steps to measure the speed from: the steady ones, and where evaluations leave too few, those around them too.

    Of a step with an evaluation inside only the micro batches are taken, which have times of their own.
    """
    steadied = steady(steps, warmup)
    if len(steadied) >= FEWEST_STEPS:
        return steadied
    late = tuple(step for step in steps if step.step > warmup and step.seconds > 0)
    return late if late and all(micro_timed(step) for step in late) else steadied


def micro_timed(step: StepEvent) -> bool:
    """Whether the log has each micro batch of the step, whole."""
    parts = (step.micro_seconds, step.micro_processed, step.micro_non_padding, step.micro_trainable)
    return step.micro_batches > 0 and all(len(part) == step.micro_batches for part in parts)


def losses(log: WorkerLog) -> tuple[float, ...]:
    return tuple(step.loss for step in log.steps if isinstance(step.loss, float))


def measure(log: WorkerLog, warmup: int, around: Around | None = None) -> Measurements:
    """Everything that one run's log says; `warmup` steps at least are left out, more where the run settled later."""
    start, around = log.start or StartEvent(), around or Around()
    gpu = start.device_type == "gpu"
    dropped = found_warm_up(log.steps, warmup)
    steps = steady(log.steps, dropped)

    repeated = units(repeatable(log.steps, dropped), start.sizes, bool(start.checkpointing))

    def rate(name: str) -> Measurement:
        return over([getattr(unit, name) / unit.seconds for unit in repeated], "tokens/s")

    def amount(name: str) -> Measurement:
        return over([float(getattr(step, name)) for step in steps], "tokens")

    spent = sum(step.seconds for step in steps)
    every = losses(log)
    speeds = _speeds(repeated, start, around, gpu)
    waits = [step.wait_seconds for step in steps if step.wait_seconds is not None]
    return Measurements(
        tokens_per_second=TokensPerSecond(rate("processed"), rate("non_padding"), rate("trainable")),
        step_seconds=over([step.seconds for step in steps], "s"),
        tokens_per_step=TokensPerSecond(amount("processed"), amount("non_padding"), amount("trainable")),
        own_share=once(sum(step.own_seconds for step in steps) / spent if spent else None, "share", "no steady step"),
        peak_memory=_memory(log, around, gpu),
        loss=Loss(
            once(every[0] if every else None, "nats/token", "no finite loss"),
            once(every[-1] if every else None, "nats/token", "no finite loss"),
        ),
        mfu=speeds.mfu,
        matmul_ceiling_tflops=_ceiling(around),
        joules_per_token=joules_per_token(around.telemetry, steps, gpu),
        micro_step_seconds=over([seconds for step in steps for seconds in step.micro_seconds], "s"),
        data_wait=once(sum(waits) / spent if spent and len(waits) == len(steps) else None, "share", "not recorded"),
        flops_per_token=speeds.flops_per_token,
        model_tflops=speeds.model_tflops,
        ceiling_share=speeds.ceiling_share,
        roof_share=speeds.roof_share,
        other_load=other_load(around.telemetry, steps),
        sensors=sensors(around.telemetry, steps, gpu) if around.telemetry.card or around.telemetry.host else None,
        warmup_steps=dropped,
        drift=drift([step.seconds / step.processed for step in steps if step.processed]),
        ceiling_change=_ceiling_change(around),
    )


class _Speeds(msgspec.Struct, frozen=True):
    flops_per_token: Measurement
    model_tflops: Measurement
    mfu: Measurement
    ceiling_share: Measurement
    roof_share: Measurement


def _speeds(repeated: Sequence[Unit], start: StartEvent, around: Around, gpu: bool) -> _Speeds:
    """FLOPs by each unit's own documents, over the unit's own time."""
    known = [(unit, unit.flops, unit.computed) for unit in repeated if unit.flops is not None and unit.computed]
    if not known or len(known) < len(repeated):
        why = (
            "no steady step was measured"
            if not repeated
            else "not every weight of this model works on every token, or its sizes were not recorded"
            if start.sizes is None
            else "the documents' lengths were not recorded"
        )
        none = {name: once(None, unit, why) for name, unit in _UNITS.items()}
        return _Speeds(**none)
    rates = [flops / unit.seconds / 1e12 for unit, flops, _ in known]
    worked = [computed / unit.seconds / 1e12 for unit, _, computed in known if computed is not None]
    ceiling = _ceiling(around).median
    peak, no_peak = _peak(start, around, gpu)

    def share(values: Sequence[float], of: float | None, why: str) -> Measurement:
        return over([value / of for value in values], "share") if of else once(None, "share", why)

    no_ceiling = "the matmul ceiling was not measured"
    return _Speeds(
        flops_per_token=over([flops / unit.non_padding for unit, flops, _ in known if unit.non_padding], "FLOP/token"),
        model_tflops=over(rates, "TFLOP/s"),
        mfu=share(rates, peak, no_peak),
        ceiling_share=share(rates, ceiling, no_ceiling),
        roof_share=share(worked, ceiling, no_ceiling),
    )


_UNITS = {
    "flops_per_token": "FLOP/token",
    "model_tflops": "TFLOP/s",
    "mfu": "share",
    "ceiling_share": "share",
    "roof_share": "share",
}


def documents_of(step: StepEvent) -> DocumentSums | None:
    if step.squares is None:
        return None
    seen = step.window_squares if step.window_squares is not None else step.squares
    return DocumentSums(step.non_padding, step.squares, seen)


def computed_tflops(log: WorkerLog, measurements: Measurements) -> float | None:
    """What the device computed a second, recomputation included: what physics limits. None: FLOPs are not known."""
    rate, sizes = measurements.model_tflops.median, log.start.sizes if log.start else None
    seen = next((found for step in reversed(log.steps) if (found := documents_of(step))), None)
    if rate is None or sizes is None or seen is None or log.start is None:
        return None
    return rate * hardware_flops(sizes, seen, bool(log.start.checkpointing)) / training_flops(sizes, seen)


def _peak(start: StartEvent, around: Around, gpu: bool) -> tuple[float | None, str]:
    if not gpu:
        return None, "no published peak counts for a processor: see ceiling_share"
    if start.precision not in ("bf16", "fp16"):
        return None, f"the published peak is for 16-bit products, this run computed in {start.precision}"
    return around.peak_tflops, "no published peak of this card is known"


def _ceiling(around: Around) -> Measurement:
    """Rounds before and after together; the note says how long and whether the two agree."""
    parts = [part for part in (around.before, around.after) if part is not None]
    if not parts:
        return once(None, "TFLOP/s", "the matmul ceiling was not measured")
    found = over([value for part in parts for value in part.rounds], "TFLOP/s")
    medians = [over(part.rounds, "").median for part in parts]
    words = " and ".join(f"{value:.3g}" for value in medians if value is not None)
    when = "before and after the run" if len(parts) == 2 else "before the run" if around.before else "after the run"
    seconds = sum(part.seconds for part in parts)
    note = f"{words} TFLOP/s in {parts[0].precision} {when}, {seconds:.0f} s in all"
    return msgspec.structs.replace(found, note=note)


def _ceiling_change(around: Around) -> float | None:
    if around.before is None or around.after is None or not around.before.rounds or not around.after.rounds:
        return None
    return median(around.after.rounds) / median(around.before.rounds) - 1


def _memory(log: WorkerLog, around: Around, gpu: bool) -> PeakMemory:
    last = log.end or (log.steps[-1] if log.steps else None)
    on_host = "trained on the processor"
    held = [sample.memory_used for sample in around.telemetry.card if sample.memory_used is not None]
    baseline = around.use.memory_used if around.use.memory_used is not None else held[0] if held else None
    peak = max(held, default=None)
    run = peak - baseline if peak is not None and baseline is not None else None
    silent = "the driver gave no memory in use" if gpu else on_host
    return PeakMemory(
        once(last.rss_bytes if last else None, "bytes", "no step was finished"),
        once(last.device_allocated_bytes if last else None, "bytes", on_host),
        once(last.device_reserved_bytes if last else None, "bytes", on_host),
        once(peak if gpu else None, "bytes", silent),
        once(baseline if gpu else None, "bytes", silent),
        once(run if gpu else None, "bytes", silent),
    )


def merged(runs: Sequence[Measurements]) -> Measurements:
    """Several launches in one: each figure is the median of the launches' medians, its interval a bootstrap of them."""
    if len(runs) == 1:
        return runs[0]
    found = _merged(runs)
    assert isinstance(found, Measurements)
    return found


def _merged(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Measurement):
        return _merged_values(parts)
    if isinstance(first, msgspec.Struct):
        fields = {name: _merged([getattr(part, name) for part in parts]) for name in first.__struct_fields__}
        return type(first)(**fields)
    numbers = [part for part in parts if isinstance(part, float | int)]
    if len(numbers) == len(parts):
        return type(first)(median(numbers))
    return parts[-1]


def _merged_values(parts: Sequence[Measurement]) -> Measurement:
    medians = [part.median for part in parts if part.median is not None]
    if len(medians) < len(parts):
        return next(part for part in parts if part.median is None)
    found = over(medians, parts[0].unit)
    return msgspec.structs.replace(found, ci95=bootstrap_interval(medians), note=parts[-1].note)
