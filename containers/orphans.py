"""Whose a container and a token file are, and the removal of those whose gpu-setup was killed and could not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from containers.model import Engine
from machine.local import Machine

OWNER_LABEL = "gpu-setup.owner"
TOKEN_FILE = "hub-token-"


def owner() -> str:
    """This process, told apart from a later one with the same number, and from one of another machine that uses the
    same engine: pid, time of start, and a digest of where that pid means anything."""
    return f"{os.getpid()}-{_started(os.getpid())}-{_here()}"


def _here() -> str:
    """This start of this machine, and this namespace of pids."""
    try:
        start, space = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
    return hashlib.sha256(f"{start}{space}".encode()).hexdigest()[:12]


def _started(pid: int) -> str | None:
    try:
        # proc(5): the 22nd field of stat; the second, in brackets, may hold blanks
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def remove_left_behind(engine: Engine, machine: Machine, private: Path) -> int:
    """Remove containers and token files whose gpu-setup was killed and could not; returns how many containers.

    Containers of another machine, on an engine that both use, are not judged; of an earlier start there are none, for
    the engine removes them itself. A token file is removed all the same: one that is mounted stays readable there.
    """
    for file in private.glob(f"{TOKEN_FILE}*"):
        if not _lives(file.name.removeprefix(TOKEN_FILE)):
            file.unlink(missing_ok=True)
    listing = machine.run((engine.program, "ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}"), timeout=30)
    there = listing.stdout.split() if listing.ok else []
    if not there:
        return 0
    # a `ps` of podman's has no word for one label
    wanted = '{{.Id}} {{index .Config.Labels "' + OWNER_LABEL + '"}}'
    owners = machine.run((engine.program, "container", "inspect", "--format", wanted, *there), timeout=30)
    gone = []
    for line in owners.stdout.splitlines():
        container, _, whose = line.partition(" ")
        if whose.endswith(f"-{_here()}") and not _lives(whose):
            gone.append(container)
    if gone:
        machine.run((engine.program, "rm", "--force", *gone), timeout=60)
    return len(gone)


def _lives(whose: str) -> bool:
    """Whether the process of this label or file name is here, and still the one that wrote it."""
    pid, started, here = [*whose.split("-"), "", "", ""][:3]
    return pid.isdecimal() and here == _here() and _started(int(pid)) == started
