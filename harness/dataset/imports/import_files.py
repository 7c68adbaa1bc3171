"""`data import`: chooses the reader for each file, and writes the rows of all files into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.dataset.block_reader import wide_encoding
from harness.dataset.findings import DataReport, OriginCounts, WrittenFile
from harness.dataset.imports.imported import ImportedRow, Skips
from harness.dataset.imports.mbox import mbox_rows
from harness.dataset.imports.records import record_rows
from harness.dataset.imports.table import table_rows
from harness.dataset.row_writer import RowWriter, new_file
from machine.errors import BadAnswer, BadUsage, reason
from machine.events import Emit, Event, silent
from machine.input_file import open_input

STAGE = "import"
FORMATS = ("auto", "mbox", "chat", "csv", "json")
EVERY = 1000


class ImportSettings(NamedTuple):
    """`format`: one of FORMATS; `columns`: field → name in the file; `kind`: the origin mark of rows without one."""

    format: str = "auto"
    columns: Mapping[str, str] = {}
    all_turns: bool = False
    received: tuple[Path, ...] = ()
    me: str = ""
    instruction: str = ""
    kind: str = ""


def format_of(path: Path) -> str:
    """mbox, csv or json, by the beginning of the file, then by its name."""
    try:
        with open_input(path) as file:
            head = file.read(4096)
    except OSError as error:
        raise BadUsage("data.unreadable", f"{path} cannot be read.", f"{reason(error)}.", "Check the path.") from error
    encoding = wide_encoding(head)
    text = (head.decode(encoding, "replace").encode() if encoding else head).lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"From "):
        return "mbox"
    if text.startswith((b"[", b"{")):
        return "json"
    if path.suffix.lower() in (".csv", ".tsv", ".tab", ".txt") or any(sign in text.split(b"\n")[0] for sign in b",;\t"):
        return "csv"
    raise BadAnswer(
        "data.unknown-format",
        f"{path} is not a mailbox, a chat log, a table or JSON.",
        f"It begins with {text[:30].decode('utf-8', 'replace')!r}." if text else "It is empty.",
        "Set the format with --format, or export the data as CSV.",
    )


def rows_of(path: Path, how: ImportSettings, skips: Skips, scratch: Path) -> Iterator[ImportedRow]:
    found = how.format if how.format != "auto" else format_of(path)
    if found == "mbox":
        yield from mbox_rows(path, how.received, how.me, how.instruction, skips, scratch)
    elif found == "csv":
        yield from table_rows(path, how.columns, skips)
    else:
        yield from record_rows(path, how.columns, how.all_turns, skips, scratch)


def import_files(
    paths: tuple[Path, ...], how: ImportSettings, target: Path, scratch: Path, emit: Emit = silent
) -> DataReport:
    """Write the rows of all files into `target`; raises BadAnswer, and writes nothing, when there are none."""
    skips, marks = Skips(), Counter[str]()
    emit(Event("start", STAGE, f"Reading {', '.join(path.name for path in paths)}"))
    with new_file(target) as file:
        writer = RowWriter(file)
        for number, path in enumerate(paths):
            folder = scratch / str(number)
            folder.mkdir()
            for row in rows_of(path, how, skips, folder):
                if how.kind and not row.kind:
                    row = row._replace(kind=how.kind)
                marks[row.kind] += 1
                writer.write(row.as_row())
                if writer.rows % EVERY == 0:
                    emit(Event("progress", STAGE, f"{writer.rows:,} rows", writer.rows, None, "rows"))
        if not writer.rows:
            raise BadAnswer(
                "data.no-rows",
                f"{', '.join(map(str, paths))}: nothing could be imported.",
                " ".join(skips.notes()) or "There is nothing to import.",
                "See gpu-setup data import --help for what each format needs.",
            )
        writer.end()
    return DataReport(
        action="import",
        file=", ".join(map(str, paths)),
        rows=writer.rows,
        origins=OriginCounts(marks["organic"], marks["semi-synthetic"], marks["synthetic"], marks[""]),
        written=(WrittenFile(str(target), writer.rows, "rows"),),
        skipped=dict(skips.counts),
        notes=(*skips.notes(), f"Next: gpu-setup data check {target}"),
    )
