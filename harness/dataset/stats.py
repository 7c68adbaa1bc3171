"""Adds up the results of the blocks. Memory use is constant: what grows with the rows is kept in files."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.dataset.external_sort import ExternalSort
from harness.dataset.findings import LengthHistogram
from harness.dataset.scan import ENDS_WELL, INDEX_FIELDS, WHOLE, ScanResult
from harness.dataset.similarity import SKETCH

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

EXAMPLES = 3
# language numbers fit into one byte
MOST_LANGUAGES = 255
# lengths are counted in classes of 5 %: fine enough for a median, and few
_CLASS = math.log(1.05)


class LengthCount:
    """Counts lengths in classes that grow by 5 %."""

    def __init__(self) -> None:
        import numpy as np

        self._counts = np.zeros(512, dtype=np.int64)
        self.smallest: int | None = None
        self.largest = 0

    def add(self, lengths: Array) -> None:
        import numpy as np

        if not len(lengths):
            return
        classes = (np.log(np.maximum(lengths, 1).astype(np.float64)) / _CLASS).astype(np.intp)
        self._counts += np.bincount(classes, minlength=512)[:512]
        low, high = int(lengths.min()), int(lengths.max())
        self.smallest = low if self.smallest is None else min(self.smallest, low)
        self.largest = max(self.largest, high)

    def quantile(self, share: float) -> float:
        """The length that this share of the rows does not exceed, to 5 %."""
        import numpy as np

        total = int(self._counts.sum())
        if not total:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._counts), share * total))
        return math.exp((place + 0.5) * _CLASS)

    def histogram(self, unit: str, bars: int = 24) -> LengthHistogram:
        """Bars of equal width from 0 to the 99.5th percentile; the last one includes longer ones."""
        import numpy as np

        top = max(10.0, min(float(self.largest), 1.1 * self.quantile(0.995)))
        width = _round_up(top / bars)
        middles = np.exp((np.arange(512) + 0.5) * _CLASS)
        bar = np.minimum(middles / width, bars - 1).astype(np.intp)
        counts = np.bincount(bar, weights=self._counts, minlength=bars).astype(int).tolist()
        while len(counts) > 1 and counts[-1] == 0:
            counts.pop()
        edges = [width * number for number in range(len(counts))]
        return LengthHistogram(
            unit, (*edges, max(edges[-1] + width, self.largest)), tuple(counts), self.smallest or 0,
            round(self.quantile(0.5), 1), self.largest,
        )  # fmt: skip


def _round_up(value: float) -> int:
    """1, 2, 5, 10, 20, 50 … at least the value."""
    size = 1
    while True:
        for step in (1, 2, 5):
            if step * size >= value:
                return step * size
        size *= 10


class DataStats:
    """All blocks of one file, and of the held-out file if there is one (its rows only serve to find leaks)."""

    def __init__(self, folder: Path, large: bool) -> None:
        import numpy as np

        parts, fewer = (64, 16) if large else (1, 1)
        self.folder = folder
        self.rows = 0
        self.hits: dict[str, array[int]] = {}
        self.excerpts: dict[str, list[tuple[int, str]]] = {}
        self.languages: list[str] = [""]
        self.said_in: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.whole, self.ends_well = 0, 0
        self.lengths = {name: LengthCount() for name in ("instruction", "input", "output")}
        self.index_type = np.dtype(list(INDEX_FIELDS))
        self._index = (folder / "index").open("wb")
        self._sketches = (folder / "sketches").open("wb")
        self.exact = ExternalSort(folder, "exact", fewer)
        self.questions = ExternalSort(folder, "questions", fewer, second=True)
        self.bands = ExternalSort(folder, "bands", parts)
        self.sentences = ExternalSort(folder, "sentences", fewer)
        self.openings = ExternalSort(folder, "openings", fewer)
        self.names = ExternalSort(folder, "names", fewer)

    def add(self, seen: ScanResult, own: bool = True) -> None:
        """Add the next block. Without `own` (held-out rows) only the data for comparing rows are kept."""
        import numpy as np

        index = np.frombuffer(seen.records, dtype=self.index_type).copy()
        self._renumber(index, seen.languages)
        self._index.write(index.tobytes())
        self.exact.add(seen.exact, seen.whole)
        self.questions.add(seen.question, seen.whole, seen.answer)
        if len(seen.paired):
            self.bands.add(seen.bands.ravel(), np.repeat(seen.paired, seen.bands.shape[1]))
        self._add_sketches(seen)
        self.rows += seen.rows
        if own:
            self._add_own(seen, index)

    def _add_own(self, seen: ScanResult, index: Array) -> None:
        import numpy as np

        for kind, hit in seen.hits.items():
            self.hits.setdefault(kind, array("Q")).extend(hit)
            kept = self.excerpts.setdefault(kind, [])
            kept.extend(seen.excerpts[kind][: EXAMPLES - len(kept)])
        whole = index[(index["flags"] & WHOLE) > 0]
        self.whole += len(whole)
        self.ends_well += int(((whole["flags"] & ENDS_WELL) > 0).sum())
        for name, count in self.lengths.items():
            count.add(whole[name] if name != "input" else whole[name][whole[name] > 0])
        codes, counts = np.unique(whole["language"], return_counts=True)
        for code, many in zip(codes.tolist(), counts.tolist(), strict=True):
            self.said_in[self.languages[code]] += many
        self.origins.update(seen.origins)
        for sorted_keys, (keys, rows) in (
            (self.sentences, seen.sentences),
            (self.openings, seen.openings),
            (self.names, seen.names),
        ):
            sorted_keys.add(keys, rows)

    def _add_sketches(self, seen: ScanResult) -> None:
        """One sketch per row, zeros for rows without one, so that a row's number is its place in the file."""
        import numpy as np

        block = np.zeros((seen.rows, SKETCH), dtype=np.uint8)
        if len(seen.paired):
            block[(seen.paired - np.uint64(self.rows)).astype(np.intp)] = seen.sketches
        self._sketches.write(block.tobytes())

    def _renumber(self, index: Array, languages: list[str]) -> None:
        """Replace the block's language numbers by those of the file."""
        import numpy as np

        numbers = []
        for code in languages:
            if code not in self.languages:
                if len(self.languages) >= MOST_LANGUAGES:
                    code = ""
                else:
                    self.languages.append(code)
            numbers.append(self.languages.index(code))
        table = np.array(numbers, dtype=np.uint8)
        for field in ("language", "asked"):
            index[field] = table[index[field]]

    def close(self) -> None:
        """After the last block: the files can be read now."""
        self._index.close()
        self._sketches.close()

    def abandon(self) -> None:
        self.close()
        for sorted_keys in (self.exact, self.questions, self.bands, self.sentences, self.openings, self.names):
            sorted_keys.close()

    def index_chunks(self, rows: int = 65536) -> Any:
        """`(first row, records)` of the index, in chunks."""
        import numpy as np

        first = 0
        with (self.folder / "index").open("rb") as file:
            while raw := file.read(rows * self.index_type.itemsize):
                records = np.frombuffer(raw, dtype=self.index_type)
                yield first, records
                first += len(records)
