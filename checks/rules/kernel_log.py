"""Search the kernel log since boot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.facts.host import Host
from checks.model import Unknown
from checks.rules.finding import cannot_determine
from checks.rules.session import in_container

SOURCE = "kernel log since boot"
# a kernel line has at most a thousand characters (LOG_LINE_MAX); a recording may hold anything
_LONGEST = 1000
_QUOTED = 300


def cannot_read(host: Host, what: str) -> Unknown:
    remedy = (
        "To make the kernel log readable: sudo usermod -aG adm $USER and log in again, or run the doctor with sudo."
    )
    if in_container(host):
        remedy = "It is not visible inside a container: run the doctor on the container's host."
    return cannot_determine(host, what, ("journalctl", "dmesg", "kernel log", "kernel-log"), remedy)


def matching_lines(log: Iterable[str], word: str, pattern: str) -> list[tuple[str, re.Match[str]]]:
    """Lines that hold `word` (a cheap first test, lower case) and match `pattern`; re keeps what it has compiled."""
    found = []
    for line in log:
        short = line[:_LONGEST]
        if word in short.lower() and (match := re.search(pattern, short)):
            found.append((short[:_QUOTED], match))
    return found


def quote(lines: Iterable[str], most: int = 3) -> list[tuple[str, object]]:
    """The last few lines as evidence, and how many there were."""
    every = list(lines)
    shown: list[tuple[str, object]] = [(SOURCE, line.strip()) for line in every[-most:]]
    if len(every) > most:
        shown.append((SOURCE, f"({len(every)} such lines)"))
    return shown
