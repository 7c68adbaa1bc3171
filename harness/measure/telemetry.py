"""Sensor values during a run: a GPU's power, energy, clocks, temperature and memory; the load of the CPU.

    bindings.py nvidia|amd --every S ─▶ one line a sample ─┐
    /proc/stat, RAPL, hwmon, cpufreq  ─▶ one line a second ┴▶ telemetry.jsonl ─▶ Telemetry

A child process (machine/bindings.py) asks the GPU, because a driver that freezes must not stop a training. A value that
cannot be read is null; for a missing sensor the reason is recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from machine.input_file import read_input
from machine.local import DENIED, Machine, Unreadable, binding_call

CARD_EVERY = 0.2
HOST_EVERY = 1.0
POWERCAP = "/sys/class/powercap"
NO_COUNTER = "this machine has no energy counter of the CPU (RAPL)"
# hwmon names of the CPU's own sensors: Intel, AMD, and AMD's older out-of-tree driver
CPU_SENSORS = frozenset({"coretemp", "k10temp", "zenpower"})


class CardSample(msgspec.Struct, frozen=True, tag_field="of", tag="card"):
    """Seconds since 1970, watts, joules since the driver started, MHz, Celsius, bytes, NVML's bits, per cent.

    `computing`: how many programs compute on the card.
    """

    time: float
    power: float | None = None
    energy: float | None = None
    clock_sm: int | None = None
    clock_memory: int | None = None
    temperature: float | None = None
    temperature_memory: float | None = None
    memory_used: int | None = None
    utilisation: int | None = None
    throttle_reasons: int | None = None
    power_enforced: float | None = None
    power_default: float | None = None
    computing: int | None = None


class HostSample(msgspec.Struct, frozen=True, tag_field="of", tag="host"):
    """`busy`: busy seconds of all CPU cores together since the boot; `energy`: joules by RAPL, per package.

    `temperature` and `clock` (MHz, mean of the cores) are the CPU's own.
    """

    time: float
    busy: float | None = None
    processors: int | None = None
    energy: tuple[float, ...] = ()
    temperature: float | None = None
    clock: float | None = None


class RaplZone(NamedTuple):
    """The energy counter of a CPU package: its file, and the value (joules) at which it starts again from 0."""

    file: str
    wraps_at: float


class Rapl(msgspec.Struct, frozen=True, tag_field="of", tag="rapl"):
    """`wraps_at`: the joules at which each package's counter restarts at 0; `why_not`: why there is no counter."""

    wraps_at: tuple[float, ...] = ()
    why_not: str | None = None


class Telemetry(msgspec.Struct, frozen=True):
    card: tuple[CardSample, ...] = ()
    host: tuple[HostSample, ...] = ()
    rapl: Rapl = Rapl()


_LINE = msgspec.json.Decoder(CardSample | HostSample | Rapl)


def parse_telemetry(raw: bytes) -> Telemetry:
    """Survives any bytes: what does not decode is skipped."""
    card: list[CardSample] = []
    host: list[HostSample] = []
    rapl = Rapl()
    for line in raw.split(b"\n"):
        try:
            found = _LINE.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        match found:
            case CardSample():
                card.append(found)
            case HostSample():
                host.append(found)
            case Rapl():
                rapl = found
    return Telemetry(tuple(card), tuple(host), rapl)


def read_telemetry(path: Path) -> Telemetry:
    try:
        return parse_telemetry(read_input(path, 1 << 30))
    except OSError:
        return Telemetry()


def parse_card(line: str, which: str | None) -> CardSample | None:
    """The sample of one card in a line of bindings.py; `which`: its UUID or slot (None: the first)."""
    try:
        document = msgspec.json.decode(line)
        gpus = [gpu for gpu in document["gpus"] if not gpu.get("problem")]
        gpu = next(g for g in gpus if which is None or which in (g.get("uuid"), g.get("slot")))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, AttributeError, StopIteration):
        return None
    # AMD has several sensors; the junction is the hottest, and the one that reduces the clock
    heat = gpu.get("temperature", gpu.get("temperature_junction"))
    enforced = gpu.get("power_enforced")
    pids = gpu.get("compute_pids")
    values = {
        name: gpu.get(name)
        for name in (
            *("power", "energy", "clock_sm", "clock_memory", "temperature_memory", "memory_used", "utilisation"),
            *("throttle_reasons", "power_default"),
        )
    }
    try:
        return msgspec.convert(
            {
                **values,
                "of": "card",
                "time": document.get("time") or time.time(),
                "temperature": heat if heat is not None else gpu.get("temperature_edge"),
                "computing": len(pids) if isinstance(pids, list) else None,
                "power_enforced": enforced if enforced is not None else gpu.get("power_limit"),
            },
            CardSample,
        )
    except msgspec.ValidationError:
        return None


