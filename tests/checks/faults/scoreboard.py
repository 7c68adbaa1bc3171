"""How well the doctor sees: every fault on every healthy machine that can have it, and every look-alike.

`python -m tests.checks.faults.scoreboard` prints the table of docs/reference/scoreboard.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.model import DoctorReport, Severity, Status
from checks.registry import ALL
from checks.runner import run
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay, Remembered
from tests.checks.faults.table import Fault, LookAlike, Wording, faults, look_alikes, traits
from tests.recorded_machines import load, names

_BAD = (Status.FAIL, Status.WARN)
_WORSE = list(Severity)


class Pair(NamedTuple):
    """A fault (in one of its wordings) on a machine: which of its checks were silent, and which others spoke."""

    machine: str
    fault: Fault
    wording: int
    missed: tuple[str, ...]
    others: tuple[str, ...]


class Mistake(NamedTuple):
    """A look-alike on a machine, and the checks that fell for it."""

    machine: str
    look_alike: LookAlike
    fell: tuple[str, ...]


class Scoreboard(NamedTuple):
    pairs: tuple[Pair, ...]
    false_alarms: tuple[tuple[str, str], ...]
    look_alikes: tuple[Mistake, ...]

    @property
    def found(self) -> int:
        return sum(not pair.missed for pair in self.pairs)

    @property
    def recall(self) -> float:
        return self.found / len(self.pairs)

    @property
    def other_wordings(self) -> int:
        return sum(pair.wording > 0 for pair in self.pairs)

    @property
    def kernel_lines(self) -> tuple[int, int]:
        """Pairs that are lines of the kernel log, and how many of them in another version's words."""
        about = [pair.wording > 0 for pair in self.pairs if pair.fault.wordings[pair.wording].lines]
        return len(about), sum(about)

    @property
    def mistaken(self) -> tuple[Mistake, ...]:
        return tuple(row for row in self.look_alikes if row.fell)


@cache
def machines() -> dict[str, Remembered]:
    return {name: Remembered(load(name)) for name in names() if name.endswith("-healthy")}


@cache
def healthy() -> dict[str, Host]:
    return {name: read_host(machine) for name, machine in machines().items()}


def examine(name: str, wording: Wording) -> DoctorReport:
    """The doctor on the healthy machine `name` with this edit."""
    machine = Overlay(machines()[name])
    apply(machine, healthy()[name], wording.edits)
    return run(read_host(machine), catalogue(), ALL)


def bad(report: DoctorReport) -> frozenset[str]:
    return frozenset(row.id for row in report.results if row.status in _BAD)


def raised(report: DoctorReport, says: str) -> frozenset[str]:
    """Checks with a finding that is as bad as `says`, or worse."""
    enough = _WORSE[: _WORSE.index(Severity(says)) + 1]
    return frozenset(row.id for row in report.results if any(finding.severity in enough for finding in row.findings))


def places() -> Iterator[tuple[Fault, int, str]]:
    """Every pair: the wordings of a fault take turns from machine to machine."""
    has = {name: traits(host, catalogue()) for name, host in healthy().items()}
    for fault in faults():
        able = [name for name, own in has.items() if own.issuperset(fault.on)]
        for turn in range(max(len(able), len(fault.wordings)) if able else 0):
            yield fault, turn % len(fault.wordings), able[turn % len(able)]


def look_alike_places() -> Iterator[tuple[LookAlike, str]]:
    for look_alike in look_alikes():
        for name, host in healthy().items():
            if traits(host, catalogue()).issuperset(look_alike.on):
                yield look_alike, name


@cache
def scoreboard() -> Scoreboard:
    plain = {name: run(host, catalogue(), ALL) for name, host in healthy().items()}
    alarms = tuple((name, check) for name, report in plain.items() for check in sorted(bad(report)))
    pairs = []
    for fault, turn, name in places():
        report = examine(name, fault.wordings[turn])
        missed = tuple(check for check in fault.raises if check not in raised(report, fault.says))
        others = tuple(sorted(bad(report) - set(fault.raises)))
        pairs.append(Pair(name, fault, turn, missed, others))
    mistakes = []
    for look_alike, name in look_alike_places():
        fell = tuple(sorted(bad(examine(name, look_alike.wording))))
        mistakes.append(Mistake(name, look_alike, fell))
    return Scoreboard(tuple(pairs), alarms, tuple(mistakes))


def text(board: Scoreboard) -> str:
    """The scoreboard as Markdown."""
    distinct = {pair.fault.id for pair in board.pairs}
    lines_said, other_words = board.kernel_lines
    lines = [
        "# Scoreboard",
        "",
        "Written by `python -m tests.checks.faults.scoreboard`: faults from",
        "[tests/checks/faults/data](../../tests/checks/faults/data), put",
        f"into the {len(healthy())} healthy ones of the [recorded machines](../../tests/machines/README.md). Those are",
        "synthetic: this says how the doctor reads what tools are known to print, not how it does on hardware.",
        "",
        "| | |",
        "|---|---|",
        f"| faults | {len(distinct)} |",
        f"| machine × fault pairs | {len(board.pairs)} |",
        f"| of them in another version's or tool's form than the first | {board.other_wordings} |",
        f"| pairs that are lines of the kernel log, and in other words | {lines_said}, {other_words} |",
        f"| found (recall) | {board.found} ({board.recall:.3f}) |",
        f"| false alarms on healthy machines | {len(board.false_alarms)} |",
        f"| look-alikes | {len({row.look_alike.id for row in board.look_alikes})}, {len(board.look_alikes)} pairs |",
        f"| look-alikes mistaken | {len(board.mistaken)} |",
        "",
        "| check | faults | pairs | found | look-alikes |",
        "|---|---:|---:|---:|---:|",
    ]
    untested = []
    for check in (check.id for check in ALL):
        about = [pair for pair in board.pairs if check in pair.fault.raises]
        alike = sum(check in row.look_alike.like for row in board.look_alikes)
        if not about:
            untested.append(check)
            continue
        found = sum(check not in pair.missed for pair in about)
        kinds = len({pair.fault.id for pair in about})
        lines.append(f"| `{check}` | {kinds} | {len(about)} | {found} | {alike} |")
    lines += ["", "Checks without a fault here: " + (", ".join(f"`{id}`" for id in untested) or "none") + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text(scoreboard()))
