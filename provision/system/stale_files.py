"""Stale files of killed system tools: temporary names that no program removes."""

from __future__ import annotations

import re
from pathlib import Path

from checks.facts.apt import lock_holder
from checks.facts.gaps import Gaps
from machine.local import Machine
from provision.system import system_files

ACCOUNTS, APT, PROCESSES = "/etc", "/var/lib/apt", "/proc"
# To lock FILE, shadow-utils writes its PID (and a NUL) to FILE.PID, links that to FILE.lock and removes the first name;
# it writes the new FILE as FILE+ and renames it (its lib/commonio.c). The next program breaks a lock whose owner has
# ended; the other two names are never removed.
_ACCOUNT = re.compile(r"(passwd|group|shadow|gshadow|subuid|subgid)(?:\.(lock|\d+)|(\+))")
# apt writes the new file under its name and six characters of mkstemp's (its fileutl.cc), while it holds dpkg's lock
_STATES = re.compile(r"extended_states\.[A-Za-z0-9]{6}")


def remove_stale(machine: Machine) -> tuple[str, ...]:
    """Remove files that belong to no running process, and return their paths; files of a running process are kept."""
    stale = [*account_files(ACCOUNTS, PROCESSES), *([] if lock_holder(machine, Gaps()) else apt_files(APT))]
    for path in stale:
        system_files.remove(path)
    return tuple(stale)


def account_files(folder: str, processes: str) -> tuple[str, ...]:
    names = _names(folder, _ACCOUNT)
    held = {name for name in names if not name.endswith("+") and _has_owner(Path(folder, name), Path(processes))}
    locked = {name.partition(".")[0] for name in held}
    return tuple(
        f"{folder}/{name}" for name in names if name not in held and not (name.endswith("+") and name[:-1] in locked)
    )


def apt_files(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in _names(folder, _STATES))


def _names(folder: str, pattern: re.Pattern[str]) -> list[str]:
    place = Path(folder)
    return sorted(path.name for path in place.iterdir() if pattern.fullmatch(path.name)) if place.is_dir() else []


def _has_owner(path: Path, processes: Path) -> bool:
    """Whether a running process made the file. A file that names no process (vipw's lock) counts as owned."""
    try:
        number = path.read_bytes().strip(b"\0\n ").decode("ascii", "replace")
    except OSError:
        return True
    if not number and path.suffix != ".lock":
        number = path.suffix[1:]
    return not number.isdecimal() or (processes / number).exists()