def parse_stat(text: str, ticks: int = 100) -> tuple[float, int] | None:
    """Busy seconds of all CPU cores together and their number, from /proc/stat; None for any other text."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("cpu "):
        return None
    try:
        # user nice system idle iowait irq softirq steal (proc_stat(5)); guest time is in user already
        user, nice, system, _idle, _wait, irq, soft, steal = (int(word) for word in lines[0].split()[1:9])
    except ValueError:
        return None
    processors = sum(line[:3] == "cpu" and line[3:4].isdigit() for line in lines)
    return (user + nice + system + irq + soft + steal) / ticks, processors


def rapl_zones(machine: Machine) -> tuple[tuple[RaplZone, ...], str | None]:
    """The packages' counters, or why there are none. Since 2020 only root may read them (CVE-2020-8694)."""
    try:
        names = [name for name in machine.list(POWERCAP) if name.startswith("intel-rapl:") and name.count(":") == 1]
    except Unreadable:
        return (), NO_COUNTER
    zones = []
    for name in names:
        try:
            if not _text(machine, f"{POWERCAP}/{name}/name").startswith("package"):
                continue
            _text(machine, f"{POWERCAP}/{name}/energy_uj")
            zones.append(
                RaplZone(
                    f"{POWERCAP}/{name}/energy_uj",
                    int(_text(machine, f"{POWERCAP}/{name}/max_energy_range_uj")) / 1e6,
                )
            )
        except Unreadable as error:
            if error.reason == DENIED:
                return (), "only root may read the CPU's energy counter (RAPL)"
        except ValueError:
            continue
    return tuple(zones), None if zones else NO_COUNTER


class HostSensors:
    """The CPU's sensors, found once and then read repeatedly."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.zones, self.why_not = rapl_zones(machine)
        self._heat = self._found("/sys/class/hwmon", "hwmon", "temp1_input", CPU_SENSORS)
        self._clocks = [
            f"/sys/devices/system/cpu/{name}/cpufreq/scaling_cur_freq"
            for name in self._names("/sys/devices/system/cpu")
            if name[:3] == "cpu" and name[3:].isdigit()
        ]

    def sample(self) -> HostSample:
        stat = parse_stat(self._read("/proc/stat") or "")
        clocks = [value for file in self._clocks if (value := self._number(file)) is not None]
        heat = self._number(self._heat) if self._heat else None
        energies = [self._number(zone.file) for zone in self.zones]
        return HostSample(
            time=time.time(),
            busy=stat[0] if stat else None,
            processors=stat[1] if stat else None,
            energy=tuple(value / 1e6 for value in energies if value is not None) if None not in energies else (),
            temperature=heat / 1000 if heat is not None else None,
            clock=sum(clocks) / len(clocks) / 1000 if clocks else None,
        )

    def _found(self, folder: str, prefix: str, file: str, kinds: frozenset[str]) -> str | None:
        for name in self._names(folder):
            if name.startswith(prefix) and (self._read(f"{folder}/{name}/name") or "").strip() in kinds:
                return f"{folder}/{name}/{file}"
        return None

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            return self._machine.list(folder)
        except Unreadable:
            return ()

    def _read(self, path: str) -> str | None:
        try:
            return _text(self._machine, path)
        except Unreadable:
            return None

    def _number(self, path: str) -> float | None:
        text = (self._read(path) or "").strip()
        return float(text) if text.lstrip("-").isdigit() else None


def _text(machine: Machine, path: str) -> str:
    return machine.read(path).decode("utf-8", "replace")


@contextmanager
def record_telemetry(
    machine: Machine, vendor: str, which: str | None, path: Path, every: float = CARD_EVERY
) -> Iterator[None]:
    """Write samples to `path` while this lasts. `vendor`: nvidia, amd, or cpu (no GPU)."""
    stop = threading.Event()
    guard = threading.Lock()
    with path.open("ab") as file:

        def write(sample: CardSample | HostSample | Rapl) -> None:
            # a full disk stops the training itself, with its own error
            with guard, suppress(OSError):
                file.write(msgspec.json.encode(sample) + b"\n")
                file.flush()

        def card() -> None:
            call = binding_call(vendor, every)
            if call is None:
                return

            def on_line(line: str) -> None:
                sample = parse_card(line, which)
                if sample is not None:
                    write(sample)

            machine.stream(call.argv, on_line, stop, call.env)

        def host() -> None:
            sensors = HostSensors(machine)
            write(Rapl(tuple(zone.wraps_at for zone in sensors.zones), sensors.why_not))
            write(sensors.sample())
            while not stop.wait(HOST_EVERY):
                write(sensors.sample())
            write(sensors.sample())

        works = [host, card] if vendor in ("nvidia", "amd") else [host]
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def energy_between(samples: list[tuple[float, float]], begin: float, end: float) -> float | None:
    """The counter's difference between two times, interpolated linearly between samples of (time, joules).

    None where the samples do not cover both times.
    """
    first, last = _at(samples, begin), _at(samples, end)
    return None if first is None or last is None else last - first


def _at(samples: list[tuple[float, float]], moment: float) -> float | None:
    from bisect import bisect_left

    place = bisect_left(samples, (moment,))
    if place < len(samples) and samples[place][0] == moment:
        return samples[place][1]
    if place in (0, len(samples)):
        return None
    (t0, e0), (t1, e1) = samples[place - 1], samples[place]
    return e0 + (e1 - e0) * (moment - t0) / (t1 - t0)


def integrate_power(samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An energy counter from samples of (time, watts), by the trapezoidal rule."""
    counter, total = [], 0.0
    for number, (moment, watts) in enumerate(samples):
        if number:
            before, watts_before = samples[number - 1]
            total += (moment - before) * (watts + watts_before) / 2
        counter.append((moment, total))
    return counter


def rapl_counter(host: tuple[HostSample, ...], wraps_at: tuple[float, ...]) -> list[tuple[float, float]]:
    """One counter of all packages that only increases, from counters that start again from 0."""
    counter, total = [], 0.0
    before: HostSample | None = None
    for sample in host:
        if len(sample.energy) != len(wraps_at) or not wraps_at:
            continue
        if before is not None:
            for one, other, limit in zip(before.energy, sample.energy, wraps_at, strict=True):
                total += other - one if other >= one else other - one + limit
        counter.append((sample.time, total))
        before = sample
    return counter
