"""Which checkpoint an interrupted run resumes from: the newest complete one, verified file by file.

gpu_setup_worker/checkpoints.py writes the list of a checkpoint's files last, when all of them are on the disk.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import msgspec

WHOLE = "whole.json"


class Checkpoint(NamedTuple):
    """A complete checkpoint, saved after `step` steps."""

    step: int
    folder: Path


class _Manifest(msgspec.Struct, frozen=True):
    """`files`: name → bytes and sha256."""

    step: int
    files: dict[str, tuple[int, str]]


def newest_complete(adapter: Path, before: int | None = None) -> Checkpoint | None:
    """The newest complete checkpoint in the adapter's folder, of a step before `before`; None: there is none.

    `before` is the run's last step: resuming from there, the trainer would do one step too many.
    """
    for step, folder in reversed(_all(adapter)):
        if (before is None or step < before) and is_complete(folder):
            return Checkpoint(step, folder)
    return None


def is_complete(folder: Path) -> bool:
    """Whether every listed file exists with its size and digest."""
    try:
        listed = msgspec.json.decode((folder / WHOLE).read_bytes(), type=_Manifest)
        for name, (size, digest) in listed.files.items():
            with (folder / name).open("rb") as file:
                if file.seek(0, 2) != size or file.seek(0) != 0:
                    return False
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return False
    except (OSError, msgspec.MsgspecError):
        return False
    return folder.name == f"checkpoint-{listed.step}"


def remove_later(adapter: Path, step: int) -> None:
    """Remove the checkpoints of later steps: they are incomplete, or their steps will be repeated."""
    for found, folder in _all(adapter):
        if found > step:
            shutil.rmtree(folder, ignore_errors=True)


def remove_all(adapter: Path) -> None:
    """Remove the checkpoints of a finished run: only the adapter is kept."""
    remove_later(adapter, -1)


def _all(adapter: Path) -> list[tuple[int, Path]]:
    found = []
    for folder in adapter.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d{1,9})", folder.name)
        if match and folder.is_dir():
            found.append((int(match[1]), folder))
    return sorted(found)
