"""`data split`: a held-out set with no near-copy on the other side of the cut, the same for the same seed.

groups of alike rows ─▶ shuffled by seed ─▶ whole groups held out until there are enough ─▶ the cut is searched
exactly for pairs that the grouping missed; a row that is like a held-out one is held out too
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.dataset.block_reader import blocks
from harness.dataset.check import Checked
from harness.dataset.row import decode, row_of
from harness.dataset.row_reader import row_words
from harness.dataset.row_writer import RowWriter, new_file
from harness.dataset.similarity import ALIKE, FEWEST_PAIRS, Groups, jaccard, pairs_of


class Cut(NamedTuple):
    """Rows to hold out, rows that can be used at all, and how many were moved because they are like a held-out one."""

    held_out: frozenset[int]
    usable: int
    moved: int


def choose(checked: Checked, wanted: int, seed: int) -> Cut:
    """Which rows are held out: about `wanted`, a group of alike rows never parted."""
    together = Groups()
    for groups in (checked.copies.exact, checked.copies.near, checked.copies.asked):
        for first, alike in groups.members().items():
            for row in alike:
                together.join(first, row)
    usable = sorted(row for row, _ in _usable(checked))
    members: dict[int, list[int]] = {}
    for row in usable:
        members.setdefault(together.first(row), []).append(row)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    # single rows first: a large group would fill the held-out set with one question
    order.sort(key=lambda first: len(members[first]) > max(1, wanted // 10))
    held_out: set[int] = set()
    for first in order:
        if len(held_out) + len(members[first]) <= wanted:
            held_out.update(members[first])
        if len(held_out) >= wanted:
            break
    moved = _moved(checked, held_out)
    return Cut(frozenset(held_out), len(usable), moved)


def _usable(checked: Checked) -> Iterator[tuple[int, bytes]]:
    """Rows that can be trained on, with their raw text."""
    for block in blocks(checked.source, []):
        for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
            raw = block.data[start:end]
            if end and row_of(*decode(raw)).whole:
                yield block.row + number, raw


def _moved(checked: Checked, held_out: set[int]) -> int:
    """Hold out too whatever is like a held-out row, until nothing is; returns how many rows that were."""
    moved, fresh = 0, set(held_out)
    while fresh:
        index = _prefixes(checked, fresh)
        fresh = set()
        for row, raw in _usable(checked):
            if row in held_out:
                continue
            pairs = _pairs(raw)
            near = {other for pair in _prefix(pairs) for other in index.get(pair, ())}
            if any(jaccard(pairs, checked.rows.pairs(other)) >= ALIKE for other in near):
                fresh.add(row)
        held_out |= fresh
        moved += len(fresh)
    return moved


def _prefixes(checked: Checked, rows: set[int]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for row in sorted(rows):
        for pair in _prefix(checked.rows.pairs(row)):
            index.setdefault(pair, []).append(row)
    return index


def _prefix(pairs: frozenset[str]) -> list[str]:
    """Pairs of which two sets with an overlap of ALIKE must share one (prefix filtering, in one fixed order)."""
    if len(pairs) < FEWEST_PAIRS:
        return []
    return sorted(pairs, key=_shuffled)[: len(pairs) - int(ALIKE * len(pairs) + 0.9999) + 1]


def _shuffled(pair: str) -> str:
    # rare pairs differ at their ends more than at their beginnings; any fixed order would do
    return pair[::-1]


def _pairs(raw: bytes) -> frozenset[str]:
    return frozenset(pairs_of([word for part in row_words(row_of(*decode(raw))) for word in part]))


def write_split(checked: Checked, cut: Cut, train: Path, held_out: Path) -> tuple[int, int]:
    """Both files; rows as they were written. Returns the rows of each."""
    with new_file(train) as train_file, new_file(held_out) as held_file:
        writers = RowWriter(train_file), RowWriter(held_file)
        for row, raw in _usable(checked):
            writers[row in cut.held_out].write_raw(raw)
        for writer in writers:
            writer.end()
    return writers[0].rows, writers[1].rows
