"""The folders that the tool writes to: GPU_SETUP_HOME, else the XDG folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from machine.errors import OutsideFailed


class Paths(NamedTuple):
    """data/env/LOCK holds training environments, cache/models model files, state/runs/ID runs."""

    data: Path
    cache: Path
    state: Path

    @property
    def environments(self) -> Path:
        return self.data / "env"

    @property
    def models(self) -> Path:
        return self.cache / "models"

    @property
    def runs(self) -> Path:
        return self.state / "runs"


def paths(environ: Mapping[str, str]) -> Paths:
    """The folders for this user, not yet created. `GPU_SETUP_HOME` puts all of them under one folder."""
    home = environ.get("GPU_SETUP_HOME")
    if home:
        top = Path(home).absolute()
        return Paths(top / "data", top / "cache", top / "state")
    person = Path(environ.get("HOME") or "/nonexistent")

    def xdg(variable: str, default: str) -> Path:
        # the XDG specification says that a relative value is to be ignored
        value = environ.get(variable, "")
        return (Path(value) if value.startswith("/") else person / default) / "gpu-setup"

    return Paths(
        xdg("XDG_DATA_HOME", ".local/share"), xdg("XDG_CACHE_HOME", ".cache"), xdg("XDG_STATE_HOME", ".local/state")
    )


def make(folder: Path) -> Path:
    """Create the folder and its parents; the error for a home that is not writable names GPU_SETUP_HOME."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutsideFailed(
            "paths.unwritable",
            f"The folder {folder} cannot be created.",
            f"The system says: {error.strerror or error}.",
            "Set GPU_SETUP_HOME to a folder that you can write, for example: GPU_SETUP_HOME=/var/tmp/gpu-setup.",
        ) from error
    return folder
