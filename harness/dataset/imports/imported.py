"""An imported row, and the counts of what was skipped."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class ImportedRow(NamedTuple):
    """One row: its texts, who wrote the answer (organic, semi-synthetic, synthetic or ""), and where it came from."""

    instruction: str
    input: str
    output: str
    kind: str
    source: str

    def as_row(self) -> dict[str, str]:
        row = {"instruction": self.instruction, "input": self.input, "output": self.output, "source": self.source}
        return {**row, "kind": self.kind} if self.kind else row


class Skips:
    """What was skipped, by reason, with the first place of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def skip(self, reason: str, place: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, place)

    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{count:,} skipped: {reason} (first: {self.first[reason]})" for reason, count in self.counts.most_common()
        )
