"""From the worker's steps to measurements: medians over the steps after the warm-up, with an interval for each.

What is repeated is one optimizer step of one run. The steps of a run are correlated, so the interval shows how well
this run's median is known, not how two runs differ. With several launches (harness/jobs/bench.py) it is the launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from harness.measure.intervals import bootstrap_interval, drift, warm_up
from harness.measure.measurement import Measurement, series, single
from harness.measure.run_context import RunContext
from harness.measure.sensors import Sensors, joules_per_token, other_load, summarise_sensors
from harness.process.worker_log import StartEvent, StepEvent, WorkerLog
from harness.recipe.flops import DocumentSums, Sizes, hardware_flops, training_flops

FEWEST_STEPS = 5
# with fewer steps than this, the micro-batches are measured
FEWEST_UNITS = 12


class TokensPerSecond(msgspec.Struct, frozen=True):
    """processed: with padding; non_padding: tokens in the attention mask; trainable: tokens with a label."""

    processed: Measurement
    non_padding: Measurement
    trainable: Measurement


class PeakMemory(msgspec.Struct, frozen=True):
    """The worker's resident memory on the host; memory that PyTorch allocated and reserved on the GPU.

    `device_peak`: the most memory in use on the GPU, by all programs; `device_baseline`: in use before the run;
    `device_run`: the difference, with the driver's context and the libraries, without a desktop.
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
    """`mfu`: model FLOP/s as a share of the GPU's published peak; `ceiling_share`: of the ceiling measured here.

    `roof_share`: all computed FLOP/s, recomputation included (recipe/flops.py), as a share of that ceiling;
    `data_wait`: the share of the step time spent waiting for data; `other_load`: the share of CPU time that other
    programs used during the run. `drift`: by what share the last third of the steps was slower than the first;
    `ceiling_change`: by what share the ceiling was higher after the run than before.
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


def steady_steps(steps: Sequence[StepEvent], warmup: int) -> tuple[StepEvent, ...]:
    """Steps that measure training: after the warm-up, without an evaluation or a save in them, longer than 0 s."""
    return tuple(step for step in steps if step.step > warmup and not step.interrupted and step.seconds > 0)


def last_warm_up_step(steps: Sequence[StepEvent], least: int) -> int:
    """The number of the last warm-up step, by the time per token slot."""
    timed = [
        (step.step, seconds / slots)
        for step in steps
        if not step.interrupted and step.seconds > 0
        for seconds, slots in (
            zip(step.micro_seconds, step.micro_processed, strict=True)
            if has_micro_times(step)
            else ((step.seconds, step.processed),)
        )
        if slots
    ]
    early = sum(number <= least for number, _ in timed)
    last = warm_up([seconds for _, seconds in timed], early)
    return max(least, timed[last - 1][0]) if last > early else least


class Repetition(msgspec.Struct, frozen=True):
    """What is repeated: an optimizer step, or one of its micro-batches with its share of the time between them."""

    seconds: float
    processed: int
    non_padding: int
    trainable: int
    flops: float | None = None
    computed: float | None = None


def repetitions(
    steps: Sequence[StepEvent], sizes: Sizes | None = None, checkpointing: bool = False
) -> tuple[Repetition, ...]:
    """The steps; where they are long and few, their micro-batches, each with an equal share of the optimizer's time."""
    timed = all(has_micro_times(step) for step in steps)
    small = timed and (
        any(step.interrupted for step in steps)
        or (len(steps) < FEWEST_UNITS and all(step.micro_batches > 1 for step in steps))
    )
    return tuple(
        unit for step in steps for unit in (_micro_units if small else _whole_unit)(step, sizes, checkpointing)
    )


def _whole_unit(step: StepEvent, sizes: Sizes | None, checkpointing: bool) -> list[Repetition]:
    seen = documents_of(step)
    return [
        Repetition(
            step.seconds,
            step.processed,
            step.non_padding,
            step.trainable,
            training_flops(sizes, seen) if sizes and seen else None,
            hardware_flops(sizes, seen, checkpointing) if sizes and seen else None,
        )
    ]


def _micro_units(step: StepEvent, sizes: Sizes | None, checkpointing: bool) -> list[Repetition]:
    (whole,) = _whole_unit(step, sizes, checkpointing)
    between = _between(step) / step.micro_batches
    parts = zip(step.micro_seconds, step.micro_processed, step.micro_non_padding, step.micro_trainable, strict=True)

    def share(amount: float | None, tokens: int) -> float | None:
        return None if amount is None or not step.non_padding else amount * tokens / step.non_padding

    return [
        Repetition(seconds + between, slots, tokens, labels, share(whole.flops, tokens), share(whole.computed, tokens))
        for seconds, slots, tokens, labels in parts
    ]


