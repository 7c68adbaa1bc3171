"""Documents of a run or an environment: written completely or not at all; a disk that refuses is an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from machine.errors import OutsideFailed

Kind = TypeVar("Kind")


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write to a temporary file, then rename it: a killed process leaves no partial document. Raises OutsideFailed.

    In a folder of another user, where only root can write, the new file belongs to that user as well.
    """
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        partial.unlink(missing_ok=True)
        # the folder's user may be a container's: a link that it puts here is not followed
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            folder = path.parent.stat()
            if os.geteuid() == 0 and folder.st_uid != 0:
                os.fchown(handle, folder.st_uid, folder.st_gid)
        os.replace(partial, path)
    return path


def read_if_valid(path: Path, kind: type[Kind]) -> Kind | None:
    """The JSON document at `path`; None where it is missing or not of this type."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing at `path` (disk full, read-only, no permission) into OutsideFailed."""
    try:
        yield
    except OSError as error:
        raise OutsideFailed(
            "disk.unwritable",
            f"{path} cannot be written.",
            f"The system says: {error.strerror or error}.",
            "Free some space, correct the folder's owner, or set GPU_SETUP_HOME to another folder; "
            "then run the same command again.",
        ) from error
