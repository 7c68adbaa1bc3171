"""The packages in a training environment: which, whether complete, and the remains of a killed pip."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from harness.environment.lock_file import Lock, normalised
from machine.local import Machine, Unreadable

PATIENCE = 10.0


def installed_packages(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Version by package, and the broken packages: with a missing or truncated file, or with two entries.

    Reads each RECORD and compares sizes; byte code and files without a size are skipped. 30,000 files: about 0.1 s.
    """
    found: dict[str, str] = {}
    broken: set[str] = set()
    for info in _infos(folder):
        name, version = _name_and_version(info)
        if name in found or not _intact(info):
            broken.add(name)
        found[name] = version
    return found, broken


def missing_packages(folder: Path, lock: Lock, torch_builds: Collection[str]) -> set[str]:
    """The packages of the lock (and torch) that are missing, broken, or have another version (torch: another build)."""
    found, broken = installed_packages(folder)
    missing = {
        name
        for name, version in lock.packages.items()
        if name in broken or found.get(name, "").split("+")[0] != version.split("+")[0]
    }
    return missing if found.get("torch") in torch_builds and "torch" not in broken else {*missing, "torch"}


def present_packages(folder: Path) -> set[str]:
    """The names of the packages that have an entry, complete or not: a quick count while pip works."""
    return {_name_and_version(info)[0] for info in _infos(folder)}


def remove_broken(folder: Path, broken: Iterable[str]) -> None:
    """Remove the entries of the packages `broken`, and what pip moved aside and never moved back (`~name`).

    A killed pip leaves packages without their RECORD, which pip refuses to replace; without any entry it overwrites the
    old files.
    """
    names = set(broken)
    for info in list(_infos(folder)):
        if _name_and_version(info)[0] in names:
            shutil.rmtree(info, ignore_errors=True)
    for aside in folder.glob("lib/python3*/site-packages/~*"):
        shutil.rmtree(aside, ignore_errors=True)


def end_orphaned_pips(machine: Machine, python: Path) -> int:
    """End each pip of a killed gpu-setup that still runs in the environment of `python`; returns their number.

    pip has its own process group, so it survives a SIGKILL of its parent, and would write at the same time as we do.
    """
    mine = f"{python}\0-m\0pip\0".encode()
    found = []
    for name in machine.list("/proc"):
        if name.isdecimal():
            try:
                command = machine.read(f"/proc/{name}/cmdline")
            except Unreadable:
                continue
            if command.startswith(mine):
                found.append(int(name))
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            _send(process, sign)
        limit = time.monotonic() + PATIENCE
        while any(_send(process, 0) for process in found) and time.monotonic() < limit:
            time.sleep(0.05)
    return len(found)


def _send(process: int, sign: int) -> bool:
    try:
        os.kill(process, sign)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _infos(folder: Path) -> Iterable[Path]:
    return sorted(folder.glob("lib/python3*/site-packages/*.dist-info"))


def _name_and_version(info: Path) -> tuple[str, str]:
    name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
    return normalised(name), version


def _intact(info: Path) -> bool:
    site = info.parent
    try:
        with (info / "RECORD").open(newline="", encoding="utf-8") as record:
            rows = list(csv.reader(record))
            return bool(rows) and all(os.stat(site / path).st_size == int(size) for path, _, size in rows if size)
    except (OSError, ValueError, csv.Error):
        return False
