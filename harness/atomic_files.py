"""Documents of a run or an environment: written completely or not at all; a disk that refuses is an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from machine.errors import OutsideFailed
from machine.input_file import check_numbers, read_input
from machine.whole_file import new_file

Kind = TypeVar("Kind")
# more digits than 64 bits have, perhaps inside a text
_LONG_NUMBER = re.compile(rb"[0-9]{20}")


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write the document whole or not at all. Raises OutsideFailed.

    In a folder of another user, where only root can write, the new file belongs to that user as well.
    """
    with disk_errors(path):
        folder = path.parent.stat()
        # the folder's user may be a container's: a link that it puts here is not followed
        with new_file(path, owner=(folder.st_uid, folder.st_gid) if os.geteuid() == 0 else None) as out:
            out.write(content.encode() if isinstance(content, str) else content)
    return path


def read_if_valid(path: Path, kind: type[Kind]) -> Kind | None:
    """The JSON document at `path`; None where it is missing or not of this type."""
    try:
        return read_document(path, kind)
    except (OSError, msgspec.MsgspecError):
        return None


def read_document(path: Path, kind: type[Kind]) -> Kind:
    """The JSON document at `path`. Raises OSError, also for what is no plain file, or msgspec.MsgspecError."""
    content = read_input(path)
    try:
        if _LONG_NUMBER.search(content):
            check_numbers(msgspec.json.decode(content))
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


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
