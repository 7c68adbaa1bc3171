"""The folders that the tool writes to: GPU_SETUP_HOME, else the XDG folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from machine.errors import OutsideFailed

if TYPE_CHECKING:
    from pathlib import Path


class Owner(NamedTuple):
    """The uid and gid of another user than this process's."""

    uid: int
    gid: int


class Paths(NamedTuple):
    """data/env/LOCK holds training environments, cache/models model files, state/runs/ID runs.

    `owner`: whom new folders of `cache` and of a run are for; None: for this process's user.
    """

    data: Path
    cache: Path
    state: Path
    owner: Owner | None = None

    @property
    def environments(self) -> Path:
        return self.data / "env"

    @property
    def models(self) -> Path:
        return self.cache / "models"

    @property
    def runs(self) -> Path:
        return self.state / "runs"


class Folders(NamedTuple):
    """`Paths` as strings: without pathlib, which takes 3 ms of the doctor's start."""

    data: str
    cache: str
    state: str

    @property
    def environments(self) -> str:
        return f"{self.data}/env"


def folders(environ: Mapping[str, str]) -> Folders:
    """The folders for this user, not yet created. `GPU_SETUP_HOME` puts all of them under one folder."""
    home = environ.get("GPU_SETUP_HOME")
    if home:
        # not abspath, which takes `..` for the folder above even behind a link
        top = (home if home.startswith("/") else os.path.join(os.getcwd(), home)).rstrip("/")
        return Folders(f"{top}/data", f"{top}/cache", f"{top}/state")
    person = environ.get("HOME") or "/nonexistent"

    def xdg(variable: str, default: str) -> str:
        # the XDG specification says that a relative value is to be ignored
        value = environ.get(variable, "")
        return os.path.join(value if value.startswith("/") else os.path.join(person, default), "gpu-setup")

    return Folders(
        xdg("XDG_DATA_HOME", ".local/share"), xdg("XDG_CACHE_HOME", ".cache"), xdg("XDG_STATE_HOME", ".local/state")
    )


def paths(environ: Mapping[str, str]) -> Paths:
    """The same as paths."""
    from pathlib import Path

    found = folders(environ)
    return Paths(Path(found.data), Path(found.cache), Path(found.state))


def make(folder: Path, owner: Owner | None = None) -> Path:
    """Create the folder and its parents; the error for a home that is not writable names GPU_SETUP_HOME.

    A new folder is given to `owner`; one that exists, and its parents, keep theirs.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            folder.mkdir(exist_ok=True)
        else:
            give(folder, owner)
    except OSError as error:
        raise OutsideFailed(
            "paths.unwritable",
            f"The folder {folder} cannot be created.",
            f"The system says: {error.strerror or error}.",
            "Set GPU_SETUP_HOME to a folder that you can write, for example: GPU_SETUP_HOME=/var/tmp/gpu-setup.",
        ) from error
    return folder


def give(folder: Path, owner: Owner | None) -> None:
    """Give a folder that this process just created to `owner`, if there is one. Raises OSError.

    By its file descriptor and only while it is empty: who may rename in its parent cannot put another in its place.
    """
    if owner is None:
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if not os.listdir(handle):
            os.fchown(handle, *owner)
    finally:
        os.close(handle)
