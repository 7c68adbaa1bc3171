"""Findings by kind, worst first, and the document of every `data` command."""

from __future__ import annotations

from array import array
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

SEVERITIES = ("error", "warning", "info")
# most row numbers that a finding lists; its count is always complete
MOST_ROWS = 10_000


Severity = Literal["error", "warning", "info"]
CleaningAction = Literal["drop", "repair", "mask", "leave"]


class FindingKind(msgspec.Struct, frozen=True):
    """One kind of finding. `clean`: what `data clean` does with it."""

    severity: Severity
    clean: CleaningAction
    title: str
    why: str


@cache
def kinds() -> dict[str, FindingKind]:
    import tomllib

    text = (resources.files("harness.dataset") / "kinds.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["kinds"], dict[str, FindingKind])


class Example(msgspec.Struct, frozen=True):
    """One row as an example. `row` is None for the file itself; `line` counts from 1."""

    row: int | None
    line: int | None
    excerpt: str


class DataFinding(msgspec.Struct, frozen=True):
    """All rows of one kind. `rows`: numbers from 0, at most 10,000 of them; `lines`: their lines; `count`: of all rows.

    `clean`: what `data clean` does; `groups`: rows that belong together, for duplicates and conflicts (the first ones).
    """

    kind: str
    severity: Severity
    rows: tuple[int, ...]
    summary: str
    excerpt: str
    count: int
    lines: tuple[int, ...] = ()
    why: str = ""
    clean: CleaningAction = "leave"
    examples: tuple[Example, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


class LengthHistogram(msgspec.Struct, frozen=True):
    """A histogram: `counts[i]` rows between `edges[i]` (included) and `edges[i + 1]`."""

    unit: str
    edges: tuple[int, ...]
    counts: tuple[int, ...]
    smallest: int
    median: float
    largest: int


class OriginCounts(msgspec.Struct, frozen=True):
    """Rows by origin, as marked in the row (`"kind": "organic"`); `unmarked`: rows without a mark."""

    organic: int = 0
    semi_synthetic: int = 0
    synthetic: int = 0
    unmarked: int = 0


class PlannedSteps(msgspec.Struct, frozen=True):
    """Steps of a training with the recipe. `seconds`: None until this machine has finished a run of the recipe."""

    total: int
    epochs: float
    seconds: float | None
    because: str


class TokenCounts(msgspec.Struct, frozen=True):
    """Token counts with the recipe's own tokenizer and Axolotl's own prompt.

    `over_length`: rows above sequence_len; `kept`: rows that are trained on. `efficiency`: the share of computed tokens
    that are not padding, 0 to 1.
    """

    recipe: str
    base_model: str
    sequence_len: int
    total: int
    trainable: int
    over_length: int
    over_length_does: str
    no_trainable: int
    no_eos: int
    kept: int
    packing: bool
    efficiency: float | None
    steps: PlannedSteps
    lengths: LengthHistogram


class WrittenFile(msgspec.Struct, frozen=True):
    """A file that the command wrote, or would write (`written` false)."""

    path: str
    rows: int
    what: str
    written: bool = True


class KindChange(msgspec.Struct, frozen=True):
    """What cleaning does with one kind: the number of rows, and one of them before and after."""

    kind: str
    does: str
    rows: int
    row: int
    before: str
    after: str


DataAction = Literal["check", "clean", "import", "split"]


class DataReport(msgspec.Struct, frozen=True):
    """The answer of `data check`, `clean`, `import` and `split`. `rows`: rows read."""

    action: DataAction
    file: str
    rows: int
    findings: tuple[DataFinding, ...] = ()
    flagged_rows: int = 0
    tokens: TokenCounts | None = None
    lengths: tuple[LengthHistogram, ...] = ()
    languages: dict[str, int] = {}
    origins: OriginCounts = OriginCounts()
    changes: tuple[KindChange, ...] = ()
    written: tuple[WrittenFile, ...] = ()
    skipped: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    seconds: float | None = None


def make_finding(
    kind: str,
    rows: array[int] | list[int],
    summary: str,
    examples: tuple[Example, ...],
    groups: tuple[tuple[int, ...], ...] = (),
    lines: tuple[int, ...] = (),
    count: int | None = None,
) -> DataFinding:
    """A finding with the texts of its kind from kinds.toml."""
    known = kinds()[kind]
    return DataFinding(
        kind=kind,
        severity=known.severity,
        rows=tuple(rows[:MOST_ROWS]),
        summary=summary,
        excerpt=examples[0].excerpt if examples else "",
        count=len(rows) if count is None else count,
        lines=lines,
        why=known.why,
        clean=known.clean,
        examples=examples,
        groups=groups,
    )


def sort_findings(findings: list[DataFinding]) -> tuple[DataFinding, ...]:
    """By severity, then in the order of kinds.toml."""
    order = list(kinds())
    return tuple(sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), order.index(each.kind))))
