"""A data file as a stream of blocks: rows of JSON lists and JSON Lines, with only a few MB in memory.

Where a row does not parse, only that row is lost: reading continues at the next place that looks like a row's start.

    file ─▶ kind (list, lines) and encoding ─▶ Block(raw bytes, where each row begins and ends, row and line numbers)
"""

from __future__ import annotations

import codecs
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from machine.errors import BadAnswer, BadUsage, reason
from machine.input_file import open_input

BLOCK_BYTES = 2 << 20
# twice the longest text that read_alpaca takes, in UTF-8; a longer row is skipped and reported
LONGEST_ROW = 8 << 20
# with more broken rows the file is not a data file; the rest is reported as one finding
MOST_BROKEN = 1000
# how many possible ends are tried for a row that does not parse
MOST_ENDS = 12

EXAMPLE = '[{"instruction": "Greet the reader.", "input": "", "output": "Hello!"}]'
# `{"data": [ … ]}` and the like: a list in a wrapper
_WRAPPER = re.compile(
    rb'\s*\{\s*"(?:data|dataset|rows|records|items|examples|samples|instances|train)"\s*:\s*\[\s*(?=[\{\]])'
)
# the end of one row and the beginning of the next, in a list
_BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
_SPACE = re.compile(rb"[\s,]*")


class Block(NamedTuple):
    """Consecutive rows. `starts` and `ends`: places in `data`; the end 0 marks a row that is not in `data` (too long).

    `offset`: where `data` begins in the (UTF-8) file; `row`: number of the first row; `line`: line of its first byte.
    `skipped`: the length in bytes of a row that is not in `data`.
    """

    data: bytes
    starts: array[int]
    ends: array[int]
    offset: int
    row: int
    line: int
    skipped: int = 0


class DataFile(NamedTuple):
    """An opened data file. `path` is UTF-8 (a converted copy where `encoding` is another one).

    `shape` one: a single object over several lines, as a chat program writes a session.
    """

    path: Path
    name: str
    shape: Literal["list", "lines", "one"]
    encoding: str
    bom: bool
    begin: int
    bytes: int


class FileProblem(NamedTuple):
    """A problem of the file as a whole, with its place."""

    kind: str
    offset: int
    line: int
    text: str


def open_data_file(path: Path, scratch: Path) -> DataFile:
    """Detect encoding and shape. Raises BadUsage for an unreadable file, BadAnswer for one that cannot contain rows."""
    try:
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(64 << 10)
    except OSError as error:
        raise BadUsage(
            "data.unreadable", f"The data file {path} cannot be read.", f"{reason(error)}.", "Check the path."
        ) from error
    encoding = wide_encoding(head)
    if encoding is not None:
        path_utf8 = scratch / "utf8.json"
        _transcode(path, path_utf8, encoding)
        source = open_data_file(path_utf8, scratch)
        return source._replace(name=os.fspath(path), encoding=encoding)
    bom = head.startswith(codecs.BOM_UTF8)
    begin = 3 if bom else 0
    text = head[begin:].lstrip()
    if not text:
        if size > len(head):
            raise _not_rows(path, "It begins with tens of thousands of spaces.")
        raise BadAnswer(
            "data.empty", f"{path} is empty.", f"Alpaca data is a list of rows, such as {EXAMPLE}.", "Check the path."
        )
    shape: Literal["list", "lines", "one"] = "list"
    if text.startswith(b"["):
        begin = head.index(b"[", begin) + 1
    elif (wrapped := _WRAPPER.match(head, begin)) is not None:
        begin = wrapped.end()
    elif text.startswith(b"{"):
        shape = "one" if _is_one(path, head[begin:], size) else "lines"
    else:
        raise _not_rows(path, f"It begins with {text[:30].decode('utf-8', 'replace')!r}.")
    return DataFile(path, os.fspath(path), shape, "utf-8", bom, begin, size)


