"""The kernel's messages during a training: a lost card, a driver's error, the out-of-memory killer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from checks.catalogue import catalogue
from checks.facts.gaps import Gaps
from checks.facts.kernel import read_log
from machine.causes import Cause, find_cause
from machine.local import Machine

# the log uses the CPU's clock, we use the system's: they differ by a few seconds after months
SLACK = 10.0
_STAMP = re.compile(r"^\[ *([0-9]+\.[0-9]+)\]")
# `NVRM: Xid (PCI:0000:01:00): 79, pid=…`; old drivers leave out `PCI:`
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?[0-9a-fA-F:.]+\): (\d+)")
# actions in xid.toml that mean: restarting the program is not enough
_CARE = ("reset-gpu", "reboot", "workflow", "contact")


def kernel_lines_since(machine: Machine, begin: float) -> tuple[str, ...]:
    """The kernel's messages since `begin` (time.monotonic()); empty where its log may not be read."""
    lines = read_log(machine, Gaps(), patience=2.0) or ()
    return lines_between(lines, begin, time.monotonic())


def lines_between(lines: Sequence[str], begin: float, now: float) -> tuple[str, ...]:
    """The lines whose time stamp is within the run."""
    found = []
    for line in lines:
        match = _STAMP.match(line)
        if match and begin - SLACK <= float(match[1]) <= now + SLACK:
            found.append(line)
    return tuple(found)


def card_cause(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The card's error and the line that reports it; Xid numbers that a program causes do not count."""
    known = {row.number: row for row in catalogue().xids}
    hung = None
    for line in lines:
        if find_cause((CARD_LOST,), line):
            return CARD_LOST, line
        match = _XID.search(line)
        row = known.get(int(match[1])) if match else None
        if row is not None and (row.hardware or row.action in _CARE) and hung is None:
            why = f"The card reported a hardware error: Xid {row.number}, {row.meaning}."
            hung = CARD_FAILED._replace(why=why), line
        if hung is None and find_cause((CARD_FAILED,), line):
            hung = CARD_FAILED, line
    return hung


def memory_cause(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The out-of-memory killer's line, and whether the whole machine's memory or a limit was reached."""
    for line in reversed(lines):
        if cause := find_cause((MEMORY_LIMIT, MEMORY_FULL), line):
            return cause, line
    return None


CARD_LOST = Cause(
    r"NVRM: Xid \((?:PCI:)?[0-9a-fA-F:.]+\): 79\b|NVRM: .*fallen off the bus",
    "gpu-lost",
    "The card fell off the bus (Xid 79): the machine does not see it any more.",
    "Power the machine off completely and on again, then run `gpu-setup doctor`: it checks power, riser and slot. "
    "Then run the same command again to resume.",
)
# kernels 5.15 to 7.0
CARD_FAILED = Cause(
    r"amdgpu .*(ring \S+ timeout|GPU reset(?: begin|\(\d+\) )|MES(?:\(\d+\))? failed to respon)",
    "gpu-failed",
    "The card hung or was reset.",
    "Reboot, run `gpu-setup doctor`, and undo any overclocking. Then run the same command again to resume.",
)
# mm/oom_kill.c: `Out of memory: Killed process 123 (python) …`, `Memory cgroup out of memory: Killed process …`
MEMORY_FULL = Cause(
    r"Out of memory.{0,20}: Killed process \d+ \(",
    "out-of-memory-host",
    "The computer's memory was full, and the kernel killed the training.",
    "Close other programs, add swap, or lower micro_batch_size; then run the same command again.",
)
MEMORY_LIMIT = Cause(
    r"Memory cgroup out of memory.{0,20}: Killed process \d+ \(",
    "out-of-memory-host",
    "The memory limit of this session, container or systemd unit was reached, and the kernel killed the training.",
    "Raise the limit (the container's --memory, systemd's MemoryMax), or lower micro_batch_size; then run the same "
    "command again.",
)
