"""What an action needs beside itself: the machine, the folders of root's files, the step, and where events go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machine.events import Emit, silent
from machine.local import Machine

# Root's folders. Everyone may read the folder (0755), but not the files that may hold a person's settings (0600).
STATE = Path("/var/lib/gpu-setup")
LIBRARY = Path("/usr/local/lib/gpu-setup")
SYSTEMD = "/run/systemd/system"


class ApplyContext(NamedTuple):
    """`log` is the file for the full output of apt and dpkg; `environ` has the network settings for children (proxies,
    certificates). `systemd`: it is PID 1 here; in a container or a chroot it is not, and services are only enabled.

    `stage` and `title` are the id and the title of the step at work, for events and messages.
    """

    machine: Machine
    emit: Emit = silent
    state: Path = STATE
    log: str | None = None
    environ: Mapping[str, str] = {}
    systemd: bool = False
    stage: str = "apply"
    title: str = ""

    @property
    def backups(self) -> Path:
        return self.state / "backups"

    @property
    def lists_stamp(self) -> Path:
        """Its modification time is that of our last update of all package lists."""
        return self.state / "lists-read"

    @property
    def archives(self) -> Path:
        """Package files that were replaced or removed, for the rollback."""
        return self.state / "debs"
