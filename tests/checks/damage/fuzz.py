"""Recorded machines with a fault, one of their sources damaged, judged again: what was bad may not pass.

What counts is in the docstring of `benchmarks/damage.py`.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.model import DoctorReport, Status
from checks.registry import ALL
from checks.runner import run
from tests.checks.damage.hurt import Hurt, Injury, Source, Watched, injure
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay, Remembered
from tests.checks.faults.scoreboard import healthy, places
from tests.checks.faults.table import Fault
from tests.recorded_machines import load, names

BAD = (Status.FAIL, Status.WARN)
GOOD = (Status.PASS, Status.SKIP)
SECONDS = 10


class Patient(NamedTuple):
    """A machine before the damage: what the doctor read of it, and its verdicts. `telling`: sources of the fault."""

    name: str
    machine: Overlay
    seen: dict[Source, Any]
    telling: tuple[Source, ...]
    verdicts: dict[str, Status]


class Case(NamedTuple):
    """One damaged machine. `wrong`: checks that were bad and pass or are skipped now; `unknown`: that are unknown now.

    `silent` are damaged sources that were read, and are not in `unread`; `hit`: a source of the fault is damaged.
    """

    machine: str
    injuries: tuple[Injury, ...]
    hit: bool = False
    wrong: tuple[str, ...] = ()
    unknown: int = 0
    crashes: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()

    @property
    def noticeable(self) -> bool:
        return all(injury.noticeable for injury in self.injuries)

    def row(self) -> dict[str, Any]:
        """For a result file."""
        damage = [f"{one.source.kind}: {one.how}" for one in self.injuries]
        where = [str(one.source.key) for one in self.injuries]
        rest = {key: value for key, value in self._asdict().items() if key != "injuries"}
        return {**rest, "noticeable": self.noticeable, "damage": damage, "where": where}


@cache
def pairs() -> tuple[tuple[str, Fault | None, int], ...]:
    """Every recorded machine as it is, and the healthy ones with each fault that they can have."""
    with_fault = ((name, fault, turn) for fault, turn, name in places())
    return (*((name, None, 0) for name in names()), *with_fault)


@cache
def patient(number: int) -> Patient:
    """The machine of one of the `pairs`."""
    name, fault, turn = pairs()[number]
    machine = Overlay(_remembered(name))
    if fault is not None:
        apply(machine, healthy()[name], fault.wordings[turn].edits)
    watched = Watched(machine)
    report = _judge(read_host(watched))
    seen = {source: found for source, found in watched.seen.items() if getattr(found, "rc", 0) is not None}
    telling = tuple(source for source, found in seen.items() if fault and _as_recorded(name).get(source) != found)
    return Patient(f"{name}, {fault.id if fault else 'as recorded'}", machine, seen, telling, _verdicts(report))


@cache
def _remembered(name: str) -> Remembered:
    machine = load(name)
    # damage leads to questions that were never asked
    machine.strict = False
    return Remembered(machine)


@cache
def _as_recorded(name: str) -> dict[Source, Any]:
    watched = Watched(Overlay(_remembered(name)))
    read_host(watched)
    return watched.seen


def _judge(host: Host) -> DoctorReport:
    return run(host, catalogue(), ALL)


def _verdicts(report: DoctorReport) -> dict[str, Status]:
    return {row.id: row.status for row in report.results}


def cases(seed: int, first: int, count: int) -> Iterator[Case]:
    """Some damaged machines of this seed; a number alone makes its machine again."""
    for number in range(first, first + count):
        yield judge(seed, number)


def judge(seed: int, number: int) -> Case:
    rng = random.Random(f"{seed} {number}")
    who = patient(rng.randrange(len(pairs())))
    injuries = tuple(_injuries(rng, who))
    found = Case(who.name, injuries, any(one.source in who.telling for one in injuries))
    machine = Hurt(who.machine, {one.source: one.answer for one in injuries})
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(SECONDS)
    try:
        host = read_host(machine)
        report = _judge(host)
    except Exception as error:
        return found._replace(crashes=(f"{type(error).__name__}: {error}",))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    after = _verdicts(report)
    bad = [check for check, status in who.verdicts.items() if status in BAD]
    named = {gap.source for gap in host.unread}
    read = [one.source for one in injuries if one.noticeable and one.source in machine.asked]
    return found._replace(
        wrong=tuple(check for check in bad if after[check] in GOOD),
        unknown=sum(after[check] is Status.UNKNOWN for check in bad),
        crashes=tuple(
            [gap.reason for gap in host.unread if gap.reason.startswith("crashed:")]
            + [row.reason for row in report.results if "This check crashed" in row.reason]
        ),
        silent=tuple(source.name for source in read if named.isdisjoint(_names_of(source))),
    )


def _hangs(*_: object) -> None:
    raise TimeoutError(f"not judged within {SECONDS} s")


def _injuries(rng: random.Random, who: Patient) -> Iterator[Injury]:
    """One damaged source, sometimes two; one machine in ten may have a change that cannot be noticed."""
    anything = rng.random() < 0.1
    left = list(who.seen)
    for _ in range(rng.choice((1, 1, 1, 2))):
        telling = [source for source in who.telling if source in left]
        sources = telling if telling and rng.random() < 0.5 else left
        while True:
            source = rng.choice(sources)
            made = injure(rng, source, who.seen[source])
            if made.noticeable or anything:
                break
            # what shows the fault may have no damage that can be noticed
            sources = left if rng.random() < 0.05 else sources
        left.remove(source)
        yield made


def _names_of(source: Source) -> tuple[str, ...]:
    """What `unread` may call it."""
    if source.kind == "space":
        return (f"file system of {source.key}",)
    return _NAMES.get(source.name, (source.name,))


_NAMES = {
    "nvidia": ("nvml",),
    "amd": ("amdsmi",),
    "docker": ("docker info",),
    "mokutil": ("mokutil --list-enrolled", "mokutil --list-new", "mokutil --test-key"),
}
