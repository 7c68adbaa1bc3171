"""apt-get as a child process: one way to call it, its progress as events, its failures as problems."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from checks.facts.apt_sources import owner, read_sources
from checks.facts.gaps import Gaps
from machine.events import Event
from machine.local import Machine, Outcome
from provision.apply_context import ApplyContext
from provision.system.apt_errors import apt_problem, failing_addresses, is_lists_locked
from provision.system.apt_simulation import AptChange, parse_simulation
from provision.system.system_files import write

PATIENCE = 600
# No prompts, no answers from a terminal, no restarts by needrestart; settings that a person changed are kept.
ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
OPTIONS = (
    "-q",
    "-o",
    f"DPkg::Lock::Timeout={PATIENCE}",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "APT::Color=0",
    "-o",
    "APT::Get::AutomaticRemove=false",
)
KEEP_CONFIGURATION = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
MISSING_SETTINGS = ("-o", "Dpkg::Options::=--force-confmiss")
LISTS = "/var/lib/apt/lists"
# apt closes its status descriptor for dpkg's scripts, so it cannot be one that these write to
WITH_STATUS = "import os, sys; os.dup2(1, 3); os.execvp(sys.argv[1], sys.argv[1:])"
FRESH_SECONDS = 3600
# owners of sources whose failure does not affect what this tool installs
STRANGERS = ("ppa", "other")


class AptProgress(NamedTuple):
    """One line of APT::Status-Fd: `fetch` or `work`, per cent, apt's text."""

    phase: str
    percent: float
    text: str


def parse_progress(line: str) -> AptProgress | None:
    """`dlstatus:1:20.5:Retrieving file 1 of 5` and `pmstatus:nvidia-utils:40.0:Installing nvidia-utils (amd64)`."""
    # on the same pipe as apt's output, where the line before may have no line end
    match = re.search(r"(dlstatus|pmstatus):([^:]*(?::[a-z0-9]+)?):([0-9]{1,3}(?:\.[0-9]+)?):(.*)", line)
    if match is None:
        return None
    return AptProgress("fetch" if match[1] == "dlstatus" else "work", min(float(match[3]), 100.0), match[4].strip())


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def parse_need(line: str) -> int | None:
    """`Need to get 12.3 MB/45.6 MB of archives.` → 12300000: what is still to download, before the slash."""
    match = re.match(r"Need to get ([0-9][0-9.,]*) ([kMG]?)B[/ ]", line)
    return int(float(match[1].replace(",", "")) * _UNITS[match[2]]) if match else None


class ProgressReporter:
    """Turns apt's lines into events of one stage: bytes while it fetches, per cent while it installs."""

    def __init__(self, context: ApplyContext, clock: Callable[[], float] = time.monotonic) -> None:
        self._context, self._clock = context, clock
        self._total: int | None = None
        self._begun = {"fetch": clock()}
        self.lines: list[str] = []

    def line(self, line: str) -> None:
        found = parse_progress(line)
        if found is None:
            self._total = parse_need(line) or self._total
            if not re.search(r"(?:pmerror|pmconffile|media-change):", line):
                self.lines = [*self.lines[-199:], line]
            if holder := re.search(r"It is held by process ([0-9]+)(?: \(([^)]*)\))?", line):
                who = f"{holder[2] or 'a process'} ({holder[1]})"
                self._say(
                    "note", f"apt is in use by {who}: waiting up to {PATIENCE // 60} minutes until it has finished"
                )
            return
        moment = self._clock()
        spent = moment - self._begun.setdefault(found.phase, moment)
        left = spent * (100 - found.percent) / found.percent if found.percent >= 2 and spent > 1 else None
        if found.phase == "fetch" and self._total:
            done = self._total * found.percent / 100
            self._context.emit(
                Event("progress", self._context.stage, found.text, done, float(self._total), "bytes", left)
            )
        else:
            self._context.emit(Event("progress", self._context.stage, found.text, found.percent, 100.0, "%", left))

    def _say(self, kind: str, text: str) -> None:
        self._context.emit(Event(kind, self._context.stage, text))


