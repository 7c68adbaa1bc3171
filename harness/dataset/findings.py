"""What a check says: findings by kind, worst first, and the document of every `data` command."""

from __future__ import annotations

from array import array
from functools import cache
from importlib import resources

import msgspec

SEVERITIES = ("error", "warning", "info")
# row numbers that a finding lists; its count is never cut
MOST_ROWS = 10_000


class Kind(msgspec.Struct, frozen=True):
    """One thing that can be wrong. `clean`: drop, mend, mask or leave."""

    severity: str
    clean: str
    title: str
    why: str


@cache
def kinds() -> dict[str, Kind]:
    import tomllib

    text = (resources.files("harness.dataset") / "kinds.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["kinds"], dict[str, Kind])


class Example(msgspec.Struct, frozen=True):
    """One row that shows the finding. `row` is None for the file itself; `line` counts from 1."""

    row: int | None
    line: int | None
    excerpt: str


class Finding(msgspec.Struct, frozen=True):
    """Everything of one kind. `rows` are 0-based and at most MOST_ROWS, `lines` theirs in the file; `count` is exact.

    `groups`: for copies and conflicts, rows that belong together (the first ones).
    """

    kind: str
    severity: str
    rows: tuple[int, ...]
    summary: str
    excerpt: str
    count: int
    lines: tuple[int, ...] = ()
    why: str = ""
    clean: str = "leave"
    examples: tuple[Example, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


class Lengths(msgspec.Struct, frozen=True):
    """A histogram: `counts[i]` rows between `edges[i]` (included) and `edges[i + 1]`."""

    unit: str
    edges: tuple[int, ...]
    counts: tuple[int, ...]
    smallest: int
    median: float
    largest: int


class Origins(msgspec.Struct, frozen=True):
    """Rows by who wrote them, as they are marked (`"kind": "organic"`); `unmarked` says nothing."""

    organic: int = 0
    semi_synthetic: int = 0
    synthetic: int = 0
    unmarked: int = 0


class Steps(msgspec.Struct, frozen=True):
    """What the recipe makes of the rows. `seconds` is None until this machine has finished a run of the recipe."""

    total: int
    epochs: float
    seconds: float | None
    because: str


class Tokens(msgspec.Struct, frozen=True):
    """What the recipe's own tokenizer and Axolotl's own prompt make of the rows.

    `over_length`: rows above sequence_len; `kept`: rows that are trained on. `efficiency`: tokens that are no padding
    among all that are computed, 0 to 1.
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
    steps: Steps
    lengths: Lengths


class Written(msgspec.Struct, frozen=True):
    """A file that the command wrote, or would write (`written` false)."""

    path: str
    rows: int
    what: str
    written: bool = True


class Change(msgspec.Struct, frozen=True):
    """What cleaning does about one kind: how many rows, and what one looks like before and after."""

    kind: str
    does: str
    rows: int
    row: int
    before: str
    after: str


class DataReport(msgspec.Struct, frozen=True):
    """The answer of `data check`, `clean`, `import` and `split`. `rows`: rows read."""

    action: str
    file: str
    rows: int
    findings: tuple[Finding, ...] = ()
    flagged_rows: int = 0
    tokens: Tokens | None = None
    lengths: tuple[Lengths, ...] = ()
    languages: dict[str, int] = {}
    origins: Origins = Origins()
    changes: tuple[Change, ...] = ()
    written: tuple[Written, ...] = ()
    skipped: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    seconds: float | None = None


def finding(
    kind: str,
    rows: array[int] | list[int],
    summary: str,
    examples: tuple[Example, ...],
    groups: tuple[tuple[int, ...], ...] = (),
    lines: tuple[int, ...] = (),
    count: int | None = None,
) -> Finding:
    """A finding with what kinds.toml says of its kind."""
    known = kinds()[kind]
    return Finding(
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


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """By severity, then in the order of kinds.toml."""
    order = list(kinds())
    return tuple(sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), order.index(each.kind))))
