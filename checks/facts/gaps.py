"""What could not be read, and the reads that note it: absence is a fact (None or empty), everything else a gap."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

from checks.facts.forms import KERNEL, answer_damage, damage, link_damage
from checks.facts.host import Unread
from machine.local import ABSENT, DENIED, SMALL_FILE, TIMED_OUT, Machine, Outcome, Unreadable

T = TypeVar("T")
# what readlink(2) says of a path that is no link, and a recording of one that was not recorded as a link
_NO_LINK = "Invalid argument"
_NOT_RECORDED = ("not a symbolic link", "not recorded")


class Gaps:
    """Collects what the probes could not read; safe to use from several threads."""

    def __init__(self) -> None:
        self._found: list[Unread] = []

    def note(self, source: str, reason: str) -> None:
        self._found.append(Unread(source=source, reason=reason))

    def failed(self, error: Unreadable) -> None:
        """Note what could not be read, except where it is only absent."""
        if error.reason != ABSENT:
            self.note(error.path, f"{error.reason}: {error.detail}" if error.detail else error.reason)

    def all(self) -> tuple[Unread, ...]:
        return tuple(sorted(dict.fromkeys(self._found), key=lambda gap: (gap.source, gap.reason)))


def raw(machine: Machine, path: str, gaps: Gaps, limit: int = SMALL_FILE) -> bytes | None:
    """The file's bytes; None when it is absent, and also, with a gap noted, when it cannot be read."""
    try:
        return machine.read(path, limit)
    except Unreadable as error:
        gaps.failed(error)
        return None


def text(machine: Machine, path: str, gaps: Gaps, limit: int = SMALL_FILE) -> str | None:
    """The same as text; bytes that are not UTF-8 become the replacement character.

    Damage is noted as a gap. A damaged file of the kernel is not used at all: half a number is another number.
    """
    data = raw(machine, path, gaps, limit)
    if data is None:
        return None
    why = damage(path, data)
    if why is not None:
        gaps.note(path, why)
    return None if why is not None and path.startswith(KERNEL) else data.decode("utf-8", "replace")


def word(machine: Machine, path: str, gaps: Gaps) -> str | None:
    """A one-line file without the white space around it; None also when it is empty."""
    found = text(machine, path, gaps)
    return (found.strip() or None) if found else None


def whole_number(machine: Machine, path: str, gaps: Gaps) -> int | None:
    """The one whole number in a file, decimal or 0x; everything else in it is noted as damage."""
    found = text(machine, path, gaps)
    if found is None:
        return None
    if re.fullmatch(r"-?(?:0|[1-9][0-9]{0,18}|0x[0-9a-f]{1,16})\n", found):
        return int(found, 0)
    gaps.note(path, "damaged: it is not a whole number")
    return None


def names(machine: Machine, path: str, gaps: Gaps) -> tuple[str, ...] | None:
    """The names in a folder, empty when the folder is absent; None, with a gap noted, when it cannot be listed."""
    try:
        return machine.list(path)
    except Unreadable as error:
        if error.reason == ABSENT:
            return ()
        gaps.failed(error)
        return None


def target(machine: Machine, path: str, gaps: Gaps) -> str | None:
    """Where the link points, as written; None when there is no link. In sysfs only a link may be there."""
    try:
        found = machine.link(path)
    except Unreadable as error:
        no_link = error.detail in _NOT_RECORDED or (error.detail == _NO_LINK and not path.startswith(KERNEL))
        if error.reason == DENIED or not no_link:
            gaps.failed(error)
        return None
    if (why := link_damage(path, found)) is not None:
        gaps.note(path, why)
        return None
    return found


def output(outcome: Outcome, source: str, gaps: Gaps) -> str:
    """What the program printed; damage in it is noted as a gap, and that the program did not come to its end."""
    if (why := unfinished(outcome) or answer_damage(outcome.stdout)) is not None:
        gaps.note(source, why)
    return outcome.stdout


def unfinished(outcome: Outcome) -> str | None:
    """Why the program did not come to its end; None where it did, or never started."""
    if outcome.rc is not None and outcome.rc < 0:
        return f"killed by signal {-outcome.rc}"
    return TIMED_OUT if outcome.problem == TIMED_OUT else None


def exists(machine: Machine, path: str) -> bool:
    return machine.access(path, os.F_OK) is not None


def on_path(machine: Machine, program: str) -> str | None:
    """The program that this session's PATH finds."""
    for folder in machine.session().environ.get("PATH", "").split(":"):
        if folder.startswith("/") and machine.access(f"{folder}/{program}", os.X_OK):
            return f"{folder.rstrip('/')}/{program}"
    return None


def run_probe(source: str, probe: Callable[[], T], otherwise: T, gaps: Gaps) -> T:
    """The probe's facts. A probe that crashes loses only its own facts: the crash is noted, the others still run."""
    try:
        return probe()
    except Unreadable as error:
        gaps.note(error.path, error.reason)
    except AssertionError:
        # a strict recording refuses what was not recorded: that must reach the test
        raise
    except Exception as error:
        gaps.note(source, f"crashed: {type(error).__name__}: {error}")
    return otherwise
