"""What only the whole data set shows: copies, conflicts, outliers, foreign languages, sentences that recur."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from harness.dataset.duplicates import Copies
from harness.dataset.external_sort import Spill, groups
from harness.dataset.findings import MOST_ROWS, Example, Finding, finding, kinds
from harness.dataset.row import Row
from harness.dataset.row_reader import Reread, row_words
from harness.dataset.row_rules import inspect, opening, sentences
from harness.dataset.scan import SEEMS_CUT, WHOLE
from harness.dataset.similarity import Groups, digests
from harness.dataset.stats import EXAMPLES, Tally

# below this number of rows a share or a spread means nothing
FEWEST_FOR_OUTLIERS = 100
FEWEST_FOR_LANGUAGES = 20
# a language that fewer of the answers are in is rare
RARE_LANGUAGE = 0.05
# more rows than this that change the language do so on purpose
CHANGES_ON_PURPOSE = 0.3
# answers end with a sentence's end nearly always: then one that does not is cut
MOSTLY_ENDS_WELL = 0.9
FEW_ROWS = 100
MOST_GROUPS = 50


class Told(NamedTuple):
    """A finding, and all of its rows: the finding itself lists the first ones only."""

    finding: Finding
    rows: array[int]


class Recurring(NamedTuple):
    """From how many rows on a text counts as recurring: at least so many, and at least this share."""

    fewest: int
    share: float

    def threshold(self, rows: int) -> int:
        return max(self.fewest, int(self.share * rows + 0.999))


SENTENCES = Recurring(8, 0.005)
OPENINGS = Recurring(20, 0.1)
NAMES = Recurring(5, 0.01)


def from_rows(tally: Tally, rows: Reread) -> Iterator[Told]:
    """What the rows showed by themselves."""
    for kind, found in tally.hits.items():
        examples = tuple(Example(row, rows.line(row), said) for row, said in tally.excerpts[kind])
        yield _told(kind, found, rows, examples=examples)


def from_copies(copies: Copies, rows: Reread, own_rows: int, all_rows: int) -> Iterator[Told]:
    """`own_rows`: rows from this number on are the held-out set's; they are only looked at for leaks."""
    leaks = sorted(set(_leaks(copies, own_rows))) if all_rows > own_rows else []
    if leaks:
        yield _told("leakage", array("Q", leaks), rows)
    exact = [row for row in copies.exact.later() if row < own_rows]
    if exact:
        yield _told("duplicate", array("Q", exact), rows, groups=_groups(copies.exact, own_rows))
    # a row that is an exact copy is told once
    near = [row for row in copies.near.later() if row < own_rows and copies.exact.first(row) == row]
    if near:
        yield _told("near-duplicate", array("Q", near), rows, groups=_groups(copies.near, own_rows))
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
        yield _told("label-conflict", array("Q", members), rows, examples, tuple(conflicts[:MOST_GROUPS]))


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


def from_spread(tally: Tally, rows: Reread, wanted: tuple[str, ...], own_rows: int) -> Iterator[Told]:
    """Outliers in length, rare languages, cut answers: one pass over the index. `wanted`: languages that belong."""
    low, high = length_fences(tally)
    expected = expected_languages(tally, wanted)
    cut_counts = tally.whole >= FEWEST_FOR_LANGUAGES and tally.ends_well >= MOSTLY_ENDS_WELL * tally.whole
    hits: dict[str, array[int]] = {
        kind: array("Q") for kind in ("length-outlier", "wrong-language", "answer-language", "cut-answer")
    }
    known = [code in expected for code in tally.languages]
    foreign = [bool(code) and bool(expected) and code not in expected for code in tally.languages]
    for first, records in tally.index_chunks():
        _spread_chunk(hits, first, records[: max(0, own_rows - first)], (low, high), known, foreign, cut_counts)
    if len(hits["answer-language"]) > CHANGES_ON_PURPOSE * tally.whole:
        hits["answer-language"] = array("Q")
    for kind, found in hits.items():
        if found:
            yield _told(kind, found, rows, _said_of(kind, found, rows, tally))


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


