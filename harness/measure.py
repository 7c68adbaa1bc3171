"""From the worker's steps to measurements: medians over steady steps, with an interval for each.

The unit of repetition is one optimizer step of one run; steps of a run are correlated, so the interval says how well
this run's median is known, not how two runs differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec

from harness.worker_log import Step, WorkerLog

FEWEST_STEPS = 5


class Measurement(msgspec.Struct, frozen=True):
    """`ci95` is None where one value was read (`n` 1); `raw` in the order of the steps."""

    unit: str
    median: float | None
    ci95: tuple[float, float] | None = None
    n: int = 0
    raw: tuple[float, ...] = ()
    note: str | None = None


class TokensPerSecond(msgspec.Struct, frozen=True):
    """processed: padding included; non_padding: what the attention mask keeps; trainable: what has a label."""

    processed: Measurement
    non_padding: Measurement
    trainable: Measurement


class PeakMemory(msgspec.Struct, frozen=True):
    """The worker's resident set on the host; allocated and reserved by PyTorch on the device."""

    worker_rss: Measurement
    device_allocated: Measurement
    device_reserved: Measurement


class Loss(msgspec.Struct, frozen=True):
    first: Measurement
    last: Measurement


class Measurements(msgspec.Struct, frozen=True):
    tokens_per_second: TokensPerSecond
    step_seconds: Measurement
    tokens_per_step: TokensPerSecond
    own_share: Measurement
    peak_memory: PeakMemory
    loss: Loss
    mfu: Measurement
    matmul_ceiling_tflops: Measurement
    joules_per_token: Measurement


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """A distribution-free 95 % interval of the median, from order statistics (binomial, p = 1/2); None below 6 values.

    The ranks are the widest cut whose coverage is at least 0.95: for 6 values the smallest and the largest.
    """
    from math import comb

    ordered, n = sorted(values), len(values)
    tail, low = 0.0, 0
    while low < n // 2 and (grown := tail + comb(n, low) / 2**n) <= 0.025:
        tail, low = grown, low + 1
    return (ordered[low - 1], ordered[n - low]) if low else None


def over(values: Sequence[float], unit: str) -> Measurement:
    if not values:
        return Measurement(unit, None, None, 0, (), "no steady step was measured")
    return Measurement(unit, median(values), median_interval(values), len(values), tuple(values))


def once(value: float | None, unit: str, unknown: str | None = None) -> Measurement:
    """A value that was read once; `unknown` says why there is none."""
    if value is None:
        return Measurement(unit, None, None, 0, (), unknown)
    return Measurement(unit, value, None, 1, (value,))


def steady(steps: Sequence[Step], warmup: int) -> tuple[Step, ...]:
    """Steps that measure training: after the warm-up, without an evaluation or a save inside, longer than nothing."""
    return tuple(step for step in steps if step.step > warmup and not step.interrupted and step.seconds > 0)


def losses(log: WorkerLog) -> tuple[float, ...]:
    return tuple(step.loss for step in log.steps if isinstance(step.loss, float))


def measure(log: WorkerLog, warmup: int) -> Measurements:
    """Everything that one run's log says; MFU, ceiling and energy are null until the harness measures them."""
    steps = steady(log.steps, warmup)
    later, on_host = "not measured yet", "trained on the processor"

    def rate(name: str) -> Measurement:
        return over([getattr(step, name) / step.seconds for step in steps], "tokens/s")

    def amount(name: str) -> Measurement:
        return over([float(getattr(step, name)) for step in steps], "tokens")

    spent = sum(step.seconds for step in steps)
    every, last = losses(log), log.end or (log.steps[-1] if log.steps else None)
    return Measurements(
        tokens_per_second=TokensPerSecond(rate("processed"), rate("non_padding"), rate("trainable")),
        step_seconds=over([step.seconds for step in steps], "s"),
        tokens_per_step=TokensPerSecond(amount("processed"), amount("non_padding"), amount("trainable")),
        own_share=once(sum(step.own_seconds for step in steps) / spent if spent else None, "share", "no steady step"),
        peak_memory=PeakMemory(
            once(last.rss_bytes if last else None, "bytes", "no step was finished"),
            once(last.device_allocated_bytes if last else None, "bytes", on_host),
            once(last.device_reserved_bytes if last else None, "bytes", on_host),
        ),
        loss=Loss(
            once(every[0] if every else None, "nats/token", "no finite loss"),
            once(every[-1] if every else None, "nats/token", "no finite loss"),
        ),
        mfu=once(None, "share", later),
        matmul_ceiling_tflops=once(None, "TFLOP/s", later),
        joules_per_token=once(None, "J/token", later),
    )
