"""Reads single rows of a scanned file again, by number: for excerpts, and to compare candidates exactly."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.dataset.block_reader import LONGEST_ROW
from harness.dataset.row import NOTHING, DataRow, decode_row, row_of
from harness.dataset.rules.phrases import fold_case
from harness.dataset.similarity import jaccard, pairs_of, words_of

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class RowReader:
    """`paths`: the files in order, each with the number of its first row; `index`: the scan's index."""

    def __init__(self, paths: list[tuple[Path, int]], index: Path, index_type: Any) -> None:
        self._files = [(os.open(path, os.O_RDONLY), first) for path, first in paths]
        self._index = os.open(index, os.O_RDONLY)
        self._type = index_type
        # pairs of words are needed many times while candidates are compared
        self.pairs = lru_cache(maxsize=2_000)(self._pairs)

    def close(self) -> None:
        for descriptor in (*(descriptor for descriptor, _ in self._files), self._index):
            os.close(descriptor)

    def record(self, row: int) -> Any:
        import numpy as np

        size = self._type.itemsize
        return np.frombuffer(os.pread(self._index, size, row * size), dtype=self._type)[0]

    def line(self, row: int) -> int:
        return int(self.record(row)["line"])

    def lines(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.line(row) for row in rows)

    def raw(self, row: int) -> bytes:
        record = self.record(row)
        if record["size"] > LONGEST_ROW:
            return b""
        descriptor = next(each for each, first in reversed(self._files) if row >= first)
        return os.pread(descriptor, int(record["size"]), int(record["offset"]))

    def row(self, row: int) -> DataRow:
        raw = self.raw(row)
        return row_of(*decode_row(raw)) if raw else NOTHING

    def _pairs(self, row: int) -> frozenset[str]:
        return frozenset(pairs_of([word for part in row_words(self.row(row)) for word in part]))

    def alike(self, one: int, other: int) -> float:
        """The overlap of two rows' word pairs, 0 to 1."""
        return jaccard(self.pairs(one), self.pairs(other))


def row_words(row: DataRow) -> tuple[list[str], list[str]]:
    """The words of the question (instruction and input) and of the answer, split as in the scan."""
    text = fold_case(f"{row.instruction}\n{row.input}\n{row.output}")
    output_at = len(text) - len(row.output)
    return words_of(text[:output_at]), words_of(text[output_at:])
