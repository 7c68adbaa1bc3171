"""Whose folders containers write to. What existed before keeps its owner: only new folders are made for their user.

A container of root's runs as another user (the image's, or who called sudo), who cannot write root's folders.
"""

from __future__ import annotations

import os
from pathlib import Path

from containers.dockerfile import UID
from containers.model import Engine
from machine.errors import Refused
from machine.local import Machine, Unreadable
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
    """Raise Refused for a folder that exists and that the container's user cannot write. Root's own is not asked."""
    try:
        found = machine.stat(str(folder))
    except Unreadable:
        return
    bits = 6 if found.uid == owner.uid else 3 if found.gid == owner.gid else 0
    if found.mode >> bits & 0o3 == 0o3:
        return
    raise Refused(
        "image.not-writable",
        f"The container cannot write {folder}.",
        f"Its user has the uid {owner.uid}, the folder's owner {found.uid}; gpu-setup does not change an owner.",
        "Give a folder that does not exist yet, run without sudo, or use --runtime venv",
    )
