"""CSV and TSV: one row per line, columns by name. Read as a stream, with any separator and encoding."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from harness.dataset.alpaca import LONGEST_TEXT
from harness.dataset.block_reader import wide_encoding
from harness.dataset.imports.imported import ImportedRow, Skips
from harness.dataset.imports.records import columns_of
from harness.dataset.row import guess_encoding
from machine.errors import BadAnswer, BadUsage, reason
from machine.input_file import open_input

SEPARATORS = ",;\t|"


def table_rows(path: Path, mapping: Mapping[str, str], skips: Skips) -> Iterator[ImportedRow]:
    """All rows; raises BadUsage when the columns are not known, BadAnswer when the file has no table."""
    csv.field_size_limit(LONGEST_TEXT)
    try:
        with open_input(path) as raw:
            head = raw.read(64 << 10)
        with path.open(encoding=encoding_of(head), errors="replace", newline="") as text:
            yield from _rows(text, separator_of(head), path, mapping, skips)
    except OSError as error:
        raise BadUsage("data.unreadable", f"{path} cannot be read.", f"{reason(error)}.", "Check the path.") from error


def _rows(text: TextIO, separator: str, path: Path, mapping: Mapping[str, str], skips: Skips) -> Iterator[ImportedRow]:
    reader = csv.reader(text, delimiter=separator, strict=False)
    names = next(_parse_lines(reader, path, skips), None)
    if not names or not any(name.strip() for name in names):
        raise BadAnswer("data.empty", f"{path} has no table.", "The first line has no column names.", "Check the file.")
    names = [name.strip().lstrip("\ufeff") for name in names]
    unknown = [name for name in mapping.values() if name not in names]
    columns = columns_of(names, mapping)
    if unknown or "instruction" not in columns or "output" not in columns:
        raise BadUsage(
            "data.columns",
            f"{path} has no column {unknown[0]!r}."
            if unknown
            else f"The columns of {path.name} with question and answer are not known.",
            f"Its columns are: {', '.join(names)[:300]}.",
            "Name them: --columns instruction=NAME,output=NAME (and input=NAME).",
        )
    places = {field: names.index(name) for field, name in columns.items()}
    for cells in _parse_lines(reader, path, skips):
        place = f"{path.name}#line {reader.line_num}"
        if not cells:
            continue
        found = {field: cells[at].strip() if at < len(cells) else "" for field, at in places.items()}
        if len(cells) < len(names):
            skips.skip("fewer cells than columns", place)
        elif not found["instruction"] or not found["output"]:
            skips.skip("an empty question or answer", place)
        else:
            yield ImportedRow(found["instruction"], found.get("input", ""), found["output"], "", place)


def _parse_lines(reader: Iterator[list[str]], path: Path, skips: Skips) -> Iterator[list[str]]:
    """The reader's lines; a line that the csv module refuses (a cell above its limit) is counted as skipped."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            skips.skip(f"not a table row: {error}", f"{path.name}#line {getattr(reader, 'line_num', '?')}")


def encoding_of(head: bytes) -> str:
    """utf-8-sig where it decodes; UTF-16 by its mark or NUL bytes; else the most likely older one."""
    wide = wide_encoding(head)
    if wide is not None:
        return wide
    try:
        # the last character may be incomplete
        head[: head.rfind(b"\n") + 1 or len(head)].decode("utf-8")
    except UnicodeDecodeError:
        return guess_encoding(head)
    return "utf-8-sig"


def separator_of(head: bytes) -> str:
    """The most frequent separator of the first line; tabs and semicolons there are never accidental."""
    wide = wide_encoding(head)
    first = head.decode(wide or "utf-8", "replace").lstrip("\ufeff").split("\n", 1)[0]
    counts = {sign: first.count(sign) for sign in SEPARATORS}
    for sign in ("\t", ";", "|"):
        if counts[sign] and counts[sign] >= counts[","]:
            return sign
    return ","
