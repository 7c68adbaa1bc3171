"""`data split`: a held-out set without near-duplicates in the training set, the same for the same seed.

groups of similar rows ─▶ shuffled by seed ─▶ whole groups held out until there are enough ─▶ exact search for similar
pairs that the grouping missed; a row that is similar to a held-out one is held out too
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.dataset.block_reader import read_blocks
from harness.dataset.check import CheckedFile
from harness.dataset.row import decode_row, row_of
from harness.dataset.row_reader import row_words
from harness.dataset.row_writer import RowWriter, new_file
from harness.dataset.similarity import ALIKE, FEWEST_PAIRS, Groups, jaccard, pairs_of


class SplitRows(NamedTuple):
    """The rows to hold out, the number of usable rows, and of rows moved because they are similar to a held-out one."""

    held_out: frozenset[int]
    usable: int
    moved: int


def choose_held_out(checked: CheckedFile, wanted: int, seed: int) -> SplitRows:
    """The rows to hold out: about `wanted`; a group of similar rows is never split."""
    together = Groups()
    for groups in (checked.copies.exact, checked.copies.near, checked.copies.asked):
        for first, alike in groups.members().items():
            for row in alike:
                together.join(first, row)
    usable = sorted(row for row, _ in _usable_rows(checked))
    members: dict[int, list[int]] = {}
    for row in usable:
        members.setdefault(together.first(row), []).append(row)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    # large groups last: one of them would fill the held-out set with a single question
    order.sort(key=lambda first: len(members[first]) > max(1, wanted // 10))
    held_out: set[int] = set()
    for first in order:
        if len(held_out) + len(members[first]) <= wanted:
            held_out.update(members[first])
        if len(held_out) >= wanted:
            break
    moved = _move_similar(checked, held_out)
    return SplitRows(frozenset(held_out), len(usable), moved)


def _usable_rows(checked: CheckedFile) -> Iterator[tuple[int, bytes]]:
    """Rows that can be trained on, with their raw text."""
    for block in read_blocks(checked.source, []):
        for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
            raw = block.data[start:end]
            if end and row_of(*decode_row(raw)).whole:
                yield block.row + number, raw


def _move_similar(checked: CheckedFile, held_out: set[int]) -> int:
    """Hold out rows that are similar to a held-out one too, until there are none; returns how many were moved."""
    moved, fresh = 0, set(held_out)
    while fresh:
        index = _prefixes(checked, fresh)
        fresh = set()
        for row, raw in _usable_rows(checked):
            if row in held_out:
                continue
            pairs = _pairs(raw)
            near = {other for pair in _prefix(pairs) for other in index.get(pair, ())}
            if any(jaccard(pairs, checked.rows.pairs(other)) >= ALIKE for other in near):
                fresh.add(row)
        held_out |= fresh
        moved += len(fresh)
    return moved


def _prefixes(checked: CheckedFile, rows: set[int]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for row in sorted(rows):
        for pair in _prefix(checked.rows.pairs(row)):
            index.setdefault(pair, []).append(row)
    return index


def _prefix(pairs: frozenset[str]) -> list[str]:
    """Pairs of which two sets with overlap ALIKE must share at least one (prefix filtering, in a fixed order)."""
    if len(pairs) < FEWEST_PAIRS:
        return []
    return sorted(pairs, key=_reverse)[: len(pairs) - int(ALIKE * len(pairs) + 0.9999) + 1]


def _reverse(pair: str) -> str:
    # the ends of rare pairs differ more than their beginnings; any fixed order is correct
    return pair[::-1]


def _pairs(raw: bytes) -> frozenset[str]:
    return frozenset(pairs_of([word for part in row_words(row_of(*decode_row(raw))) for word in part]))


def write_split(checked: CheckedFile, cut: SplitRows, train: Path, held_out: Path) -> tuple[int, int]:
    """Write both files, rows byte for byte. Returns the number of rows in each."""
    with new_file(train) as train_file, new_file(held_out) as held_file:
        writers = RowWriter(train_file), RowWriter(held_file)
        for row, raw in _usable_rows(checked):
            writers[row in cut.held_out].write_raw(raw)
        for writer in writers:
            writer.end()
    return writers[0].rows, writers[1].rows