def call(context: ApplyContext, argv: Sequence[str]) -> Outcome:
    """Run an apt-get or dpkg command to the end; the outcome's stdout holds its last lines, progress left out.

    Waits for the lock of the package lists too, for which apt has no option.
    """
    until = time.monotonic() + PATIENCE
    reported = False
    while True:
        teller = ProgressReporter(context)
        outcome = context.machine.stream(
            argv, teller.line, env={**ENVIRONMENT, **context.environ}, cwd="/", log=context.log
        )
        outcome = outcome._replace(stdout="\n".join(teller.lines) or outcome.stdout)
        if outcome.ok or not is_lists_locked(outcome.stdout) or time.monotonic() > until:
            return outcome
        if not reported:
            reported = True
            text = f"apt's lists are in use: waiting up to {PATIENCE // 60} minutes"
            context.emit(Event("note", context.stage, text))
        time.sleep(2)


def simulate(context: ApplyContext, arguments: Sequence[str]) -> AptChange:
    """What apt-get would do with these arguments, according to the current lists. Raises Problem when it fails."""
    argv = ("apt-get", "-s", *OPTIONS, "-o", "Debug::NoLocking=1", "--yes", *arguments)
    outcome = context.machine.run(argv, timeout=120, env={**ENVIRONMENT, **context.environ})
    if not outcome.ok:
        raise apt_problem(argv, outcome, "apt's simulation")
    return parse_simulation(outcome.stdout)


def transaction(context: ApplyContext, arguments: Sequence[str]) -> None:
    """One apt-get run that changes packages, with progress. Raises Problem with cause and next step."""
    argv = ("apt-get", *OPTIONS, *KEEP_CONFIGURATION, "-o", "APT::Status-Fd=3", "--yes", *arguments)
    outcome = call(context, (sys.executable, "-I", "-S", "-c", WITH_STATUS, *argv))._replace(argv=argv)
    if not outcome.ok:
        raise apt_problem(argv, outcome, context.title)


def update(context: ApplyContext, file: str | None = None) -> None:
    """Update the package lists: all of them, or those of one source file. Any source that fails is an error."""
    only = (
        ()
        if file is None
        else ("-o", f"Dir::Etc::SourceList={file}", "-o", "Dir::Etc::SourceParts=-", "-o", "APT::Get::List-Cleanup=0")
    )
    argv = ("apt-get", *OPTIONS, *only, "update", "--error-on=any")
    outcome = call(context, argv)
    if outcome.ok:
        if file is None:
            write(str(context.lists_stamp), b"", 0o644)
        return
    failing = failing_addresses(outcome.stdout)
    own = {owner(address) for address in failing}
    known = {source.owner for source in read_sources(context.machine, Gaps()) or ()}
    if file is None and failing and own <= set(STRANGERS) and "ubuntu" in known:
        text = f"{', '.join(failing)} could not be read; the plan installs nothing from there"
        context.emit(Event("warning", context.stage, text))
        return
    raise apt_problem(argv, outcome, context.title)


def are_lists_stale(machine: Machine, oldest: float, stamp: Path | None = None) -> bool:
    """Whether the lists are older than this many seconds, or some enabled source has none.

    `stamp` is touched by each of our own full updates; without one the folder's time is used, which a partial update
    changes too.
    """
    try:
        names = os.listdir(LISTS)
        read = os.stat(stamp or LISTS).st_mtime
    except OSError:
        return True
    sources = read_sources(machine, Gaps()) or ()
    return abs(time.time() - read) > oldest or not all(has_lists(source.uri, names) for source in sources)


def has_lists(uri: str, names: Sequence[str]) -> bool:
    """Whether apt's lists hold the Release file of this address.

    Names as apt-pkg/contrib/strutl.cc (URItoFileName) makes them: scheme and password off, / to _.
    """
    rest = uri.split("://", 1)[-1].rsplit("@", 1)[-1].rstrip("/")
    quoted = "".join(f"%{ord(c):02x}" if c in '\\|{}[]<>"^~_=!@#$%&*' else c for c in rest)
    begin = quoted.replace("/", "_")
    return any(name.startswith(begin) and name.endswith("Release") for name in names)
