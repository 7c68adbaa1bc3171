"""Which other programs use the GPU: one that computes spoils a benchmark, a desktop only gets a note."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from checks.facts.host import Host
from machine.errors import Refused
from machine.local import Machine, Unreadable

_DESKTOP = Path(__file__).with_name("desktop.toml")
KFD_PROCESSES = "/sys/class/kfd/kfd/proc"


class Program(msgspec.Struct, frozen=True):
    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name or 'a process'} (pid {self.pid})"


class CardUse(msgspec.Struct, frozen=True):
    """What runs on the GPU before a benchmark. `memory_used`: bytes in use then; None: not known.

    `asked` is False where the driver cannot list the programs on the GPU.
    """

    foreign: tuple[Program, ...] = ()
    desktop: tuple[Program, ...] = ()
    memory_used: int | None = None
    asked: bool = True


@cache
def desktop_programs() -> frozenset[str]:
    import tomllib

    return frozenset(tomllib.loads(_DESKTOP.read_text(encoding="utf-8"))["programs"])


def card_use(gpu: dict[str, Any]) -> CardUse:
    """From NVML's answer for one GPU: a program that computes and is not part of a desktop is foreign.

    Older documents don't separate compute from graphics; then every program that is not part of a desktop is foreign.
    """
    found = [Program(int(pid), str(name)) for pid, name in gpu.get("processes") or ()]
    computing = gpu.get("compute_pids")
    drawing = [each for each in found if computing is not None and each.pid not in computing]
    desktop = [each for each in found if each.name in desktop_programs() or each in drawing]
    return CardUse(
        foreign=tuple(each for each in found if each not in desktop),
        desktop=tuple(desktop),
        memory_used=gpu.get("memory_used"),
        asked=gpu.get("processes") is not None,
    )


def read_card_use(vendor: str, which: str | None, machine: Machine) -> CardUse:
    """Ask the driver now. KFD lists AMD's compute processes in one folder, for all its GPUs together."""
    gpu = _gpu(machine.binding(vendor).stdout, which) if vendor in ("nvidia", "amd") else None
    if vendor == "nvidia":
        return card_use(gpu) if gpu else CardUse(asked=False)
    if vendor == "amd":
        used = gpu.get("memory_used") if gpu else None
        try:
            pids = [int(name) for name in machine.list(KFD_PROCESSES) if name.isdigit()]
        except Unreadable:
            return CardUse(memory_used=used, asked=False)
        return CardUse(tuple(Program(pid, _comm(machine, pid)) for pid in pids), memory_used=used)
    return CardUse(asked=False)


def refuse_foreign(use: CardUse) -> None:
    """Raises Refused when another program computes on the GPU: both would be slower, and the result meaningless."""
    if use.foreign:
        raise Refused(
            "bench.card-in-use",
            f"Another program computes on the GPU: {', '.join(map(str, use.foreign[:3]))}.",
            "Both would share the GPU's time and memory, so the measured speed would be wrong.",
            "Stop it or wait until it ends, then run the same command again. `gpu-setup smoke` can run beside it.",
        )


def desktop_note(use: CardUse, host: Host) -> str | None:
    """One sentence where a desktop shares the GPU: it uses memory and time, and makes step times uneven."""
    if use.desktop:
        names = ", ".join(dict.fromkeys(each.name for each in use.desktop))
        return f"A desktop shares the GPU ({names}): it uses some of its memory and time."
    connected = [name for card in host.cards or () for name in card.connectors_connected or ()]
    if use.memory_used is not None and host.os.graphical and connected:
        return f"A monitor is connected to a GPU ({', '.join(connected[:2])}): a desktop may share it."
    return None


def _gpu(text: str, which: str | None) -> dict[str, Any] | None:
    try:
        gpus = msgspec.json.decode(text)["gpus"]
        return next((gpu for gpu in gpus if which is None or which in (gpu.get("uuid"), gpu.get("slot"))), None)
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        return None


def _comm(machine: Machine, pid: int) -> str:
    try:
        return machine.read(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except Unreadable:
        return ""