def _between(step: StepEvent) -> float:
    """A step's time outside its micro-batches. An evaluation or a save in it does not count."""
    if step.interrupted:
        return (step.wait_seconds or 0.0) + (step.optimizer_seconds or 0.0)
    return step.seconds - sum(step.micro_seconds)


def steps_to_measure(steps: Sequence[StepEvent], warmup: int) -> tuple[StepEvent, ...]:
    """The steps that the speed is measured from: the steady ones; where evaluations leave too few, all after warm-up.

    Of a step with an evaluation in it only the micro-batches count: they have their own times.
    """
    steadied = steady_steps(steps, warmup)
    if len(steadied) >= FEWEST_STEPS:
        return steadied
    late = tuple(step for step in steps if step.step > warmup and step.seconds > 0)
    return late if late and all(has_micro_times(step) for step in late) else steadied


def has_micro_times(step: StepEvent) -> bool:
    """Whether the log has every micro-batch of the step, complete."""
    parts = (step.micro_seconds, step.micro_processed, step.micro_non_padding, step.micro_trainable)
    return step.micro_batches > 0 and all(len(part) == step.micro_batches for part in parts)


def losses(log: WorkerLog) -> tuple[float, ...]:
    return tuple(step.loss for step in log.steps if isinstance(step.loss, float))


def measure(log: WorkerLog, warmup: int, context: RunContext | None = None) -> Measurements:
    """All measurements of one run. At least `warmup` steps are left out, more where the run settled later."""
    start, context = log.start or StartEvent(), context or RunContext()
    gpu = start.device_type == "gpu"
    dropped = last_warm_up_step(log.steps, warmup)
    steps = steady_steps(log.steps, dropped)

    repeated = repetitions(steps_to_measure(log.steps, dropped), start.sizes, bool(start.checkpointing))

    def rate(name: str) -> Measurement:
        return series([getattr(unit, name) / unit.seconds for unit in repeated], "tokens/s")

    def amount(name: str) -> Measurement:
        return series([float(getattr(step, name)) for step in steps], "tokens")

    spent = sum(step.seconds for step in steps)
    every = losses(log)
    speeds = _speeds(repeated, start, context, gpu)
    waits = [step.wait_seconds for step in steps if step.wait_seconds is not None]
    return Measurements(
        tokens_per_second=TokensPerSecond(rate("processed"), rate("non_padding"), rate("trainable")),
        step_seconds=series([step.seconds for step in steps], "s"),
        tokens_per_step=TokensPerSecond(amount("processed"), amount("non_padding"), amount("trainable")),
        own_share=single(
            sum(step.own_seconds for step in steps) / spent if spent else None,
            "share",
            "no step after the warm-up was measured",
        ),
        peak_memory=_memory(log, context, gpu),
        loss=Loss(
            single(every[0] if every else None, "nats/token", "no finite loss"),
            single(every[-1] if every else None, "nats/token", "no finite loss"),
        ),
        mfu=speeds.mfu,
        matmul_ceiling_tflops=_ceiling(context),
        joules_per_token=joules_per_token(context.telemetry, steps, gpu),
        micro_step_seconds=series([seconds for step in steps for seconds in step.micro_seconds], "s"),
        data_wait=single(sum(waits) / spent if spent and len(waits) == len(steps) else None, "share", "not recorded"),
        flops_per_token=speeds.flops_per_token,
        model_tflops=speeds.model_tflops,
        ceiling_share=speeds.ceiling_share,
        roof_share=speeds.roof_share,
        other_load=other_load(context.telemetry, steps),
        sensors=summarise_sensors(context.telemetry, steps, gpu)
        if context.telemetry.card or context.telemetry.host
        else None,
        warmup_steps=dropped,
        drift=drift([step.seconds / step.processed for step in steps if step.processed]),
        ceiling_change=_ceiling_change(context),
    )


class _Speeds(msgspec.Struct, frozen=True):
    flops_per_token: Measurement
    model_tflops: Measurement
    mfu: Measurement
    ceiling_share: Measurement
    roof_share: Measurement


