"""New files beside old ones: rows one by one, aside and renamed, so that a half file never looks whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from machine.errors import OutsideFailed, Refused


def refuse_to_overwrite(target: Path, source: Path | None, replace: bool) -> None:
    """Raises Refused when the target is the source, under whatever name, or is there already."""
    with suppress(OSError):
        if source is not None and target.samefile(source):
            raise Refused(
                "data.same-file",
                f"{target} is the file that is read; it is never changed.",
                "Without the original nothing can be undone.",
                "Give another name with --out.",
            )
    if target.exists() and not replace:
        raise Refused(
            "data.exists", f"{target} is there already.", "", "Give another name with --out, or add --replace."
        )


@contextmanager
def new_file(target: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when all went well. `private`: for its owner's eyes only."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutsideFailed(
            "data.unwritable",
            f"{target} could not be written.",
            f"The system says: {error.strerror or error}.",
            "Name a file in a folder that you can write, on a disk with room.",
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class RowWriter:
    """Alpaca JSON, one row a line, so that a difference between two files can be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.rows = 0
        file.write(b"[")

    def write(self, row: Any) -> None:
        self.write_raw(encoded(row))

    def write_raw(self, raw: bytes) -> None:
        self._file.write((b",\n" if self.rows else b"\n") + raw)
        self.rows += 1

    def end(self) -> None:
        self._file.write(b"\n]\n")


def encoded(row: Any) -> bytes:
    try:
        return msgspec.json.encode(row)
    except (UnicodeEncodeError, ValueError):
        # a lone surrogate has no UTF-8; as an escape it survives
        return json.dumps(row).encode()
