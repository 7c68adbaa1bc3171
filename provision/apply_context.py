"""Where actions happen: the machine, where root keeps its things, and whom to tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machine.events import Emit, silent
from machine.local import Machine

# Root's part of the house. The folder is open to read (0755), what may name a person's settings is not (0600).
STATE = Path("/var/lib/gpu-setup")
LIBRARY = Path("/usr/local/lib/gpu-setup")
SYSTEMD = "/run/systemd/system"


class ApplyContext(NamedTuple):
    """`log` takes the raw words of apt and dpkg; `environ` are network settings for children (proxies, certificates).

    `systemd`: it is PID 1 here; in a container or a chroot it is not, and services are only switched on for later.
    """

    machine: Machine
    emit: Emit = silent
    state: Path = STATE
    log: str | None = None
    environ: Mapping[str, str] = {}
    systemd: bool = False

    @property
    def backups(self) -> Path:
        return self.state / "backups"

    @property
    def lists_stamp(self) -> Path:
        """Its time is that of our last reading of all package lists."""
        return self.state / "lists-read"

    @property
    def archives(self) -> Path:
        """Package files that were replaced or removed, for the way back."""
        return self.state / "debs"
