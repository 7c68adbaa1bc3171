"""Search the kernel log since boot."""

from __future__ import annotations

import re
from collections.abc import Iterable

from checks.facts.host import LOG_FLOOD, Host
from checks.model import Unknown
from checks.rules.finding import cannot_determine
from checks.rules.session import in_container

SOURCE = "kernel log since boot"
# a kernel line has at most a thousand characters (LOG_LINE_MAX); a recording may hold anything
LONGEST = 1000
QUOTED = 300


def cannot_read(host: Host, what: str) -> Unknown:
    return cannot_determine(host, what, ("journalctl", "dmesg", "kernel log", "kernel-log"), how_to_read(host))


def how_to_read(host: Host) -> str:
    if in_container(host):
        return "It is not visible inside a container: run the doctor on the container's host."
    return "To make the kernel log readable: sudo usermod -aG adm $USER and log in again, or run the doctor with sudo."


def matching_lines(log: Iterable[str], word: str, pattern: str) -> list[tuple[str, re.Match[str]]]:
    """Lines that hold `word` (a cheap first test, lower case) and match `pattern`; re keeps what it has compiled."""
    found = []
    for line in log:
        short = line[:LONGEST]
        if word in short.lower() and (match := re.search(pattern, short)):
            found.append((short[:QUOTED], match))
    return found


def quote(lines: Iterable[str], most: int = 3) -> list[tuple[str, object]]:
    """The last few lines as evidence, and how many there were."""
    every = list(lines)
    shown: list[tuple[str, object]] = [(SOURCE, line.strip()) for line in every[-most:]]
    if len(every) > most:
        shown.append((SOURCE, counted(len(every))))
    return shown


def counted(number: int) -> str:
    """How many such lines there were; of a flood the facts keep only some."""
    return f"({number}{' or more' if number >= LOG_FLOOD else ''} such lines)"


def times(number: int) -> str:
    return f"{number}{' or more' if number >= LOG_FLOOD else ''} times"


def parts(line: str) -> tuple[str, str]:
    """The time in brackets, and the message."""
    time, bracket, message = line.partition("] ")
    timed = bracket and time.startswith("[") and not time.startswith(("[drm", "[TTM"))
    return (f"{time}]", message.strip()) if timed else ("", line)
