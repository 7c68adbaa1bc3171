"""Alpaca JSON: a list of {"instruction", "input", "output"}, read strictly, with a clear error for what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from machine.errors import BadAnswer, BadUsage, reason
from machine.input_file import read_input

# longer than any context window: an error in the export, and Axolotl would tokenise such a row for minutes
LONGEST_TEXT = 1_000_000
# bytes of rows that are read whole: at four bytes a token, weeks of training on one card
LARGEST_DATA = 4 << 30
EXAMPLE = '[{"instruction": "Greet the reader.", "input": "", "output": "Hello!"}]'


class AlpacaRow(msgspec.Struct, frozen=True):
    instruction: str
    output: str
    input: str = ""


def read_alpaca(path: Path) -> tuple[AlpacaRow, ...]:
    """All rows of the file; raises BadUsage when there is no such file, BadAnswer when it is not Alpaca data."""
    try:
        raw = read_input(path, LARGEST_DATA)
    except OSError as error:
        raise BadUsage(
            "data.unreadable", f"The data file {path} cannot be read.", f"{reason(error)}.", "Check the path."
        ) from error
    return parse_alpaca(raw, os.fspath(path))


def parse_alpaca(raw: bytes, name: str) -> tuple[AlpacaRow, ...]:
    """Decode and check; every error names the place."""
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
        rows = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=tuple[AlpacaRow, ...])
    except msgspec.ValidationError as error:
        raise _bad("data.not-alpaca", f"{name} is not Alpaca data: {error}.", f"A row looks like {EXAMPLE}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _bad("data.not-json", f"{name} is not JSON: {error}.", f"Alpaca data looks like {EXAMPLE}.") from error
    if not rows:
        raise _bad("data.empty", f"{name} has no rows.", "There is nothing to train on.")
    for number, row in enumerate(rows):
        if not row.instruction.strip() or not row.output.strip():
            which = "instruction" if not row.instruction.strip() else "output"
            raise _bad(
                "data.empty-row",
                f"Row {number} of {name} has an empty {which}.",
                "The model would learn to answer nothing.",
            )
        longest = max(len(row.instruction), len(row.input), len(row.output))
        if longest > LONGEST_TEXT:
            raise _bad(
                "data.too-long",
                f"Row {number} of {name} has a text of {longest:,} characters.",
                "It is too long for any context window; the export has probably joined several rows.",
            )
    return rows


def _bad(
    code: str, what: str, why: str, following: str = "Correct the file and run the same command again."
) -> BadAnswer:
    return BadAnswer(code, what, why, following)