def _speeds(repeated: Sequence[Repetition], start: StartEvent, context: RunContext, gpu: bool) -> _Speeds:
    """FLOPs by the documents of each repetition, divided by its time."""
    known = [(unit, unit.flops, unit.computed) for unit in repeated if unit.flops is not None and unit.computed]
    if not known or len(known) < len(repeated):
        why = (
            "no step after the warm-up was measured"
            if not repeated
            else "not every weight of this model is used for every token, or its sizes were not recorded"
            if start.sizes is None
            else "the documents' lengths were not recorded"
        )
        none = {name: single(None, unit, why) for name, unit in _UNITS.items()}
        return _Speeds(**none)
    rates = [flops / unit.seconds / 1e12 for unit, flops, _ in known]
    worked = [computed / unit.seconds / 1e12 for unit, _, computed in known if computed is not None]
    ceiling = _ceiling(context).median
    peak, no_peak = _peak(start, context, gpu)

    def share(values: Sequence[float], of: float | None, why: str) -> Measurement:
        return series([value / of for value in values], "share") if of else single(None, "share", why)

    no_ceiling = "the matmul ceiling was not measured"
    return _Speeds(
        flops_per_token=series(
            [flops / unit.non_padding for unit, flops, _ in known if unit.non_padding], "FLOP/token"
        ),
        model_tflops=series(rates, "TFLOP/s"),
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
    """All computed TFLOP/s, recomputation included: what the physical limit applies to. None: FLOPs are not known."""
    rate, sizes = measurements.model_tflops.median, log.start.sizes if log.start else None
    seen = next((found for step in reversed(log.steps) if (found := documents_of(step))), None)
    if rate is None or sizes is None or seen is None or log.start is None:
        return None
    return rate * hardware_flops(sizes, seen, bool(log.start.checkpointing)) / training_flops(sizes, seen)


def _peak(start: StartEvent, context: RunContext, gpu: bool) -> tuple[float | None, str]:
    if not gpu:
        return None, "a CPU has no published peak to compare with: see ceiling_share"
    if start.precision not in ("bf16", "fp16"):
        return None, f"the published peak is for 16-bit products; this run computed in {start.precision}"
    return context.peak_tflops, "no published peak of this GPU is known"


def _ceiling(context: RunContext) -> Measurement:
    """All rounds, before and after the run; the note gives both medians and the duration."""
    parts = [part for part in (context.before, context.after) if part is not None]
    if not parts:
        return single(None, "TFLOP/s", "the matmul ceiling was not measured")
    found = series([value for part in parts for value in part.rounds], "TFLOP/s")
    medians = [series(part.rounds, "").median for part in parts]
    words = " and ".join(f"{value:.3g}" for value in medians if value is not None)
    when = "before and after the run" if len(parts) == 2 else "before the run" if context.before else "after the run"
    seconds = sum(part.seconds for part in parts)
    note = f"{words} TFLOP/s in {parts[0].precision} {when}, {seconds:.0f} s in all"
    return msgspec.structs.replace(found, note=note)


def _ceiling_change(context: RunContext) -> float | None:
    if context.before is None or context.after is None or not context.before.rounds or not context.after.rounds:
        return None
    return median(context.after.rounds) / median(context.before.rounds) - 1


def _memory(log: WorkerLog, context: RunContext, gpu: bool) -> PeakMemory:
    last = log.end or (log.steps[-1] if log.steps else None)
    on_host = "trained on the CPU"
    held = [sample.memory_used for sample in context.telemetry.card if sample.memory_used is not None]
    baseline = context.use.memory_used if context.use.memory_used is not None else held[0] if held else None
    peak = max(held, default=None)
    run = peak - baseline if peak is not None and baseline is not None else None
    silent = "the driver did not report the memory in use" if gpu else on_host
    return PeakMemory(
        single(last.rss_bytes if last else None, "bytes", "no step was finished"),
        single(last.device_allocated_bytes if last else None, "bytes", on_host),
        single(last.device_reserved_bytes if last else None, "bytes", on_host),
        single(peak if gpu else None, "bytes", silent),
        single(baseline if gpu else None, "bytes", silent),
        single(run if gpu else None, "bytes", silent),
    )


def merge_launches(runs: Sequence[Measurements]) -> Measurements:
    """Several launches as one: each figure is the median of the launches' medians, with a bootstrap interval."""
    if len(runs) == 1:
        return runs[0]
    found = _merge(runs)
    assert isinstance(found, Measurements)
    return found


def _merge(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Measurement):
        return _merge_measurements(parts)
    if isinstance(first, msgspec.Struct):
        fields = {name: _merge([getattr(part, name) for part in parts]) for name in first.__struct_fields__}
        return type(first)(**fields)
    numbers = [part for part in parts if isinstance(part, float | int)]
    if len(numbers) == len(parts):
        return type(first)(median(numbers))
    return parts[-1]


def _merge_measurements(parts: Sequence[Measurement]) -> Measurement:
    medians = [part.median for part in parts if part.median is not None]
    if len(medians) < len(parts):
        return next(part for part in parts if part.median is None)
    found = series(medians, parts[0].unit)
    return msgspec.structs.replace(found, ci95=bootstrap_interval(medians), note=parts[-1].note)