def _is_one(path: Path, head: bytes, size: int) -> bool:
    first, newline, _ = head.lstrip().partition(b"\n")
    if not newline or _is_json(first) or size > LONGEST_ROW:
        return False
    return _is_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))


def _not_rows(path: Path, why: str) -> BadAnswer:
    return BadAnswer(
        "data.not-json",
        f"{path} is not JSON: line 1 begins with neither [ nor {{.",
        f"{why} Alpaca data looks like {EXAMPLE}.",
        "Convert it with gpu-setup data import, which reads email, chats and tables.",
    )


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by byte order mark or by the NUL bytes of ASCII text; None for encodings based on ASCII."""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    few = head[:200]
    if len(few) >= 8 and few[1::2].count(0) > 0.8 * len(few[1::2]) and few[0::2].count(0) == 0:
        return "utf-16-le"
    if len(few) >= 8 and few[0::2].count(0) > 0.8 * len(few[0::2]) and few[1::2].count(0) == 0:
        return "utf-16-be"
    return None


def _transcode(path: Path, target: Path, encoding: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    with path.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(BLOCK_BYTES):
            write.write(decoder.decode(chunk).encode("utf-8", "replace"))
        write.write(decoder.decode(b"", True).encode("utf-8", "replace"))


def read_blocks(source: DataFile, troubles: list[FileProblem]) -> Iterator[Block]:
    """All rows of the source; problems of the file as a whole are appended to `troubles`."""
    with source.path.open("rb") as file:
        head = file.read(source.begin)
        if source.shape == "one":
            data = file.read()
            yield Block(data, array("Q", [0]), array("Q", [len(data)]), source.begin, 0, 1)
            return
        cut = _list_blocks if source.shape == "list" else _line_blocks
        yield from cut(file, source.begin, head.count(b"\n") + 1, troubles)


def _line_blocks(file: BinaryIO, offset: int, line: int, troubles: list[FileProblem]) -> Iterator[Block]:
    """JSON Lines: one row per line, blank lines left out. A line above LONGEST_ROW is skipped and never held whole."""
    row, rest = 0, b""
    while chunk := file.read(BLOCK_BYTES):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > LONGEST_ROW:
            length, tail = _skip_line(file, len(data))
            yield Block(b"", array("Q", [0]), array("Q", [0]), offset, row, line, length)
            row, line, offset, rest = row + 1, line + 1, offset + length, tail
            continue
        block = _lines_of(data[:end], offset, row, line)
        yield block
        row, line, offset, rest = row + len(block.starts), line + data.count(b"\n", 0, end), offset + end, data[end:]
    if rest.strip():
        yield _lines_of(rest, offset, row, line)


def _skip_line(file: BinaryIO, held: int) -> tuple[int, bytes]:
    """Read to the end of the line: its whole length with the newline, and what was read after it."""
    length = held
    while chunk := file.read(BLOCK_BYTES):
        end = chunk.find(b"\n") + 1
        if end:
            return length + end, chunk[end:]
        length += len(chunk)
    return length, b""


def _lines_of(data: bytes, offset: int, row: int, line: int) -> Block:
    starts, ends, place = array("Q"), array("Q"), 0
    for text in data.split(b"\n"):
        if text and not text.isspace():
            starts.append(place)
            ends.append(place + len(text))
        place += len(text) + 1
    return Block(data, starts, ends, offset, row, line)


_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def _list_blocks(file: BinaryIO, offset: int, line: int, troubles: list[FileProblem]) -> Iterator[Block]:
    """The elements of a JSON list: fast while it parses, element by element where it does not."""
    row, rest, more, broken = 0, b"", True, 0
    while more or rest:
        chunk = file.read(BLOCK_BYTES) if more else b""
        more = bool(chunk)
        data = rest + chunk
        if not more:
            closed = data.rstrip()
            if closed.endswith(b"}") and data[len(closed) :].strip() == b"" and b"]" not in data[len(closed) :]:
                # the closing brace of a wrapper comes after the list's bracket
                inner = closed[:-1].rstrip()
                closed = inner if inner.endswith(b"]") else closed
            if closed.endswith(b"]"):
                closed = closed[:-1]
            else:
                place = line + data.count(b"\n")
                troubles.append(
                    FileProblem("cut-file", offset + len(data), place, "The list has no end: the file is incomplete.")
                )
            if not closed.strip():
                return
            block = _parse_block(closed, offset, row, line)
            if block is None:
                block, used, broken = _split_broken_block(closed, offset, row, line, True, broken)
            yield block
            return
        block, used = None, 0
        for end in _ends(data):
            block = _parse_block(data[:end], offset, row, line)
            if block is not None:
                used = end
                break
        if block is None:
            if len(data) < LONGEST_ROW and not _BETWEEN.search(data):
                rest = data
                continue
            block, used, broken = _split_broken_block(data, offset, row, line, False, broken)
            if used == 0:
                length, tail = _skip_element(file, len(data))
                yield Block(b"", array("Q", [0]), array("Q", [0]), offset, row, line, length)
                row, offset, rest = row + 1, offset + length, tail
                continue
        yield block
        row, line, offset, rest = row + len(block.starts), line + data.count(b"\n", 0, used), offset + used, data[used:]
        if broken > MOST_BROKEN:
            said = f"More than {MOST_BROKEN:,} broken rows: the rest is not checked."
            troubles.append(FileProblem("cut-file", offset, line, said))
            return


def _ends(data: bytes) -> Iterator[int]:
    """Places between two rows, from the end; one of them is wrong where a text contains a brace."""
    place = len(data)
    for _ in range(MOST_ENDS):
        place = data.rfind(b"}", 0, place)
        if place < 0:
            return
        between = _SPACE.match(data, place + 1)
        if between and b"," in between.group():
            yield place + 1


def _parse_block(data: bytes, offset: int, row: int, line: int) -> Block | None:
    """The block when all of it parses. A block that ends inside a text has an odd quote, so it never parses."""
    lead = _SPACE.match(data)
    begin = lead.end() if lead else 0
    try:
        raws = _RAW_LIST.decode(b"[" + data[begin:] + b"]")
    except (msgspec.DecodeError, RecursionError):
        return None
    starts, ends, place = array("Q"), array("Q"), begin
    for raw in raws:
        gap = _SPACE.match(data, place)
        place = gap.end() if gap else place
        starts.append(place)
        place += len(raw)
        ends.append(place)
    return Block(data, starts, ends, offset, row, line)


def _split_broken_block(
    data: bytes, offset: int, row: int, line: int, last: bool, broken: int
) -> tuple[Block, int, int]:
    """Split where rows seem to end, so that each parses or fails by itself. Returns block, bytes used, broken so far.

    Without `last` the part after the last certain end is left for the next call.
    """
    bounds = [match.start() + 1 for match in _BETWEEN.finditer(data)]
    if last:
        bounds.append(len(data))
    starts, ends, number = array("Q"), array("Q"), 0
    lead = _SPACE.match(data)
    place = lead.end() if lead else 0
    used = 0
    while number < len(bounds) and broken <= MOST_BROKEN:
        end = number
        for tried in range(number, min(number + MOST_ENDS, len(bounds))):
            if _is_json(data[place : bounds[tried]]):
                end = tried
                break
        else:
            broken += 1
        starts.append(place)
        ends.append(bounds[end])
        used = bounds[end]
        gap = _SPACE.match(data, used)
        place = gap.end() if gap else used
        number = end + 1
    return Block(data[:used], starts, ends, offset, row, line), used, broken


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _skip_element(file: BinaryIO, held: int) -> tuple[int, bytes]:
    """Read to what looks like the next element: the number of bytes skipped, and what was read after them."""
    length, seam = held, b""
    while chunk := file.read(BLOCK_BYTES):
        data = seam + chunk
        between = _BETWEEN.search(data)
        if between:
            return length + between.end() - len(seam), data[between.end() :]
        length += len(chunk)
        seam = data[-256:]
    return length, b"]"
