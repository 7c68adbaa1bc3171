"""Rules for the whole data set: duplicates, conflicts, outliers, rare languages, recurring sentences."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness.dataset.duplicates import Copies
from harness.dataset.external_sort import ExternalSort, groups
from harness.dataset.findings import MOST_ROWS, DataFinding, Example, kinds, make_finding
from harness.dataset.row import DataRow
from harness.dataset.row_reader import RowReader, row_words
from harness.dataset.row_rules import inspect_row, opening, sentences
from harness.dataset.scan import SEEMS_CUT, WHOLE
from harness.dataset.similarity import Groups, digests
from harness.dataset.stats import EXAMPLES, DataStats

# with fewer rows a share or a spread means nothing
FEWEST_FOR_OUTLIERS = 100
FEWEST_FOR_LANGUAGES = 20
# a language with a smaller share of the answers is rare
RARE_LANGUAGE = 0.05
# with a larger share of such rows the change of language is intended
CHANGES_ON_PURPOSE = 0.3
# where this share of the answers ends with the end of a sentence, one that does not is incomplete
MOSTLY_ENDS_WELL = 0.9
FEW_ROWS = 100
MOST_GROUPS = 50


class FindingRows(NamedTuple):
    """A finding, and all of its rows: the finding itself lists the first ones only."""

    finding: DataFinding
    rows: array[int]


class RecurrenceLimit(NamedTuple):
    """A text recurs when it is in at least `fewest` rows and in at least this share of them."""

    fewest: int
    share: float

    def threshold(self, rows: int) -> int:
        return max(self.fewest, int(self.share * rows + 0.999))


SENTENCES = RecurrenceLimit(8, 0.005)
OPENINGS = RecurrenceLimit(20, 0.1)
NAMES = RecurrenceLimit(5, 0.01)


def findings_from_rows(stats: DataStats, rows: RowReader) -> Iterator[FindingRows]:
    """Findings of single rows."""
    for kind, found in stats.hits.items():
        examples = tuple(Example(row, rows.line(row), said) for row, said in stats.excerpts[kind])
        yield _make_finding(kind, found, rows, examples=examples)


def findings_from_copies(copies: Copies, rows: RowReader, own_rows: int, all_rows: int) -> Iterator[FindingRows]:
    """`own_rows`: rows from this number on are those of the held-out set, which are only checked for leaks."""
    leaks = sorted(set(_leaks(copies, own_rows))) if all_rows > own_rows else []
    if leaks:
        yield _make_finding("leakage", array("Q", leaks), rows)
    exact = [row for row in copies.exact.later() if row < own_rows]
    if exact:
        yield _make_finding("duplicate", array("Q", exact), rows, groups=_groups(copies.exact, own_rows))
    # a row that is an exact duplicate is reported once
    near = [row for row in copies.near.later() if row < own_rows and copies.exact.first(row) == row]
    if near:
        yield _make_finding("near-duplicate", array("Q", near), rows, groups=_groups(copies.near, own_rows))
    conflicts = [tuple(row for row in group if row < own_rows) for group in copies.conflicts]
    conflicts = [group for group in conflicts if len(group) > 1]
    if conflicts:
        members = sorted({row for group in conflicts for row in group})
        examples = tuple(
            Example(
                row, rows.line(row), f"{_short(rows.row(row).instruction, 40)} → {_short(rows.row(row).output, 40)}"
            )
            for row in conflicts[0][:EXAMPLES]
        )
        yield _make_finding("label-conflict", array("Q", members), rows, examples, tuple(conflicts[:MOST_GROUPS]))


def _leaks(copies: Copies, own_rows: int) -> Iterator[int]:
    for together in (copies.exact, copies.near, copies.asked):
        for members in together.members().values():
            if members[-1] >= own_rows:
                yield from (row for row in members if row < own_rows)


def _groups(together: Groups, own_rows: int) -> tuple[tuple[int, ...], ...]:
    found = []
    for members in together.members().values():
        own = tuple(row for row in members if row < own_rows)
        if len(own) > 1:
            found.append(own)
            if len(found) == MOST_GROUPS:
                break
    return tuple(found)


def findings_from_outliers(
    stats: DataStats, rows: RowReader, wanted: tuple[str, ...], own_rows: int
) -> Iterator[FindingRows]:
    """Length outliers, rare languages, incomplete answers: one pass over the index. `wanted`: expected languages."""
    low, high = length_fences(stats)
    expected = expected_languages(stats, wanted)
    cut_counts = stats.whole >= FEWEST_FOR_LANGUAGES and stats.ends_well >= MOSTLY_ENDS_WELL * stats.whole
    hits: dict[str, array[int]] = {
        kind: array("Q") for kind in ("length-outlier", "wrong-language", "answer-language", "cut-answer")
    }
    known = [code in expected for code in stats.languages]
    foreign = [bool(code) and bool(expected) and code not in expected for code in stats.languages]
    for first, records in stats.index_chunks():
        _spread_chunk(hits, first, records[: max(0, own_rows - first)], (low, high), known, foreign, cut_counts)
    if len(hits["answer-language"]) > CHANGES_ON_PURPOSE * stats.whole:
        hits["answer-language"] = array("Q")
    for kind, found in hits.items():
        if found:
            yield _make_finding(kind, found, rows, _examples_of(kind, found, rows, stats))


def _spread_chunk(
    hits: dict[str, array[int]],
    first: int,
    records: Any,
    fences: tuple[float, float],
    known: list[bool],
    foreign: list[bool],
    cut_counts: bool,
) -> None:
    import numpy as np

    whole = (records["flags"] & WHOLE) > 0
    is_foreign = np.array(foreign)[records["language"]]
    masks = {
        "length-outlier": (records["output"] < fences[0]) | (records["output"] > fences[1]),
        "wrong-language": is_foreign,
        "answer-language": np.array(known)[records["language"]]
        & np.array(known)[records["asked"]]
        & (records["language"] != records["asked"])
        & ~is_foreign,
        "cut-answer": ((records["flags"] & SEEMS_CUT) > 0) & cut_counts,
    }
    for kind, mask in masks.items():
        hits[kind].extend((np.flatnonzero(mask & whole) + first).tolist())


def length_fences(stats: DataStats) -> tuple[float, float]:
    """The limits outside which the length of an answer is an outlier: three quartile ratios (after Tukey)."""
    count = stats.lengths["output"]
    if stats.whole < FEWEST_FOR_OUTLIERS:
        return 0.0, float("inf")
    low, high = count.quantile(0.25), count.quantile(0.75)
    spread = max(high / low, 1.4) ** 3
    return low / spread, high * spread


def expected_languages(stats: DataStats, wanted: tuple[str, ...]) -> frozenset[str]:
    """The common languages of the answers; empty where there are too few rows to know."""
    if wanted:
        return frozenset(wanted)
    known = {code: count for code, count in stats.said_in.items() if code}
    total = sum(known.values())
    if total < FEWEST_FOR_LANGUAGES:
        return frozenset()
    return frozenset(code for code, count in known.items() if count >= RARE_LANGUAGE * total)


def _examples_of(kind: str, found: array[int], rows: RowReader, stats: DataStats) -> tuple[Example, ...]:
    examples = []
    for number in found[:EXAMPLES]:
        row, record = rows.row(number), rows.record(number)
        said = _short(row.output)
        if kind == "length-outlier":
            usual = stats.lengths["output"].quantile(0.5)
            said = f"{len(row.output):,} characters, the median is {usual:,.0f}: {_short(row.output, 40)}"
        elif kind == "wrong-language":
            said = f"{stats.languages[record['language']]}: {said}"
        elif kind == "answer-language":
            asked, answered = stats.languages[record["asked"]], stats.languages[record["language"]]
            said = f"asked in {asked}, answered in {answered}: {_short(row.instruction, 30)} → {_short(row.output, 30)}"
        elif kind == "cut-answer":
            said = f"…{' '.join(row.output.split())[-60:]}"
        examples.append(Example(number, int(record["line"]), said))
    return tuple(examples)


def findings_from_recurrence(stats: DataStats, rows: RowReader) -> Iterator[FindingRows]:
    """Sentences, openings and names that many rows contain."""
    for kind, sorted_keys, recurring, texts in (
        ("boilerplate", stats.sentences, SENTENCES, lambda row: sentences(row.output)),
        ("repeated-opening", stats.openings, OPENINGS, lambda row: [opening(" ".join(row_words(row)[1]))]),
        ("recurring-name", stats.names, NAMES, lambda row: inspect_row(row).names),
    ):
        found = _find_recurring(sorted_keys, recurring.threshold(stats.whole), rows, texts)
        if found:
            members, counts = found
            examples = tuple(
                Example(first, rows.line(first), f"“{_short(text, 80)}” in {count:,} rows")
                for (text, first), count in counts.most_common(EXAMPLES)
            )
            yield _make_finding(kind, members, rows, examples)


def _find_recurring(
    sorted_keys: ExternalSort, threshold: int, rows: RowReader, texts: Callable[[DataRow], list[str]]
) -> tuple[array[int], Counter[tuple[str, int]]] | None:
    members: set[int] = set()
    counts: Counter[tuple[str, int]] = Counter()
    for records, starts in sorted_keys.equal():
        for group in groups(records, starts):
            if len(group) < threshold:
                continue
            found, key = group["row"].tolist(), int(group["key"][0])
            members.update(found)
            candidates = texts(rows.row(found[0]))
            hashes = digests(candidates)
            said = next((text for text, each in zip(candidates, hashes, strict=True) if int(each) == key), "")
            counts[said, found[0]] = len(found)
    return (array("Q", sorted(members)), counts) if members else None


def findings_from_row_count(stats: DataStats) -> Iterator[FindingRows]:
    """A finding when there are only few rows."""
    if stats.whole < FEW_ROWS:
        said = f"{stats.whole} usable {'row' if stats.whole == 1 else 'rows'}"
        yield FindingRows(make_finding("few-rows", [], said, (Example(None, None, said),), count=1), array("Q"))


def _make_finding(
    kind: str,
    found: array[int],
    rows: RowReader,
    examples: tuple[Example, ...] | None = None,
    groups: tuple[tuple[int, ...], ...] = (),
) -> FindingRows:
    if examples is None:
        examples = tuple(
            Example(row, rows.line(row), _short(f"{rows.row(row).instruction} → {rows.row(row).output}"))
            for row in found[:EXAMPLES]
        )
    many = len(found)
    summary = f"{kinds()[kind].title}: {many:,} {'row' if many == 1 else 'rows'}"
    made = make_finding(kind, found, summary, examples, groups, rows.lines(tuple(found[:MOST_ROWS])))
    return FindingRows(made, found)


def _short(text: str, most: int = 70) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
