"""What could not be read, and the reads that note it: absence is a fact (None or empty), everything else a gap."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from checks.facts.host import Unread
from machine.local import ABSENT, SMALL_FILE, Machine, Unreadable

T = TypeVar("T")


class Gaps:
    """Collects what the probes could not read; safe to use from several threads."""

    def __init__(self) -> None:
        self._found: list[Unread] = []

    def note(self, source: str, reason: str) -> None:
        self._found.append(Unread(source=source, reason=reason))

    def all(self) -> tuple[Unread, ...]:
        return tuple(sorted(dict.fromkeys(self._found), key=lambda gap: (gap.source, gap.reason)))


def raw(machine: Machine, path: str, gaps: Gaps, limit: int = SMALL_FILE) -> bytes | None:
    """The file's bytes; None when it is absent, and also, with a gap noted, when it cannot be read."""
    try:
        return machine.read(path, limit)
    except Unreadable as error:
        if error.reason != ABSENT:
            gaps.note(path, f"{error.reason}: {error.detail}" if error.detail else error.reason)
        return None


def text(machine: Machine, path: str, gaps: Gaps, limit: int = SMALL_FILE) -> str | None:
    """The same as text; bytes that are not UTF-8 become the replacement character."""
    data = raw(machine, path, gaps, limit)
    return None if data is None else data.decode("utf-8", "replace")


def word(machine: Machine, path: str, gaps: Gaps) -> str | None:
    """A one-line file without the white space around it; None also when it is empty."""
    found = text(machine, path, gaps)
    return (found.strip() or None) if found else None


def whole_number(machine: Machine, path: str, gaps: Gaps) -> int | None:
    """The one whole number in a file, decimal or 0x."""
    found = word(machine, path, gaps)
    try:
        return int(found, 0) if found and len(found) < 40 else None
    except ValueError:
        return None


def names(machine: Machine, path: str, gaps: Gaps) -> tuple[str, ...] | None:
    """The names in a folder, empty when the folder is absent; None, with a gap noted, when it cannot be listed."""
    try:
        return machine.list(path)
    except Unreadable as error:
        if error.reason == ABSENT:
            return ()
        gaps.note(path, f"{error.reason}: {error.detail}" if error.detail else error.reason)
        return None


def target(machine: Machine, path: str) -> str | None:
    """Where the link points, as written; None when there is no link."""
    try:
        return machine.link(path)
    except Unreadable:
        return None


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
