"""A data file as a stream of blocks: rows cut out of JSON lists and JSON Lines without holding more than a few MB.

What does not parse costs its own row, not the file: the cut goes on at the next place that looks like a row's start.

    file ─▶ kind (list, lines) and encoding ─▶ Block(raw bytes, where each row begins and ends, row and line numbers)
"""

from __future__ import annotations

import codecs
import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from machine.errors import BadAnswer, BadUsage

BLOCK_BYTES = 2 << 20
# twice the longest text that read_alpaca takes, in UTF-8; a row above it is skipped and told
LONGEST_ROW = 8 << 20
# a file this broken is no row file; what follows is told as one piece
MOST_BROKEN = 1000
# how many ends are tried for a row that does not parse, before its beginning is given up
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
    """Some rows in a row. `starts`/`ends` lie in `data`; an end of 0 marks a row that is not in `data` (too long).

    `offset`: where `data` begins in the (UTF-8) file; `row`: number of the first row; `line`: line of its first byte.
    `skipped`: how many bytes the row that is not in `data` has.
    """

    data: bytes
    starts: array[int]
    ends: array[int]
    offset: int
    row: int
    line: int
    skipped: int = 0


class Source(NamedTuple):
    """An opened data file. `path` is UTF-8 (a transcoded copy where `encoding` is not); `shape`: list, lines or one.

    `one` is a single object that spans lines, as a chat program writes a session.
    """

    path: Path
    name: str
    shape: str
    encoding: str
    bom: bool
    begin: int
    bytes: int


class Trouble(NamedTuple):
    """Something wrong with the file as such, with its place: cut, unreadable."""

    kind: str
    offset: int
    line: int
    text: str


def open_source(path: Path, scratch: Path) -> Source:
    """Find out how the file is written. Raises BadUsage when there is none, BadAnswer when no rows can be in it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64 << 10)
    except OSError as error:
        raise BadUsage(
            "data.unreadable", f"The data file {path} cannot be read.", f"{error.strerror}.", "Check the path."
        ) from error
    encoding = wide_encoding(head)
    if encoding is not None:
        path_utf8 = scratch / "utf8.json"
        _transcode(path, path_utf8, encoding)
        source = open_source(path_utf8, scratch)
        return source._replace(name=os.fspath(path), encoding=encoding)
    bom = head.startswith(codecs.BOM_UTF8)
    begin = 3 if bom else 0
    text = head[begin:].lstrip()
    if not text:
        if size > len(head):
            raise _not_rows(path, "It begins with tens of thousands of blanks.")
        raise BadAnswer(
            "data.empty", f"{path} is empty.", f"Alpaca data is a list of rows, such as {EXAMPLE}.", "Check the path."
        )
    shape = "list"
    if text.startswith(b"["):
        begin = head.index(b"[", begin) + 1
    elif (wrapped := _WRAPPER.match(head, begin)) is not None:
        begin = wrapped.end()
    elif text.startswith(b"{"):
        shape = "one" if _is_one(path, head[begin:], size) else "lines"
    else:
        raise _not_rows(path, f"It begins with {text[:30].decode('utf-8', 'replace')!r}.")
    return Source(path, os.fspath(path), shape, "utf-8", bom, begin, size)


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
        "gpu-setup data import makes Alpaca data from mail, chats and tables.",
    )


def wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by mark or by the NUL bytes that ASCII gets there; None for all that is ASCII-based."""
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


def blocks(source: Source, troubles: list[Trouble]) -> Iterator[Block]:
    """All rows of the source; what is wrong with the file as such is appended to `troubles`."""
    with source.path.open("rb") as file:
        head = file.read(source.begin)
        if source.shape == "one":
            data = file.read()
            yield Block(data, array("Q", [0]), array("Q", [len(data)]), source.begin, 0, 1)
            return
        cut = _list_blocks if source.shape == "list" else _line_blocks
        yield from cut(file, source.begin, head.count(b"\n") + 1, troubles)


def _line_blocks(file: BinaryIO, offset: int, line: int, troubles: list[Trouble]) -> Iterator[Block]:
    """JSON Lines: one row a line, blank lines left out. A line above LONGEST_ROW is skipped without being held."""
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
    """Read on to the line's end: its whole length with the newline, and what was read behind it."""
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


def _list_blocks(file: BinaryIO, offset: int, line: int, troubles: list[Trouble]) -> Iterator[Block]:
    """The elements of a JSON list. Fast while it parses; where it does not, element by element."""
    row, rest, more, broken = 0, b"", True, 0
    while more or rest:
        chunk = file.read(BLOCK_BYTES) if more else b""
        more = bool(chunk)
        data = rest + chunk
        if not more:
            closed = data.rstrip()
            if closed.endswith(b"}") and data[len(closed) :].strip() == b"" and b"]" not in data[len(closed) :]:
                # a wrapper's own closing brace stands behind the list's bracket
                inner = closed[:-1].rstrip()
                closed = inner if inner.endswith(b"]") else closed
            if closed.endswith(b"]"):
                closed = closed[:-1]
            else:
                place = line + data.count(b"\n")
                troubles.append(
                    Trouble("cut-file", offset + len(data), place, "The list has no end: the file is cut off.")
                )
            if not closed.strip():
                return
            block = _parsed(closed, offset, row, line)
            if block is None:
                block, used, broken = _mended(closed, offset, row, line, True, broken)
            yield block
            return
        block, used = None, 0
        for end in _ends(data):
            block = _parsed(data[:end], offset, row, line)
            if block is not None:
                used = end
                break
        if block is None:
            if len(data) < LONGEST_ROW and not _BETWEEN.search(data):
                rest = data
                continue
            block, used, broken = _mended(data, offset, row, line, False, broken)
            if used == 0:
                length, tail = _skip_element(file, len(data))
                yield Block(b"", array("Q", [0]), array("Q", [0]), offset, row, line, length)
                row, offset, rest = row + 1, offset + length, tail
                continue
        yield block
        row, line, offset, rest = row + len(block.starts), line + data.count(b"\n", 0, used), offset + used, data[used:]
        if broken > MOST_BROKEN:
            said = f"More than {MOST_BROKEN:,} broken rows: the rest is not looked at."
            troubles.append(Trouble("cut-file", offset, line, said))
            return


def _ends(data: bytes) -> Iterator[int]:
    """Where the data may be cut between two rows, from behind; a brace inside a text makes a wrong one."""
    place = len(data)
    for _ in range(MOST_ENDS):
        place = data.rfind(b"}", 0, place)
        if place < 0:
            return
        between = _SPACE.match(data, place + 1)
        if between and b"," in between.group():
            yield place + 1


def _parsed(data: bytes, offset: int, row: int, line: int) -> Block | None:
    """The block when all of it parses. A cut inside a text leaves an odd quote, so it never parses."""
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


def _mended(data: bytes, offset: int, row: int, line: int, last: bool, broken: int) -> tuple[Block, int, int]:
    """Cut where rows seem to end, and let each stand or fall by itself. Returns block, bytes used, broken so far.

    Without `last` the tail behind the last sure end is left for the next call.
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
    """Read on to what looks like the next element: the bytes passed over, and what was read behind them."""
    length, seam = held, b""
    while chunk := file.read(BLOCK_BYTES):
        data = seam + chunk
        between = _BETWEEN.search(data)
        if between:
            return length + between.end() - len(seam), data[between.end() :]
        length += len(chunk)
        seam = data[-256:]
    return length, b"]"
