"""Rows that are duplicates, near-duplicates, or different answers to the same question."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.dataset.external_sort import groups
from harness.dataset.row_reader import RowReader, row_words
from harness.dataset.similarity import ALIKE, SKETCH, Groups, jaccard, pairs_of
from harness.dataset.stats import DataStats

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# at most this many rows with the same question are compared with each other
MOST_ANSWERS = 20
# a sketch of 64 bytes has a spread of 0.06 at 0.7: below this value the real overlap is nearly always under ALIKE
SKETCH_ALIKE = 0.52
# compared pairs that are remembered: 8 MB; others may be compared again
MOST_COMPARED = 1_000_000
MOST_RUNS = 8
# pairs compared at a time
CHUNK = 50_000
# sketches are read in windows where at least DENSE of them are needed, else one by one
WINDOW, DENSE = 4096, 32


class Copies(NamedTuple):
    """`exact`, `near`: groups of rows; `conflicts`: groups of rows with the same question and different answers.

    `asked`: groups of rows with the same question.
    """

    exact: Groups
    near: Groups
    conflicts: list[tuple[int, ...]]
    asked: Groups


def find_copies(stats: DataStats, rows: RowReader) -> Copies:
    """All of them, from the scan's files."""
    exact = Groups()
    for records, starts in stats.exact.equal():
        for group in groups(records, starts):
            found = group["row"].tolist()
            for row in found[1:]:
                exact.join(found[0], row)
    near = Groups()
    for one, other in _candidates(stats):
        if exact.first(one) == exact.first(other) or near.first(one) == near.first(other):
            continue
        if rows.alike(one, other) >= ALIKE:
            near.join(one, other)
    conflicts, asked = _conflicts(stats, rows)
    return Copies(exact, near, conflicts, asked)


def _candidates(stats: DataStats) -> Iterator[tuple[int, int]]:
    """Pairs in the same band with similar sketches: each row with the first row of its band and the one before it."""
    import numpy as np

    path = stats.folder / "sketches"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # a pair in several bands comes up once in each; a set of all pairs would take ten times the memory
        met = _ComparedPairs()
        for records, starts in stats.bands.equal():
            lengths = np.diff(np.append(starts, len(records)))
            leaders = np.repeat(records["row"][starts], lengths)
            before = np.concatenate((records["row"][:1], records["row"][:-1]))
            first = np.zeros(len(records), dtype=bool)
            first[starts] = True
            ones = np.concatenate((leaders[~first], before[~first]))
            others = np.concatenate((records["row"][~first],) * 2)
            keys = np.unique(ones.astype(np.uint64) << np.uint64(32) | others.astype(np.uint64))
            keys = met.new(keys)
            agreed = []
            for at in range(0, len(keys), CHUNK):
                few = keys[at : at + CHUNK]
                agreed.append(few[_sketch_agreement(descriptor, few) >= SKETCH_ALIKE])
                for key in agreed[-1].tolist():
                    yield key >> 32, key & 0xFFFFFFFF
            met.add(agreed)
    finally:
        os.close(descriptor)


class _ComparedPairs:
    """Pairs compared so far, in a few sorted arrays: merging them into one every time would be slow."""

    def __init__(self) -> None:
        self._runs: list[Array] = []

    def new(self, keys: Array) -> Array:
        """The sorted keys that were not compared yet."""
        import numpy as np

        for run in self._runs:
            place = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            keys = keys[run[place] != keys]
        return keys

    def add(self, sorted_parts: list[Array]) -> None:
        import numpy as np

        if sum(map(len, self._runs)) >= MOST_COMPARED or not any(map(len, sorted_parts)):
            return
        self._runs.append(np.concatenate(sorted_parts))
        if len(self._runs) > MOST_RUNS:
            self._runs = [np.sort(np.concatenate(self._runs))]


def _sketch_agreement(descriptor: int, keys: Array) -> Array:
    """The share of equal bytes in the two sketches of each pair."""
    import numpy as np

    rows, place = np.unique(np.concatenate((keys >> np.uint64(32), keys & np.uint64(0xFFFFFFFF))), return_inverse=True)
    sketches = _sketches(descriptor, rows)
    share: Array = (sketches[place[: len(keys)]] == sketches[place[len(keys) :]]).mean(axis=1)
    return share


def _sketches(descriptor: int, rows: Array) -> Array:
    """The sketches of these sorted rows. Not memory-mapped, because that would keep the whole file in memory."""
    import numpy as np

    found = np.empty((len(rows), SKETCH), dtype=np.uint8)
    windows, starts = np.unique(rows // WINDOW, return_index=True)
    for window, start, end in zip(windows.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        wanted = rows[start:end]
        if len(wanted) >= DENSE:
            raw = os.pread(descriptor, WINDOW * SKETCH, window * WINDOW * SKETCH)
            found[start:end] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, SKETCH)[wanted - window * WINDOW]
        else:
            raw = b"".join([os.pread(descriptor, SKETCH, row * SKETCH) for row in wanted.tolist()])
            found[start:end] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, SKETCH)
    return found


def _conflicts(stats: DataStats, rows: RowReader) -> tuple[list[tuple[int, ...]], Groups]:
    found: list[tuple[int, ...]] = []
    asked = Groups()
    for records, starts in stats.questions.equal():
        for group in groups(records, starts):
            together = group["row"].tolist()
            for row in together[1:]:
                asked.join(together[0], row)
            answers = group["also"]
            if (answers == answers[0]).all():
                continue
            if _differ(rows, together):
                found.append(tuple(sorted(together)))
    return sorted(found), asked


def _differ(rows: RowReader, together: list[int]) -> bool:
    """Whether the answers differ: their words overlap little. Similar answers are near-duplicates instead."""
    answers = [row_words(rows.row(row))[1] for row in together[:MOST_ANSWERS]]
    first = answers[0]
    return any(_unlike(first, other) for other in answers[1:])


def _unlike(one: list[str], other: list[str]) -> bool:
    if len(one) < 6 or len(other) < 6:
        return one != other
    return jaccard(frozenset(pairs_of(one)), frozenset(pairs_of(other))) < ALIKE
