"""From samples to figures: energy, temperature, clocks and other load during the measured steps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import msgspec

from harness.measure.measurement import Measurement, series, single, thin_out
from harness.measure.telemetry import CardSample, HostSample, Telemetry, energy_between, integrate_power, rapl_counter
from harness.process.worker_log import StepEvent

# in less time one update of the counter is too large a share (NVML updates it ten times a second or less often)
COUNTER_SECONDS = 60.0
SOAK_WINDOW = 120.0
SOAK_KELVIN = 1.0
SOAK_CLOCK_SHARE = 0.005
# nvml.h, nvmlClocksEventReason*
THROTTLES = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}

Series = list[tuple[float, float]]


class Sensors(msgspec.Struct, frozen=True):
    """During the measured steps. `throttled`: the share of samples in which each reason reduced the clock.

    `warming`: by how many kelvin the last half minute was hotter than two minutes before; `clock_drift`: the change of
    the clock, as a share. `computing`: the most programs that computed on the GPU at once.
    """

    power: Measurement
    power_limit: Measurement
    power_default: Measurement
    temperature: Measurement
    temperature_memory: Measurement
    clock: Measurement
    highest_clock: Measurement
    throttled: dict[str, float] = {}
    warming: float | None = None
    clock_drift: float | None = None
    computing: int | None = None


def windows(steps: Sequence[StepEvent]) -> list[tuple[float, float]]:
    """When each step ran, in seconds since 1970; empty where the worker did not record it."""
    if any(step.ended_at is None for step in steps):
        return []
    return [(step.ended_at - step.seconds, step.ended_at) for step in steps if step.ended_at is not None]


def summarise_sensors(telemetry: Telemetry, steps: Sequence[StepEvent], gpu: bool) -> Sensors:
    spans = windows(steps)
    begin, end = (spans[0][0], spans[-1][1]) if spans else (0.0, 0.0)
    card = [sample for sample in telemetry.card if begin <= sample.time <= end] if gpu else []
    host = [sample for sample in telemetry.host if begin <= sample.time <= end] if not gpu else []
    samples: Sequence[CardSample | HostSample] = card or host
    missing = "the driver reports no value" if gpu else "this machine shows no such sensor"

    def seen(name: str, unit: str) -> Measurement:
        values = [float(value) for sample in samples if (value := getattr(sample, name, None)) is not None]
        found = series(values, unit) if values else single(None, unit, missing)
        # neighbouring samples are not independent: the values show the spread, an interval would be wrong
        return msgspec.structs.replace(found, ci95=None, raw=thin_out(found.raw))

    def last(name: str, unit: str) -> Measurement:
        values = [value for sample in card if (value := getattr(sample, name)) is not None]
        return single(values[-1] if values else None, unit, missing)

    clock = seen("clock_sm" if gpu else "clock", "MHz")
    settled = measure_settling(samples)
    return Sensors(
        power=seen("power", "W"),
        power_limit=last("power_enforced", "W"),
        power_default=last("power_default", "W"),
        temperature=seen("temperature", "°C"),
        temperature_memory=seen("temperature_memory", "°C"),
        clock=clock,
        highest_clock=single(highest_clock(samples, gpu), "MHz", missing),
        throttled=throttle_shares(card),
        warming=settled.kelvin if settled else None,
        clock_drift=settled.clock if settled else None,
        computing=max((each.computing for each in card if each.computing is not None), default=None),
    )


def highest_clock(samples: Sequence[CardSample | HostSample], gpu: bool) -> float | None:
    values = [value for each in samples if (value := getattr(each, "clock_sm" if gpu else "clock", None)) is not None]
    return float(max(values)) if values else None


def throttle_shares(card: Sequence[CardSample]) -> dict[str, float]:
    """The share of samples in which each reason reduced the clock; reasons that never did are left out."""
    bits = [sample.throttle_reasons for sample in card if sample.throttle_reasons is not None]
    shares = (
        {name: sum(bool(each & bit) for each in bits) / len(bits) for bit, name in THROTTLES.items()} if bits else {}
    )
    return {name: share for name, share in shares.items() if share}


class Settling(msgspec.Struct, frozen=True):
    """Change of temperature (kelvin) and clock (share) against two minutes before; None where there is no sensor."""

    kelvin: float | None
    clock: float | None

    @property
    def soaked(self) -> bool:
        """Temperature and clock are stable: they changed by less than 1 kelvin and 0.5 % in two minutes."""
        known = [value for value in (self.kelvin, self.clock) if value is not None]
        return (
            bool(known)
            and (self.kelvin is None or abs(self.kelvin) < SOAK_KELVIN)
            and (self.clock is None or abs(self.clock) < SOAK_CLOCK_SHARE)
        )


def measure_settling(samples: Sequence[CardSample | HostSample]) -> Settling | None:
    """The first and the last quarter of the last two minutes compared; None before two minutes have passed."""
    if not samples or samples[-1].time - samples[0].time < SOAK_WINDOW:
        return None
    end = samples[-1].time
    recent = [sample for sample in samples if sample.time >= end - SOAK_WINDOW]

    def change(*names: str) -> tuple[float, float] | None:
        """The early and the late mean of these fields."""
        early, late = (
            [value for sample in part for name in names if (value := getattr(sample, name, None)) is not None]
            for part in (
                [sample for sample in recent if sample.time < end - 0.75 * SOAK_WINDOW],
                [sample for sample in recent if sample.time > end - 0.25 * SOAK_WINDOW],
            )
        )
        return (fmean(early), fmean(late)) if early and late else None

    heat = [found for name in ("temperature", "temperature_memory") if (found := change(name))]
    clock = change("clock_sm", "clock")
    return Settling(
        kelvin=max((late - early for early, late in heat), key=abs) if heat else None,
        clock=clock[1] / clock[0] - 1 if clock and clock[0] else None,
    )


def has_sensor(samples: Sequence[CardSample | HostSample]) -> bool:
    """Whether any sample has a temperature or a clock."""
    fields = ("temperature", "clock_sm", "clock")
    return any(getattr(sample, field, None) is not None for sample in samples for field in fields)


def joules_per_token(telemetry: Telemetry, steps: Sequence[StepEvent], gpu: bool) -> Measurement:
    """Energy of the measured steps over their non-padding tokens; its note says which sensor, and over how long."""
    unit, tokens = "J/token", sum(step.non_padding for step in steps)
    spans = windows(steps)
    if not spans or not tokens:
        return single(None, unit, "the worker recorded no times" if steps else "no step after the warm-up was measured")
    seconds = sum(end - begin for begin, end in spans)
    if not gpu:
        counter = rapl_counter(telemetry.host, telemetry.rapl.wraps_at)
        spent = _increase(counter, spans)
        if spent is None:
            return single(
                None, unit, telemetry.rapl.why_not or "the CPU's energy counter was not read during the steps"
            )
        words = f"the CPU's energy counter (RAPL) over {seconds:.0f} s: without memory, board and power supply"
        return msgspec.structs.replace(single(spent / tokens, unit), note=words)
    counter = [(sample.time, sample.energy) for sample in telemetry.card if sample.energy is not None]
    spent = _increase(counter, spans) if seconds >= COUNTER_SECONDS else None
    words = f"board sensor: difference of the GPU's energy counter over {seconds:.0f} s"
    if spent is None:
        watts = [(sample.time, sample.power) for sample in telemetry.card if sample.power is not None]
        spent = _increase(integrate_power(watts), spans)
        why = "under a minute" if counter and seconds < COUNTER_SECONDS else "no energy counter"
        words = f"board sensor: power integrated over {seconds:.0f} s ({why})"
    if spent is None:
        return single(None, unit, "the GPU's driver reported neither energy nor power during the steps")
    return msgspec.structs.replace(single(spent / tokens, unit), note=words)


def _increase(counter: Series, spans: Sequence[tuple[float, float]]) -> float | None:
    """The increase of a counter within the spans; None where it does not cover them, or decreased."""
    parts = [energy_between(counter, begin, end) for begin, end in spans]
    known = [part for part in parts if part is not None and part >= 0]
    return sum(known) if len(known) == len(parts) and sum(known) > 0 else None


def other_load(telemetry: Telemetry, steps: Sequence[StepEvent]) -> Measurement:
    """The share of CPU time that other programs used during the measured steps."""
    spans = windows(steps)
    own = [step.cpu_seconds for step in steps if step.cpu_seconds is not None]
    busy = [(sample.time, sample.busy) for sample in telemetry.host if sample.busy is not None]
    processors = next((sample.processors for sample in telemetry.host if sample.processors), None)
    spent = _increase(busy, spans) if spans and len(own) == len(spans) else None
    if spent is None or processors is None:
        return single(None, "share", "the load of the machine was not recorded")
    seconds = sum(end - begin for begin, end in spans)
    return single(max(0.0, spent - sum(own)) / (seconds * processors), "share")
