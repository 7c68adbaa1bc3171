"""The owner of containers and token files, and the removal of those whose gpu-setup was killed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from containers.model import Engine
from machine.local import Machine

OWNER_LABEL = "gpu-setup.owner"
TOKEN_FILE = "hub-token-"


def owner() -> str:
    """This process, distinct from a later one with the same PID and from one on another machine with the same engine:
    PID, start time, and a digest of the boot and the PID namespace.
    """
    return f"{os.getpid()}-{_start_time(os.getpid())}-{_machine_id()}"


def _machine_id() -> str:
    """A digest of this boot of this machine and this PID namespace."""
    try:
        start, space = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"
    return hashlib.sha256(f"{start}{space}".encode()).hexdigest()[:12]


def _start_time(pid: int) -> str | None:
    try:
        # proc(5): the 22nd field of stat; the second, in brackets, may hold blanks
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def remove_orphans(engine: Engine, machine: Machine, private: Path) -> int:
    """Remove containers and token files whose gpu-setup was killed; returns the number of removed containers.

    Containers of another machine on a shared engine are kept; the engine itself removes those of an earlier boot. A
    token file is removed in any case: where it is mounted, it can still be read.
    """
    for file in private.glob(f"{TOKEN_FILE}*"):
        if not _is_alive(file.name.removeprefix(TOKEN_FILE)):
            file.unlink(missing_ok=True)
    listing = machine.run((engine.program, "ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}"), timeout=30)
    there = listing.stdout.split() if listing.ok else []
    if not there:
        return 0
    # podman's `ps` cannot print one label
    wanted = '{{.Id}} {{index .Config.Labels "' + OWNER_LABEL + '"}}'
    owners = machine.run((engine.program, "container", "inspect", "--format", wanted, *there), timeout=30)
    orphans = []
    for line in owners.stdout.splitlines():
        container, _, whose = line.partition(" ")
        if whose.endswith(f"-{_machine_id()}") and not _is_alive(whose):
            orphans.append(container)
    if orphans:
        machine.run((engine.program, "rm", "--force", *orphans), timeout=60)
    return len(orphans)


def _is_alive(whose: str) -> bool:
    """Whether the process of this label or file name still runs on this machine."""
    pid, started, here = [*whose.split("-"), "", "", ""][:3]
    return pid.isdecimal() and here == _machine_id() and _start_time(int(pid)) == started
