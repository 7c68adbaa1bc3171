"""The owner of containers and secret files, and their removal: at their end, and where gpu-setup was killed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from containers.connection import PATIENCE, engine_errors

if TYPE_CHECKING:
    from docker import APIClient

OWNER_LABEL = "gpu-setup.owner"
SECRET_FILE = "container-secret-"


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


def remove_orphans(client: APIClient, private: Path) -> int:
    """Remove containers and secret files whose gpu-setup was killed; returns the number of removed containers.

    Containers of another machine on a shared engine are kept; the engine itself removes those of an earlier boot. A
    secret file is removed in any case: where it is mounted, it can still be read.
    """
    for file in private.glob(f"{SECRET_FILE}*"):
        if not _is_alive(file.name.removeprefix(SECRET_FILE)):
            file.unlink(missing_ok=True)
    with engine_errors("The engine cannot list its containers"):
        found = client.containers(all=True, filters={"label": OWNER_LABEL})
    owners = {each["Id"]: (each.get("Labels") or {}).get(OWNER_LABEL, "") for each in found}
    orphans = [name for name, whose in owners.items() if whose.endswith(f"-{_machine_id()}") and not _is_alive(whose)]
    for name in orphans:
        remove_container(client, name)
    return len(orphans)


def _is_alive(whose: str) -> bool:
    """Whether the process of this label or file name still runs on this machine."""
    pid, started, here = [*whose.split("-"), "", "", ""][:3]
    return pid.isdecimal() and here == _machine_id() and _start_time(int(pid)) == started


def remove_container(client: APIClient, name: str) -> None:
    """Stop and remove a container; it is no error if it does not exist."""
    from docker.errors import APIError, NotFound

    limit = time.monotonic() + PATIENCE
    with engine_errors("The container could not be removed"):
        while True:
            try:
                client.remove_container(name, force=True, v=True)
                return
            except NotFound:
                return
            except APIError as error:
                # the engine is removing it already, because it ended: wait until it is gone
                if error.status_code != 409 or time.monotonic() > limit:
                    raise
            time.sleep(0.05)
