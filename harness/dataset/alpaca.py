"""Alpaca JSON: a list of {"instruction", "input", "output"}. Read, and told clearly what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from machine.errors import BadAnswer, BadUsage

# longer than any context window: such a row is a mistake in the export, and Axolotl would tokenise it for minutes
LONGEST_TEXT = 1_000_000
EXAMPLE = '[{"instruction": "Greet the reader.", "input": "", "output": "Hello!"}]'


class Row(msgspec.Struct, frozen=True):
    instruction: str
    output: str
    input: str = ""


def read_alpaca(path: Path) -> tuple[Row, ...]:
    """All rows of the file; raises BadUsage when there is no such file, BadAnswer when it is not Alpaca data."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadUsage(
            "data.unreadable", f"The data file {path} cannot be read.", f"{error.strerror}.", "Check the path."
        ) from error
    return parse_alpaca(raw, os.fspath(path))


def parse_alpaca(raw: bytes, name: str) -> tuple[Row, ...]:
    """Decode and judge; every message names the place."""
    if not raw.strip():
        raise _bad("data.empty", f"{name} is empty.", f"Alpaca data is a list of rows, such as {EXAMPLE}.")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _bad(
            "data.encoding",
            f"{name} is not UTF-8: byte {error.start} (line {line}) is 0x{raw[error.start]:02x}.",
            "It was probably saved as Windows-1252 or Latin-1.",
            f"Convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 {name} > data.json",
        ) from error
    try:
        rows = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=tuple[Row, ...])
    except msgspec.ValidationError as error:
        raise _bad("data.not-alpaca", f"{name} is not Alpaca data: {error}.", f"A row looks like {EXAMPLE}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad("data.not-json", f"{name} is not JSON: {error}.", f"Alpaca data looks like {EXAMPLE}.") from error
    if not rows:
        raise _bad("data.empty", f"{name} holds no rows.", "There is nothing to train on.")
    for number, row in enumerate(rows):
        if not row.instruction.strip() or not row.output.strip():
            which = "instruction" if not row.instruction.strip() else "output"
            raise _bad("data.empty-row", f"Row {number} of {name} has an empty {which}.", "It would teach silence.")
        longest = max(len(row.instruction), len(row.input), len(row.output))
        if longest > LONGEST_TEXT:
            raise _bad(
                "data.too-long",
                f"Row {number} of {name} has a text of {longest:,} characters.",
                "No context window holds it; the export has probably run several rows together.",
            )
    return rows


def _bad(
    code: str, what: str, why: str, following: str = "Correct the file and run the same command again."
) -> BadAnswer:
    return BadAnswer(code, what, why, following)
