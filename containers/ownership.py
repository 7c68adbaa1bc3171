"""Whose folders containers write to. What existed before keeps its owner: only new folders are made for their user.

A container of root's runs as another user (the image's, or who called sudo), who cannot write root's folders.
"""

from __future__ import annotations

import os
from pathlib import Path

from containers.dockerfile import UID
from containers.model import Engine
from machine.errors import Refused
from machine.local import FileStatus, Machine, Unreadable
from machine.paths import Owner, Paths, make


def container_owner(user: str | None, engine: Engine) -> Owner:
    """uid and gid of a container's processes, as seen on the machine. `user`: uid:gid; None: the image's."""
    if user is None:
        return Owner(UID, UID)
    if engine.rootless:
        return Owner(os.geteuid(), os.getegid())
    uid, _, gid = user.partition(":")
    return Owner(int(uid), int(gid))


def container_paths(paths: Paths, owner: Owner) -> Paths:
    """The folders for containers of this user: for another user than this process's, with a cache of its own."""
    if owner.uid == os.geteuid():
        return paths
    cache = make(make(paths.cache / "containers") / str(owner.uid), owner)
    return paths._replace(cache=cache, owner=owner)


def refuse_unwritable(folder: Path, owner: Owner, machine: Machine) -> None:
    """Raise Refused for a folder that exists and that the container's user cannot write."""
    if (found := _status(folder, machine)) is not None and not _may(found, owner, 0o3):
        raise Refused(
            "image.not-writable",
            f"The container cannot write {folder}.",
            f"Its user has the uid {owner.uid}, the folder's owner {found.uid}; gpu-setup does not change an owner.",
            "Give a folder that does not exist yet, run without sudo, or use --runtime venv",
        )


def refuse_closed(folder: Path, owner: Owner, machine: Machine) -> None:
    """Raise Refused for a folder that the container's user cannot enter: it was made with a strict umask."""
    if (found := _status(folder, machine)) is not None and not _may(found, owner, 0o1):
        raise Refused(
            "image.folder-closed",
            f"The container's user (uid {owner.uid}) cannot enter {folder}, where its runs are.",
            f"The folder's mode is {found.mode:04o}.",
            f"chmod o+x {folder}; then the same command again",
        )


def _status(folder: Path, machine: Machine) -> FileStatus | None:
    try:
        return machine.stat(str(folder))
    except Unreadable:
        return None


def _may(found: FileStatus, owner: Owner, wanted: int) -> bool:
    bits = 6 if found.uid == owner.uid else 3 if found.gid == owner.gid else 0
    return found.mode >> bits & wanted == wanted
