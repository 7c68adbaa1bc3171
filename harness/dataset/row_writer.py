"""Writes new files row by row; they appear when they are complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from machine import whole_file
from machine.errors import OutsideFailed, Refused


def refuse_to_overwrite(target: Path, source: Path | None, replace: bool) -> None:
    """Raises Refused when the target is the source (under any name), or exists already."""
    with suppress(OSError):
        if source is not None and target.samefile(source):
            raise Refused(
                "data.same-file",
                f"{target} is the input file, which is never changed.",
                "Without the original nothing can be restored.",
                "Give another name with --out.",
            )
    if target.exists() and not replace:
        raise Refused("data.exists", f"{target} already exists.", "", "Give another name with --out, or add --replace.")


@contextmanager
def new_file(target: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name only when it is complete. `private`: readable by its owner only."""
    try:
        with whole_file.new_file(target, 0o600 if private else None) as file:
            yield file
    except OSError as error:
        raise OutsideFailed(
            "data.unwritable",
            f"{target} could not be written.",
            f"The system says: {error.strerror or error}.",
            "Choose a file in a folder that you can write to, on a disk with free space.",
        ) from error


class RowWriter:
    """Alpaca JSON, one row per line, so that two files can be compared with diff."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.rows = 0
        file.write(b"[")

    def write(self, row: Any) -> None:
        self.write_raw(encode_row(row))

    def write_raw(self, raw: bytes) -> None:
        self._file.write((b",\n" if self.rows else b"\n") + raw)
        self.rows += 1

    def end(self) -> None:
        self._file.write(b"\n]\n")


def encode_row(row: Any) -> bytes:
    try:
        return msgspec.json.encode(row)
    except (UnicodeEncodeError, ValueError):
        # a lone surrogate has no UTF-8 form, but can be written as an escape
        return json.dumps(row).encode()
