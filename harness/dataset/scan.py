"""All rules for one block of rows, in a worker process. Results are flat arrays, cheap to send back."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.dataset.block_reader import LONGEST_ROW, Block
from harness.dataset.row import DataRow, decode_row, row_of
from harness.dataset.row_rules import RowInspection, inspect_row, opening, sentences, text_of
from harness.dataset.similarity import FEWEST_PAIRS, band_keys, digests, signatures, sketch

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# one line of the index that the scan keeps on disk for each row
INDEX_FIELDS = (
    ("offset", "u8"), ("size", "u4"), ("line", "u4"),
    ("instruction", "u4"), ("input", "u4"), ("output", "u4"),
    ("language", "u1"), ("asked", "u1"), ("flags", "u1"),
)  # fmt: skip
WHOLE, ENDS_WELL, SEEMS_CUT, PAIRED = 1, 2, 4, 8


class ScanSettings(NamedTuple):
    """`names`: look for personal names; `limit`: the most excerpts per kind that a block returns."""

    names: bool = True
    limit: int = 3


class ScanResult(NamedTuple):
    """The result of a block. Row numbers are those of the file; `languages`: this block's codes by number."""

    rows: int
    hits: dict[str, array[int]]
    excerpts: dict[str, list[tuple[int, str]]]
    records: bytes
    languages: list[str]
    exact: Array
    question: Array
    answer: Array
    whole: Array
    paired: Array
    bands: Array
    sketches: Array
    sentences: tuple[Array, Array]
    openings: tuple[Array, Array]
    names: tuple[Array, Array]
    origins: Counter[str]


class _Columns:
    """Collects the numbers of one block, row by row."""

    def __init__(self) -> None:
        self.hits: dict[str, array[int]] = {}
        self.excerpts: dict[str, list[tuple[int, str]]] = {}
        self.index: list[tuple[int, ...]] = []
        self.languages: dict[str, int] = {"": 0}
        # hashed together at the end
        self.questions: list[str] = []
        self.answers: list[str] = []
        self.whole = array("Q")
        self.paired, self.pairs = array("Q"), []  # type: tuple[array[int], list[list[str]]]
        self.units: dict[str, tuple[list[str], array[int]]] = {
            name: ([], array("Q")) for name in ("sentences", "openings", "names")
        }
        self.origins: Counter[str] = Counter()

    def hit(self, kind: str, row: int, said: str, limit: int) -> None:
        self.hits.setdefault(kind, array("Q")).append(row)
        kept = self.excerpts.setdefault(kind, [])
        if len(kept) < limit:
            kept.append((row, said))

    def unit(self, name: str, texts: set[str], row: int) -> None:
        found, rows = self.units[name]
        found.extend(texts)
        rows.extend([row] * len(texts))


def scan_block(block: Block, settings: ScanSettings) -> ScanResult:
    """All rows of the block."""
    columns = _Columns()
    line, seen = block.line, 0
    for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
        row_number = block.row + number
        line += block.data.count(b"\n", seen, start)
        seen = start
        place = (block.offset + start, min(end - start if end else block.skipped, 2**32 - 1), line)
        if end == 0:
            columns.hit(
                "too-long",
                row_number,
                f"{block.skipped:,} bytes; rows above {LONGEST_ROW >> 20} MB are skipped",
                settings.limit,
            )
            columns.index.append((*place, 0, 0, 0, 0, 0, 0))
            continue
        row = row_of(*decode_row(block.data[start:end]))
        for kind, said in row.problems:
            columns.hit(kind, row_number, said, settings.limit)
        flags = _add_row(columns, row, row_number, settings) if row.whole else (0, 0, 0)
        columns.index.append((*place, len(row.instruction), len(row.input), len(row.output), *flags))
        if row.origin:
            columns.origins[row.origin] += 1
    return _finish(columns, len(block.starts))


def _add_row(columns: _Columns, row: DataRow, number: int, settings: ScanSettings) -> tuple[int, int, int]:
    """Add one complete row; returns its languages and flags for the index."""
    seen = inspect_row(row, settings.names)
    if seen.hits:
        _add_hits(columns, seen, text_of(row), number, settings.limit)
    columns.whole.append(number)
    columns.questions.append(seen.question)
    columns.answers.append(seen.answer)
    flags = WHOLE | (ENDS_WELL if seen.ends_well else 0) | (SEEMS_CUT if seen.seems_cut else 0)
    if len(seen.pairs) >= FEWEST_PAIRS:
        flags |= PAIRED
        columns.paired.append(number)
        columns.pairs.append(seen.pairs)
    columns.unit("sentences", set(sentences(row.output)), number)
    begin = opening(seen.answer)
    if begin:
        columns.unit("openings", {begin}, number)
    if seen.names:
        columns.unit("names", set(seen.names), number)
    codes = columns.languages
    return codes.setdefault(seen.language, len(codes)), codes.setdefault(seen.asked_in, len(codes)), flags


def _add_hits(columns: _Columns, seen: RowInspection, text: str, number: int, limit: int) -> None:
    kinds = set()
    for hit in seen.hits:
        if hit.kind not in kinds:
            kinds.add(hit.kind)
            kept = columns.excerpts.get(hit.kind, ())
            said = (hit.said or excerpt(text, hit.start, hit.end, hit.kind)) if len(kept) < limit else ""
            columns.hit(hit.kind, number, said, limit)


# kinds that an excerpt must not repeat in full
_SECRETIVE = frozenset({"secret", "card-number", "iban"})


def excerpt(text: str, start: int, end: int, kind: str = "", around: int = 30) -> str:
    """The place with some text before and after it, on one line; keys and account numbers are shortened."""
    found = text[start:end]
    if kind in _SECRETIVE and len(found) > 8:
        found = f"{found[:4]}…{found[-2:]}"
    elif len(found) > 80:
        found = f"{found[:60]} … {found[-12:]}"
    before = text[max(0, start - around) : start]
    behind = text[end : end + around]
    said = f"{'…' if start > around else ''}{before}{found}{behind}{'…' if end + around < len(text) else ''}"
    return " ".join(said.split())


def _finish(columns: _Columns, rows: int) -> ScanResult:
    import numpy as np

    def numbers(values: array[int]) -> Array:
        return np.frombuffer(values, dtype=np.uint64).copy() if len(values) else np.empty(0, dtype=np.uint64)

    if columns.pairs:
        signature = signatures(columns.pairs)
        bands, sketches = band_keys(signature), sketch(signature)
    else:
        bands, sketches = np.empty((0, 0), dtype=np.uint64), np.empty((0, 0), dtype=np.uint8)
    units = {name: (digests(texts), numbers(found)) for name, (texts, found) in columns.units.items()}
    asked = digests(columns.questions)
    said = digests(columns.answers)
    return ScanResult(
        rows=rows,
        hits=columns.hits,
        excerpts=columns.excerpts,
        records=np.array(columns.index, dtype=list(INDEX_FIELDS)).tobytes(),
        languages=list(columns.languages),
        # of both: multiplied, so that a row whose answer is its question is not 0
        exact=asked * np.uint64(0x9E3779B97F4A7C15) ^ said,
        question=asked,
        answer=said,
        whole=numbers(columns.whole),
        paired=numbers(columns.paired),
        bands=bands,
        sketches=sketches,
        sentences=units["sentences"],
        openings=units["openings"],
        names=units["names"],
        origins=columns.origins,
    )