def length_fences(tally: Tally) -> tuple[float, float]:
    """Lengths of answers outside which one is an outlier: three spreads of the quartiles, as ratios (after Tukey)."""
    count = tally.lengths["output"]
    if tally.whole < FEWEST_FOR_OUTLIERS:
        return 0.0, float("inf")
    low, high = count.quantile(0.25), count.quantile(0.75)
    spread = max(high / low, 1.4) ** 3
    return low / spread, high * spread


def expected_languages(tally: Tally, wanted: tuple[str, ...]) -> frozenset[str]:
    """The languages that answers are commonly in; empty where too few rows tell."""
    if wanted:
        return frozenset(wanted)
    known = {code: count for code, count in tally.said_in.items() if code}
    total = sum(known.values())
    if total < FEWEST_FOR_LANGUAGES:
        return frozenset()
    return frozenset(code for code, count in known.items() if count >= RARE_LANGUAGE * total)


def _said_of(kind: str, found: array[int], rows: Reread, tally: Tally) -> tuple[Example, ...]:
    examples = []
    for number in found[:EXAMPLES]:
        row, record = rows.row(number), rows.record(number)
        said = _short(row.output)
        if kind == "length-outlier":
            usual = tally.lengths["output"].quantile(0.5)
            said = f"{len(row.output):,} characters, the median is {usual:,.0f}: {_short(row.output, 40)}"
        elif kind == "wrong-language":
            said = f"{tally.languages[record['language']]}: {said}"
        elif kind == "answer-language":
            asked, answered = tally.languages[record["asked"]], tally.languages[record["language"]]
            said = f"asked in {asked}, answered in {answered}: {_short(row.instruction, 30)} → {_short(row.output, 30)}"
        elif kind == "cut-answer":
            said = f"…{' '.join(row.output.split())[-60:]}"
        examples.append(Example(number, int(record["line"]), said))
    return tuple(examples)


def from_recurring(tally: Tally, rows: Reread) -> Iterator[Told]:
    """Sentences, openings and names that stand in many rows."""
    for kind, spill, recurring, texts in (
        ("boilerplate", tally.sentences, SENTENCES, lambda row: sentences(row.output)),
        ("repeated-opening", tally.openings, OPENINGS, lambda row: [opening(" ".join(row_words(row)[1]))]),
        ("recurring-name", tally.names, NAMES, lambda row: inspect(row).names),
    ):
        found = _recurring(spill, recurring.threshold(tally.whole), rows, texts)
        if found:
            members, counts = found
            examples = tuple(
                Example(first, rows.line(first), f"“{_short(text, 80)}” in {count:,} rows")
                for (text, first), count in counts.most_common(EXAMPLES)
            )
            yield _told(kind, members, rows, examples)


def _recurring(
    spill: Spill, threshold: int, rows: Reread, texts: Callable[[Row], list[str]]
) -> tuple[array[int], Counter[tuple[str, int]]] | None:
    members: set[int] = set()
    counts: Counter[tuple[str, int]] = Counter()
    for records, starts in spill.equal():
        for group in groups(records, starts):
            if len(group) < threshold:
                continue
            found, key = group["row"].tolist(), int(group["key"][0])
            members.update(found)
            told = texts(rows.row(found[0]))
            said = next((text for text, each in zip(told, digests(told), strict=True) if int(each) == key), "")
            counts[said, found[0]] = len(found)
    return (array("Q", sorted(members)), counts) if members else None


def of_the_set(tally: Tally) -> Iterator[Told]:
    """What the number of rows says."""
    if tally.whole < FEW_ROWS:
        said = f"{tally.whole} usable {'row' if tally.whole == 1 else 'rows'}"
        yield Told(finding("few-rows", [], said, (Example(None, None, said),), count=1), array("Q"))


def _told(
    kind: str,
    found: array[int],
    rows: Reread,
    examples: tuple[Example, ...] | None = None,
    groups: tuple[tuple[int, ...], ...] = (),
) -> Told:
    if examples is None:
        examples = tuple(
            Example(row, rows.line(row), _short(f"{rows.row(row).instruction} → {rows.row(row).output}"))
            for row in found[:EXAMPLES]
        )
    many = len(found)
    summary = f"{kinds()[kind].title}: {many:,} {'row' if many == 1 else 'rows'}"
    made = finding(kind, found, summary, examples, groups, rows.lines(tuple(found[:MOST_ROWS])))
    return Told(made, found)


def _short(text: str, most: int = 70) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
