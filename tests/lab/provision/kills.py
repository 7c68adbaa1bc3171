"""Kills a run of the tool at a chosen moment, runs it again, and compares the machine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab.provision import state
from tests.lab.provision.hosts import STATE, Guest, Hosts, Snapshot
from tests.lab.provision.routes import Route
from tests.lab.provision.state import State

UNIT = "gpu-setup-apply"
PACKAGING = ("apt-get", "apt", "dpkg", "dpkg-deb", "http", "https", "gpgv", "store", "rred", "dpkg-split")
ANSWERED = (0, 5)
# how often a blow that found nobody is tried again, sooner each time
SOONER = 4


class Moment(NamedTuple):
    """`where`: after (a step is done, the next has not begun) or inside (when `part` of the step's usual time is over).

    `victim`: tool (root's process alone), packaging (apt-get, dpkg and what they run), everything (of the tool), power
    (the whole machine).
    """

    step: str
    where: str
    part: float
    victim: str


class Usual(NamedTuple):
    """The run that nobody disturbs: how it ends, what it makes of the machine, and how long each step takes.

    `before`: the disk as it is when a step begins; a run that is to be hit late can start from there.
    """

    rc: int
    end: State
    seconds: dict[str, float]
    before: dict[str, Snapshot]

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.seconds)


class Hit(NamedTuple):
    """`landed`: the journal's last words when it happened; `again`: exit code of the run after it."""

    moment: Moment
    landed: str
    killed: tuple[str, ...]
    again: int
    differs: tuple[str, ...]
    seconds: float

    @property
    def fine(self) -> bool:
        return self.again in ANSWERED and not self.differs and bool(self.killed)

    def row(self) -> dict[str, Any]:
        """One level of names, for a table."""
        found = self._asdict()
        moment: Moment = found.pop("moment")
        return {**moment._asdict(), **found}


def usual(hosts: Hosts, fresh: Snapshot, route: Route) -> Usual:
    with hosts.guest(fresh) as guest:
        ended = guest.tool("apply", "--yes", *route.arguments)
        assert ended.rc in ANSWERED, ended.document
        begun: dict[str, datetime] = {}
        seconds: dict[str, float] = {}
        for entry in guest.journal():
            when = datetime.fromisoformat(entry["time"])
            if entry["phase"] == "begin":
                begun[entry["step"]] = when
            elif entry["phase"] == "done":
                seconds[entry["step"]] = (when - begun[entry["step"]]).total_seconds()
        return Usual(ended.rc, state.of(guest), seconds, {})


def with_disks(hosts: Hosts, fresh: Snapshot, route: Route, usual: Usual) -> Usual:
    """The same run once more, held for a moment after each step to copy its disk."""
    before = {usual.steps[0]: fresh}
    with hosts.guest(fresh) as guest:
        child = guest.begin("gpu-setup", "apply", "--yes", *route.arguments)
        for done, step in pairwise(usual.steps):
            _await(guest, child, done, "done")
            held = [pid for pid in guest.pids() if UNIT in _cgroup(pid)]
            for pid in held:
                os.kill(pid, signal.SIGSTOP)
            last = guest.journal()[-1]
            # a step that takes no time may be over before it can be held: then the disk of the step before it serves
            in_time = (last["step"], last["phase"]) == (done, "done")
            before[step] = guest.snapshot() if in_time else before[done]
            for pid in held:
                os.kill(pid, signal.SIGCONT)
        child.wait(120)
    return usual._replace(before=before)


def moments(steps: tuple[str, ...], seed: int) -> tuple[Moment, ...]:
    """Between every two steps; in each step three random moments, with a different victim each; a power cut in each."""
    chance = random.Random(seed)
    found = []
    for step in steps:
        found += [
            Moment(step, "inside", round(chance.random(), 3), victim)
            for victim in ("tool", "packaging", "everything", "power")
        ]
        if step != steps[-1]:
            found.append(Moment(step, "after", 0.0, "everything"))
    return tuple(found)


def strike(hosts: Hosts, fresh: Snapshot, route: Route, moment: Moment, expected: Usual) -> Hit:
    """One machine, one blow, one more run; compared with the run that nobody disturbed.

    The run that is hit starts on the fresh machine, or where `expected` has its disk, with the steps before it done.
    """
    began = time.monotonic()
    disk = expected.before.get(moment.step, fresh)
    try:
        hit = _strike(hosts, disk, route, moment, expected, began)
    except NeverCame:
        # from that disk on there was nothing to do in this step (a power cut does what a reload would)
        disk = fresh
        hit = _strike(hosts, disk, route, moment, expected, began)
    for _ in range(SOONER):
        if hit.killed:
            break
        # the last step was quicker than usual, and the run was over: once more, in half the time
        moment = moment._replace(part=round(moment.part / 2, 3))
        hit = _strike(hosts, disk, route, moment, expected, began)
    return hit


class NeverCame(AssertionError):
    """The moment did not come: the run ended before it."""


def _strike(hosts: Hosts, disk: Snapshot, route: Route, moment: Moment, expected: Usual, began: float) -> Hit:
    with hosts.guest(disk) as guest:
        known = len(guest.journal())
        child = guest.begin("gpu-setup", "apply", "--yes", *route.arguments)
        try:
            wait = expected.seconds[moment.step] * moment.part if moment.where == "inside" else 0.0
            _await(guest, child, moment.step, "begin" if moment.where == "inside" else "done", known)
            time.sleep(wait)
            killed = _end(guest, moment.victim)
            landed = _last_lines(guest)
        finally:
            with suppress(subprocess.TimeoutExpired):
                child.wait(120)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if moment.victim == "power":
            guest.start()
        again = guest.tool("apply", "--yes", *route.arguments)
        differs = state.differences(expected.end, state.of(guest))
        if again.rc not in ANSWERED:
            differs.insert(0, json.dumps(again.document.get("errors")))
        return Hit(moment, landed, killed, again.rc, tuple(differs[:12]), round(time.monotonic() - began, 2))


def _await(guest: Guest, child: subprocess.Popen[bytes], step: str, phase: str, known: int = 0) -> None:
    """Watch the journal's file until this line follows the `known` ones: noticed within two milliseconds or so."""
    file = guest.root / STATE / "journal.jsonl"
    mark = f'"phase":"{phase}","step":"{step}"'.encode()
    until = time.monotonic() + 120
    size = 0
    while time.monotonic() < until:
        with suppress(OSError):
            if (now := file.stat().st_size) != size:
                size = now
                if any(mark in line for line in file.read_bytes().splitlines()[known:]):
                    return
        if child.poll() is not None:
            raise NeverCame(f"it ended before {step} was {phase}")
        time.sleep(0.002)
    raise AssertionError(f"{step} was never {phase}")


def _end(guest: Guest, victim: str) -> tuple[str, ...]:
    """SIGKILL to the victim's processes; their names. Where apt is not at work, what there is of the tool dies."""
    if victim == "power":
        guest.kill()
        return ("power",)
    own = [(pid, _name(pid)) for pid in guest.pids() if UNIT in _cgroup(pid)]
    packaging = [(pid, name) for pid, name in own if name in PACKAGING or name.endswith((".postinst", ".prerm"))]
    tool = [(pid, name) for pid, name in own if name.startswith("python")][:1]
    chosen = {"tool": tool, "packaging": packaging or tool, "everything": own}[victim]
    for pid, _ in chosen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return tuple(name for _, name in chosen)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _last_lines(guest: Guest) -> str:
    entries: list[dict[str, Any]] = guest.journal()
    return f"{entries[-1]['phase']} {entries[-1]['step']}" if entries else "nothing"
