"""Samples from recorded documents and files, and counters made of them. Any bytes are survived."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.telemetry import (
    CardSample,
    HostSample,
    HostSensors,
    Rapl,
    energy_between,
    integrate_power,
    parse_card,
    parse_stat,
    parse_telemetry,
    rapl_counter,
    rapl_zones,
)
from machine.local import ABSENT, DENIED, LocalMachine, Unreadable
from tests.recorded_machines import load

STAT = """cpu  1000 50 300 9000 200 10 20 30 0 0
cpu0 500 25 150 4500 100 5 10 15 0 0
cpu1 500 25 150 4500 100 5 10 15 0 0
intr 1 2 3
"""


def recorded(name: str, **changes: Any) -> str:
    """A line as `bindings.py nvidia --every S` prints it, from a recorded machine's document."""
    document = json.loads(load(name).binding("nvidia").stdout)
    document["gpus"][0].update(changes)
    return json.dumps({**document, "time": 1000.0})


class Sys(LocalMachine):
    """This machine with other files under /sys; None: there, and not to be read."""

    def __init__(self, files: dict[str, str | None]) -> None:
        self.files = files

    def read(self, path: str, limit: int = 1 << 22) -> bytes:
        if not path.startswith("/sys"):
            return super().read(path, limit)
        if path not in self.files:
            raise Unreadable(path, ABSENT)
        text = self.files[path]
        if text is None:
            raise Unreadable(path, DENIED)
        return text.encode()

    def list(self, path: str) -> tuple[str, ...]:
        if not path.startswith("/sys"):
            return super().list(path)
        names = {file[len(path) + 1 :].split("/")[0] for file in self.files if file.startswith(path + "/")}
        if not names:
            raise Unreadable(path, ABSENT)
        return tuple(sorted(names))


def zone(number: int, name: str, joules: str | None, limit: str = "262143328850") -> dict[str, str | None]:
    folder = f"/sys/class/powercap/intel-rapl:{number}"
    return {f"{folder}/name": name + "\n", f"{folder}/energy_uj": joules, f"{folder}/max_energy_range_uj": limit}


def test_a_card_from_its_recorded_document() -> None:
    line = recorded("rtx3090-healthy")
    found = parse_card(line, "GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e401")
    assert found == CardSample(
        time=1000.0,
        power=21.4,
        energy=812345.6,
        clock_sm=210,
        clock_memory=405,
        temperature=38,
        memory_used=432013312,
        utilisation=0,
        throttle_reasons=1,
        power_enforced=350.0,
        power_default=350.0,
    )
    assert parse_card(line, "0000:01:00.0") == parse_card(line, None) == found
    assert parse_card(line, "GPU-another") is None


def test_an_amd_card_reports_its_junction_and_its_limit() -> None:
    gpu = {"slot": "0000:03:00.0", "temperature_edge": 55.0, "temperature_junction": 78.0, "power_limit": 263.0}
    found = parse_card(json.dumps({"gpus": [gpu | {"problem": None}], "time": 5.0}), "0000:03:00.0")
    assert found is not None
    assert (found.temperature, found.power_enforced, found.energy) == (78.0, 263.0, None)


@pytest.mark.parametrize(
    "line", ["", "x", "[]", "{}", '{"gpus": [{"problem": "lost"}]}', '{"gpus": 3}', '{"gpus": [7]}']
)
def test_lines_without_a_card(line: str) -> None:
    assert parse_card(line, None) is None


def test_a_value_of_the_wrong_kind_is_no_sample() -> None:
    assert parse_card(recorded("rtx3090-healthy", power="hot"), None) is None


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    parse_telemetry(raw)
    parse_card(raw.decode("utf-8", "replace"), None)
    parse_stat(raw.decode("utf-8", "replace"))


def test_what_was_written_is_read_again_and_an_incomplete_line_is_skipped() -> None:
    lines = [Rapl(why_not="none"), CardSample(1.0, power=2.0), HostSample(1.5, busy=3.0), CardSample(2.0)]
    raw = b"\n".join(msgspec.json.encode(each) for each in lines)
    found = parse_telemetry(raw[:-4])
    assert (found.card, found.host, found.rapl) == ((lines[1],), (lines[2],), lines[0])


def test_busy_time_is_all_time_except_idle_and_io_wait() -> None:
    assert parse_stat(STAT) == (14.1, 2)
    assert parse_stat("cpu  1 2 x") is None


def test_the_packages_counters_are_found_and_the_parts_of_them_are_not() -> None:
    files = zone(0, "package-0", "1000000") | zone(1, "package-1", "3000000") | zone(2, "psys", "9")
    files |= {"/sys/class/powercap/intel-rapl:0:0/name": "core\n", "/sys/class/powercap/dtpm/name": "x\n"}
    sensors = HostSensors(Sys(files))
    assert (sensors.why_not, [each.wraps_at for each in sensors.zones]) == (None, [262143.32885] * 2)
    assert sensors.sample().energy == (1.0, 3.0)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "no energy counter"),
        (zone(0, "package-0", None), "only root"),
        (zone(0, "psys", "1"), "no energy"),
    ],
)
def test_why_there_is_no_counter(files: dict[str, str | None], why: str) -> None:
    zones, told = rapl_zones(Sys(files))
    assert zones == () and told and why in told


def test_temperature_and_clock_of_the_cpu() -> None:
    files: dict[str, str | None] = {
        "/sys/class/hwmon/hwmon0/name": "nvme\n",
        "/sys/class/hwmon/hwmon0/temp1_input": "31000\n",
        "/sys/class/hwmon/hwmon3/name": "k10temp\n",
        "/sys/class/hwmon/hwmon3/temp1_input": "64500\n",
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "4000000\n",
        "/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "5000000\n",
        "/sys/devices/system/cpu/cpuidle/x": "1",
    }
    found = HostSensors(Sys(files)).sample()
    assert (found.temperature, found.clock, found.energy) == (64.5, 4500.0, ())
    assert found.busy is not None and found.processors


def test_energy_between_two_moments() -> None:
    counter = [(0.0, 100.0), (10.0, 400.0), (20.0, 500.0)]
    assert energy_between(counter, 0.0, 20.0) == 400.0
    assert energy_between(counter, 5.0, 15.0) == 200.0
    assert energy_between(counter, -1.0, 5.0) is None, "before the first sample nothing is known"
    assert energy_between(counter, 5.0, 21.0) is None
    assert energy_between([], 0.0, 1.0) is None


def test_watts_become_joules() -> None:
    assert integrate_power([(0.0, 100.0), (2.0, 100.0), (3.0, 300.0)]) == [(0.0, 0.0), (2.0, 200.0), (3.0, 400.0)]


def test_a_counter_that_restarted_at_0() -> None:
    samples = tuple(
        HostSample(float(at), energy=each) for at, each in enumerate([(90.0, 5.0), (99.0, 6.0), (4.0, 8.0)])
    )
    assert rapl_counter(samples, (100.0, 1000.0)) == [(0.0, 0.0), (1.0, 10.0), (2.0, 17.0)]
    assert rapl_counter(samples, ()) == []
