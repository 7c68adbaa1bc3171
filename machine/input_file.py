"""Files that a person names, checked before they are read: plain ones only, and not larger than their kind can be."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# what a document of the tool or a model's config may have, in bytes
LARGEST_DOCUMENT = 64 << 20
_LARGEST_NUMBER = 1 << 63

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotAFile(OSError):
    """What was named is no plain file, or larger than such a file can be; `strerror` says which."""

    def __init__(self, path: str | Path, why: str) -> None:
        super().__init__(errno.EINVAL, why, os.fspath(path))


@contextmanager
def open_input(path: str | Path) -> Iterator[BinaryIO]:
    """The file, links followed, opened for reading without waiting for anybody. Raises OSError."""
    try:
        # without O_NONBLOCK a pipe that nobody writes to would be waited for
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except ValueError as error:
        raise NotAFile(path, f"Its name is no path: {error}") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise NotAFile(path, f"It is {next(kind for test, kind in _KINDS if test(mode))}, not a file")
    with os.fdopen(handle, "rb") as file:
        yield file


def read_input(path: str | Path, most: int = LARGEST_DOCUMENT) -> bytes:
    """The bytes of a plain file with at most `most` bytes. Raises OSError."""
    with open_input(path) as file:
        size = os.fstat(file.fileno()).st_size
        parts, length = [], 0
        # its size is not all: it may grow, and files under /proc have none
        while size <= most and (part := file.read(1 << 20)):
            parts.append(part)
            length += len(part)
            size = max(size, length)
    if size > most:
        raise NotAFile(path, f"It has more than {most:,} bytes")
    return b"".join(parts)


def check_numbers(value: object) -> None:
    """Raises ValueError for plain data with a number that no computer counts with: over 64 bits, or not finite."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        for each in value:
            check_numbers(each)
    elif isinstance(value, int) and not -_LARGEST_NUMBER <= value < 2 * _LARGEST_NUMBER:
        raise ValueError("A number in it has more than 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"A number in it is {value}")
