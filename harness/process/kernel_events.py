"""What the kernel said while a training ran: a lost card, a driver's error, the out-of-memory killer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from checks.catalogue import catalogue
from checks.facts.gaps import Gaps
from checks.facts.kernel import read_log
from machine.causes import Cause, find_cause
from machine.local import Machine

# the log's clock is the processor's, ours the system's: they part by a few seconds in months
SLACK = 10.0
_STAMP = re.compile(r"^\[ *([0-9]+\.[0-9]+)\]")
# `NVRM: Xid (PCI:0000:01:00): 79, pid=…`; old drivers leave out `PCI:`
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?[0-9a-fA-F:.]+\): (\d+)")
# rows of xid.toml whose number means that the card needs more than a new start of the program
_CARE = ("reset-gpu", "reboot", "workflow", "contact")


def kernel_lines_since(machine: Machine, begin: float) -> tuple[str, ...]:
    """The kernel's telling lines since `begin` (time.monotonic()); empty where its log may not be read."""
    lines = read_log(machine, Gaps(), patience=2.0) or ()
    return lines_between(lines, begin, time.monotonic())


def lines_between(lines: Sequence[str], begin: float, now: float) -> tuple[str, ...]:
    """The lines whose stamp lies in the run's time."""
    found = []
    for line in lines:
        match = _STAMP.match(line)
        if match and begin - SLACK <= float(match[1]) <= now + SLACK:
            found.append(line)
    return tuple(found)


def card_cause(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The card's own trouble and the line that says so; numbers that a program causes are none."""
    known = {row.number: row for row in catalogue().xids}
    hung = None
    for line in lines:
        if find_cause((LOST,), line):
            return LOST, line
        match = _XID.search(line)
        row = known.get(int(match[1])) if match else None
        if row is not None and (row.hardware or row.action in _CARE) and hung is None:
            why = f"The card reported an error of its own: Xid {row.number}, {row.meaning}."
            hung = FAILED._replace(why=why), line
        if hung is None and find_cause((FAILED,), line):
            hung = FAILED, line
    return hung


def memory_cause(lines: Sequence[str]) -> tuple[Cause, str] | None:
    """The out-of-memory killer's line, and whether the whole machine or a limit was full."""
    for line in reversed(lines):
        if cause := find_cause((LIMITED, FULL), line):
            return cause, line
    return None


LOST = Cause(
    r"NVRM: Xid \((?:PCI:)?[0-9a-fA-F:.]+\): 79\b|NVRM: .*fallen off the bus",
    "gpu-lost",
    "The card fell off the bus (Xid 79): the machine does not see it any more.",
    "Switch the machine off fully and on again, then run gpu-setup doctor: it asks about power, riser and slot. "
    "The same command goes on afterwards.",
)
# kernels 5.15 to 7.0
FAILED = Cause(
    r"amdgpu .*(ring \S+ timeout|GPU reset(?: begin|\(\d+\) )|MES(?:\(\d+\))? failed to respon)",
    "gpu-failed",
    "The card hung or was reset.",
    "Restart the machine and run gpu-setup doctor; take back overclocking. The same command goes on afterwards.",
)
# mm/oom_kill.c: `Out of memory: Killed process 123 (python) …`, `Memory cgroup out of memory: Killed process …`
FULL = Cause(
    r"Out of memory.{0,20}: Killed process \d+ \(",
    "out-of-memory-host",
    "The computer's memory was full, and the kernel ended the training.",
    "Close other programs, add swap, or lower micro_batch_size; then run the same command again.",
)
LIMITED = Cause(
    r"Memory cgroup out of memory.{0,20}: Killed process \d+ \(",
    "out-of-memory-host",
    "The memory that this session, container or unit may use was full, and the kernel ended the training.",
    "Raise its limit (the container's --memory, systemd's MemoryMax), or lower micro_batch_size; then run the same "
    "command again.",
)
