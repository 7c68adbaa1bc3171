"""The state of a machine that is compared: packages, marks, holds, groups, units, and every changed file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from provision.system import dpkg
from tests.lab.provision.hosts import Guest
from tests.provision.hosts import Folder

# Files that differ between two runs that did the same. A pattern of the path, and why.
IGNORED = (
    (r"^var/lib/gpu-setup/", "the tool's own journal, logs and kept files: one more run writes more of them"),
    (r"^usr/local/lib/gpu-setup/", "root's copy of the tool stays for the way back"),
    (r"^var/log/|^var/lib/systemd/|^var/lib/dbus/|^etc/machine-id$", "logs, clocks and seeds of the running system"),
    (
        r"^var/cache/|^var/lib/apt/(lists|periodic|mirrors)/|^etc/ld\.so\.cache$",
        "downloads, package lists and their times; what is made anew from the libraries",
    ),
    (
        r"^var/lib/(dpkg|apt)/(status|available|info/format|triggers/.*|extended_states|[^/]*(-old|lock\w*(-frontend)?))$",
        "compared as packages; dpkg's last copy of that; locks",
    ),
    (r"^(var/)?(tmp|run|proc|sys|dev|root)/|^home/ada/\.(cache|local)/", "not part of the system's state"),
    (r"^etc/(group|gshadow|passwd|shadow|subuid|subgid)-?$", "compared as groups and people"),
    (r"(.*/)?__pycache__/|.*\.pyc$", "compiled by whatever ran"),
)
_IGNORED = re.compile("|".join(pattern for pattern, _ in IGNORED))


class State(NamedTuple):
    """`packages`: name → version, selection and state; `files`: those that are not as on the fresh machine."""

    packages: dict[str, str]
    automatic: frozenset[str]
    holds: frozenset[str]
    groups: dict[str, str]
    units: dict[str, str]
    files: dict[str, str]


def of(guest: Guest) -> State:
    """The guest's state, read from its disk; it may be on or off."""
    database = dpkg.read(Folder(guest.root))
    packages = {
        name: f"{record.version} {record.want} {record.flag} {record.state}"
        for name, record in database.records.items()
        # what was removed and not purged: settings may stay, as they should
        if record.state not in ("not-installed", "config-files")
    }
    people = (guest.root / "etc/group").read_text().splitlines()
    groups = {line.split(":")[0]: ",".join(sorted(line.split(":")[3].split(","))) for line in people}
    return State(
        packages,
        frozenset(name for name in database.auto if name in packages),
        database.held_packages(),
        groups,
        _units(guest.root),
        _files(guest),
    )


def _units(root: Path) -> dict[str, str]:
    """What systemd starts: the links below /etc/systemd/system."""
    top = root / "etc/systemd/system"
    return {str(place.relative_to(top)): os.readlink(place) for place in sorted(top.rglob("*")) if place.is_symlink()}


def _files(guest: Guest) -> dict[str, str]:
    """What is not as on the fresh machine: path → fingerprint, `gone` for what was there and is not."""
    changed = (guest.upper, *guest.snapshot_of.changed)
    paths = {
        str(place.relative_to(layer))
        for layer in changed
        for place in layer.rglob("*")
        if not place.is_dir() or place.is_symlink()
    }
    found = {}
    for path in sorted(paths):
        if _IGNORED.search(path):
            continue
        now = _fingerprint(guest.root / path)
        before = next(
            (_fingerprint(layer / path) for layer in guest.snapshot_of.fresh if os.path.lexists(layer / path)), "gone"
        )
        if now != before:
            found[path] = now
    return found


def _fingerprint(place: Path) -> str:
    """Mode, owner and content; a file's times are not compared."""
    if not os.path.lexists(place):
        return "gone"
    entry = place.lstat()
    kind = f"{stat.S_IMODE(entry.st_mode):o} {entry.st_uid}:{entry.st_gid}"
    if place.is_symlink():
        return f"link to {os.readlink(place)}"
    return f"{kind} {hashlib.sha256(place.read_bytes()).hexdigest()[:16]}" if place.is_file() else kind


def differences(before: State, after: State) -> list[str]:
    """What is not the same, each in a line; empty when all is."""
    found = []
    for name in State._fields:
        one, two = getattr(before, name), getattr(after, name)
        if isinstance(one, frozenset):
            found += [f"{name}: -{each}" for each in sorted(one - two)] + [
                f"{name}: +{each}" for each in sorted(two - one)
            ]
        else:
            found += [
                f"{name}: {key}: {one.get(key)} → {two.get(key)}"
                for key in sorted(one.keys() | two.keys())
                if one.get(key) != two.get(key)
            ]
    return found
