"""Energy, heat and other load over exactly the steps that were measured."""

from __future__ import annotations

from typing import Any

import pytest

from harness.measure.sensors import SOAK_WINDOW, joules_per_token, measure_settling, other_load, summarise_sensors
from harness.measure.telemetry import CardSample, HostSample, Rapl, Telemetry
from harness.process.worker_log import StepEvent
from tests.harness.examples import step

BEGIN = 10_000.0


def timed(count: int, seconds: float = 1.0, **facts: Any) -> tuple[StepEvent, ...]:
    """Steps one after the other from BEGIN on; each of 80 tokens that are no padding."""
    return tuple(
        step(number, seconds=seconds, ended_at=BEGIN + number * seconds, cpu_seconds=seconds, **facts)
        for number in range(1, count + 1)
    )


def card(seconds: float, every: float = 0.2, **facts: Any) -> Telemetry:
    """A card at 300 W from ten seconds before to ten after, with an energy counter that begins at 5 kJ."""
    count = int((seconds + 20) / every)
    moments = [BEGIN - 10 + number * every for number in range(count + 1)]
    usual: dict[str, Any] = {"power": 300.0, "clock_sm": 1800, "temperature": 70.0}
    return Telemetry(
        card=tuple(CardSample(at, energy=5000 + 300 * (at - BEGIN), **{**usual, **facts}) for at in moments)
    )


def test_a_counter_over_a_minute() -> None:
    found = joules_per_token(card(70), timed(70), gpu=True)
    assert found.median == pytest.approx(300 / 80)
    assert found.note == "board sensor: difference of the GPU's energy counter over 70 s"


def test_under_a_minute_the_power_is_integrated() -> None:
    found = joules_per_token(card(30), timed(30), gpu=True)
    assert found.median == pytest.approx(300 / 80)
    assert found.note == "board sensor: power integrated over 30 s (under a minute)"


def test_only_the_measured_steps_count() -> None:
    """An evaluation between the 30th and 31st step is not in the energy."""
    steps = timed(70)
    late = tuple(step(s.step, ended_at=(s.ended_at or 0) + 5.0, cpu_seconds=1.0) for s in steps[30:])
    found = joules_per_token(card(80), (*steps[:30], *late), gpu=True)
    assert found.median == pytest.approx(300 / 80)


@pytest.mark.parametrize("telemetry", [Telemetry(), card(5)])
def test_without_samples_over_all_steps_there_is_no_figure(telemetry: Telemetry) -> None:
    found = joules_per_token(telemetry, timed(100), gpu=True)
    assert found.median is None and found.note and "reported neither" in found.note


def test_a_counter_that_does_not_change_is_not_0_joules() -> None:
    dead = Telemetry(card=tuple(CardSample(BEGIN - 1 + each, energy=7.0) for each in range(200)))
    assert joules_per_token(dead, timed(100), gpu=True).median is None


def test_the_energy_of_cpu_packages() -> None:
    host = tuple(HostSample(BEGIN - 2 + each, energy=(50.0 * each % 1000, 10.0 * each)) for each in range(40))
    found = joules_per_token(Telemetry(host=host, rapl=Rapl((1000.0, 1e6))), timed(30), gpu=False)
    assert found.median == pytest.approx(60 / 80)
    assert found.note and found.note.startswith("the CPU's energy counter (RAPL) over 30 s")


def test_a_cpu_without_a_counter_gives_the_reason() -> None:
    found = joules_per_token(Telemetry(rapl=Rapl(why_not="only root may read it")), timed(30), gpu=False)
    assert (found.median, found.note) == (None, "only root may read it")


def test_old_logs_have_no_times() -> None:
    assert joules_per_token(card(30), (step(1), step(2)), gpu=True).note == "the worker recorded no times"
    assert other_load(card(30), (step(1), step(2))).median is None


def test_the_load_of_other_programs() -> None:
    """Two processors, the training keeps one busy, all together are busy for 1.5 of each second."""
    host = tuple(HostSample(BEGIN - 2 + each, busy=1.5 * each, processors=2) for each in range(40))
    assert other_load(Telemetry(host=host), timed(30)).median == pytest.approx(0.25)
    quiet = tuple(HostSample(BEGIN - 2 + each, busy=0.9 * each, processors=2) for each in range(40))
    assert other_load(Telemetry(host=quiet), timed(30)).median == 0.0


def test_heat_clock_and_limits() -> None:
    found = summarise_sensors(
        card(30, power_enforced=280.0, power_default=350.0, throttle_reasons=0x4), timed(30), gpu=True
    )
    assert (found.power.median, found.temperature.median, found.clock.median) == (300.0, 70.0, 1800.0)
    assert (found.power_limit.median, found.power_default.median, found.highest_clock.median) == (280.0, 350.0, 1800.0)
    assert found.throttled == {"power limit": 1.0}
    assert found.temperature.ci95 is None and len(found.power.raw) <= 240


def test_reasons_that_never_reduced_the_clock_are_left_out() -> None:
    half = card(30)
    mixed = Telemetry(
        card=tuple(
            CardSample(each.time, throttle_reasons=0x20 if number % 4 == 0 else 0x1)
            for number, each in enumerate(half.card)
        )
    )
    assert list(summarise_sensors(mixed, timed(30), gpu=True).throttled) == ["heat (driver)"]
    assert summarise_sensors(mixed, timed(30), gpu=True).throttled["heat (driver)"] == pytest.approx(0.25, abs=0.02)


def warming(kelvin: float, clock: float, seconds: float = SOAK_WINDOW + 10) -> tuple[CardSample, ...]:
    """A card that warms by so much, and changes its clock by such a share, in two minutes."""
    return tuple(
        CardSample(
            float(at),
            temperature=60 + kelvin * at / SOAK_WINDOW,
            clock_sm=round(100_000 * (1 + clock * at / SOAK_WINDOW)),
        )
        for at in range(int(seconds))
    )


@pytest.mark.parametrize(
    ("kelvin", "clock", "soaked"), [(0.5, 0.0, True), (2.0, 0.0, False), (0.0, -0.01, False), (0.5, 0.003, True)]
)
def test_temperature_and_clock_must_be_stable(kelvin: float, clock: float, soaked: bool) -> None:
    found = measure_settling(warming(kelvin, clock))
    assert found is not None and found.soaked is soaked
    assert found.kelvin == pytest.approx(0.75 * kelvin, abs=0.1)


def test_before_two_minutes_nothing_has_settled() -> None:
    assert measure_settling(warming(0.0, 0.0, seconds=60)) is None
    assert measure_settling(()) is None


def test_without_any_sensor_nothing_settles() -> None:
    found = measure_settling(tuple(HostSample(float(at), busy=1.0) for at in range(200)))
    assert found is not None and not found.soaked
