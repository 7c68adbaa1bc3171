"""What killed tools of the system leave behind: files under passing names, which nobody takes away any more."""

from __future__ import annotations

import re
from pathlib import Path

from checks.facts.apt import lock_holder
from checks.facts.gaps import Gaps
from machine.local import Machine
from provision.system import system_files

ACCOUNTS, APT, PROCESSES = "/etc", "/var/lib/apt", "/proc"
# To lock FILE, shadow-utils writes its own number (and a NUL) to FILE.NUMBER, links that to FILE.lock and takes the
# first name away; it writes FILE anew as FILE+ and renames it (its lib/commonio.c). A lock whose owner is gone is
# broken by the next who wants it; the other two names stay for ever.
_ACCOUNT = re.compile(r"(passwd|group|shadow|gshadow|subuid|subgid)(?:\.(lock|\d+)|(\+))")
# apt writes a file anew under its name and six signs of mkstemp's (its fileutl.cc), while it holds dpkg's lock
_STATES = re.compile(r"extended_states\.[A-Za-z0-9]{6}")


def remove_stale(machine: Machine) -> tuple[str, ...]:
    """Take away what belongs to no living process, and say which paths; what a living one holds is left alone."""
    left = [*account_files(ACCOUNTS, PROCESSES), *([] if lock_holder(machine, Gaps()) else apt_files(APT))]
    for path in left:
        system_files.remove(path)
    return tuple(left)


def account_files(folder: str, processes: str) -> tuple[str, ...]:
    names = _names(folder, _ACCOUNT)
    held = {name for name in names if not name.endswith("+") and _owned(Path(folder, name), Path(processes))}
    locked = {name.partition(".")[0] for name in held}
    return tuple(
        f"{folder}/{name}" for name in names if name not in held and not (name.endswith("+") and name[:-1] in locked)
    )


def apt_files(folder: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in _names(folder, _STATES))


def _names(folder: str, pattern: re.Pattern[str]) -> list[str]:
    place = Path(folder)
    return sorted(path.name for path in place.iterdir() if pattern.fullmatch(path.name)) if place.is_dir() else []


def _owned(path: Path, processes: Path) -> bool:
    """Whether a living process made the file. What names no process (vipw's lock, say) is a person's to judge."""
    try:
        number = path.read_bytes().strip(b"\0\n ").decode("ascii", "replace")
    except OSError:
        return True
    if not number and path.suffix != ".lock":
        number = path.suffix[1:]
    return not number.isdecimal() or (processes / number).exists()
