"""Files that are written whole or not at all, and never over something else unless that is allowed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from machine.errors import BadUsage, OutsideFailed


class FileKind(NamedTuple):
    """What a file is called in errors: their codes begin with `noun`; `example` is a name for such a file."""

    noun: str
    example: str


BUNDLE = FileKind("bundle", "gpu.tar.gz")
RECORDING = FileKind("recording", "my-pc.machine")


def check_place(file: str, force: bool, kind: FileKind) -> None:
    """Raises BadUsage where `save` would not write: asked before the long work."""
    if os.path.isdir(file):
        raise BadUsage(
            f"{kind.noun}.folder",
            f"{file} is a folder.",
            f"A {kind.noun} is one file.",
            f"Name a file: {file}/{kind.example}",
        )
    if os.path.lexists(file) and not force:
        raise BadUsage(
            f"{kind.noun}.exists",
            f"{file} exists already.",
            f"A {kind.noun} is not written over something else.",
            "Name another file, or allow it with --force.",
        )


def save(file: str, data: bytes, force: bool, kind: FileKind) -> None:
    """Write the file whole or not at all, readable for its owner only. Raises BadUsage, or OutsideFailed."""
    check_place(file, force, kind)
    beside = f"{file}.{os.getpid()}.part"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            _into_place(beside, file, force)
        finally:
            Path(beside).unlink(missing_ok=True)
    except FileExistsError:
        check_place(file, False, kind)
        raise
    except OSError as error:
        raise OutsideFailed(
            f"{kind.noun}.unwritable",
            f"The {kind.noun} could not be written to {file}.",
            f"The system says: {error.strerror or error}.",
            "Name a file in a folder with room that you can write to.",
        ) from error


def _into_place(beside: str, file: str, force: bool) -> None:
    if not force:
        try:
            # unlike a rename, a link never replaces a file that somebody wrote in the same moment
            os.link(beside, file)
            return
        except PermissionError:
            # FAT and some network drives know no links
            pass
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
    os.replace(beside, file)
