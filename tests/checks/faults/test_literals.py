"""No rule lives on the words of its own fixture: every alternative of every pattern hits a line that was printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pytest

from checks.rules import kernel_log
from tests.checks.faults.literals import literal_length, variants
from tests.checks.faults.scoreboard import examine, healthy, look_alike_places, places
from tests.checks.faults.table import Fault, Wording, faults, look_alikes
from tests.subjects import for_each

LONG = 25
# patterns that a single wording feeds, because no version of the tool says it otherwise
ONE_WORDING = {
    "is 0M": "NVIDIA's driver has said this since 2010",
    "RmInitAdapter failed": "the same since branch 375, only its numbers change",
    "Direct firmware load": "drivers/base/firmware_loader has said this since 3.7",
}


def shape(line: str) -> str:
    """The line without what differs from one machine and moment to the next."""
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\S*|\d+", "#", re.sub(r"^\[[^]]*\] ", "", line))


def printed() -> Iterator[tuple[str, Wording]]:
    """Each wording of a fault or look-alike that brings kernel lines, once, on a machine that can have it."""
    able = {fault.id: name for fault, _, name in places()}
    once = {(row.id, turn): (able[row.id], row.wordings[turn]) for row in faults() for turn in range(len(row.wordings))}
    once |= {(row.id, 0): (name, row.wording) for row, name in look_alike_places()}
    return ((name, wording) for name, wording in once.values() if wording.lines)


@pytest.fixture(scope="module")
def asked() -> dict[str, set[str]]:
    """Every pattern that a rule looks for in the kernel log, and the cited lines that it hits."""
    hits: dict[str, set[str]] = {}
    plain = kernel_log.matching_lines

    def listening(log: Iterable[str], word: str, pattern: str) -> list[tuple[str, re.Match[str]]]:
        found = plain(log, word, pattern)
        hits.setdefault(pattern, set()).update(line for line, _ in found)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_log, "matching_lines", listening)
        for name, wording in printed():
            examine(name, wording)
    # a pattern may hold the machine's own address: that part is no literal of the rule's
    slots = {card.slot for host in healthy().values() for card in host.cards or ()}
    merged: dict[str, set[str]] = {}
    for pattern, lines in hits.items():
        for slot in slots:
            pattern = pattern.replace(slot, r"[0-9a-f:.]+")
        pattern = pattern.replace("driver nvidia failed", "driver amdgpu failed")
        merged.setdefault(pattern, set()).update(lines)
    return merged


@pytest.mark.long
def test_rules_search_for_the_text_of_the_faults(asked: dict[str, set[str]]) -> None:
    assert len(asked) >= 12
    assert [pattern for pattern, lines in asked.items() if not lines] == []


def test_every_alternative_of_a_pattern_matches_a_real_line(asked: dict[str, set[str]]) -> None:
    idle = [
        (variant, pattern)
        for pattern, lines in asked.items()
        for variant in variants(pattern)
        if not any(re.search(variant, line) for line in lines)
    ]
    assert idle == []


def test_a_long_pattern_matches_more_than_one_wording(asked: dict[str, set[str]]) -> None:
    lonely = [
        pattern
        for pattern, lines in asked.items()
        if literal_length(pattern) > LONG
        and len(set(map(shape, lines))) < 2
        and not any(w in pattern for w in ONE_WORDING)
    ]
    assert lonely == []


def test_every_wording_has_a_source_and_a_date() -> None:
    wordings = [wording for fault in faults() for wording in fault.wordings]
    wordings += [look_alike.wording for look_alike in look_alikes()]
    for wording in wordings:
        assert wording.of and wording.source
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", wording.date)
    unsourced = sum("not quoted" in wording.source for wording in wordings)
    assert unsourced / len(wordings) < 0.08


@for_each("fault", [fault for fault in faults() if len(fault.wordings) > 1], ids=lambda fault: fault.id)
def test_the_wordings_of_a_fault_differ(fault: Fault) -> None:
    wordings = fault.wordings
    assert len({wording.of for wording in wordings}) == len(wordings)
    edits = [repr(sorted((key, repr(value)) for key, value in wording.edits.items())) for wording in wordings]
    assert len(set(edits)) == len(edits)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("plain", ["plain"]),
        ("a|b", ["a", "b"]),
        ("x (?:one|two) y", ["x (?:one) y", "x (?:two) y"]),
        (r"[|)] \| (a|b)", [r"[|)] \| (a)", r"[|)] \| (b)"]),
        (r"(?!no|not)yes", [r"(?!no|not)yes"]),
        ("(?:a|b(?:c|d))e|f", ["(?:a)e", "(?:b(?:c|d))e", "(?:b(?:c))e", "(?:b(?:d))e", "f"]),
    ],
)
def test_a_pattern_is_split_at_its_alternatives(pattern: str, expected: list[str]) -> None:
    assert sorted(variants(pattern)) == sorted(expected)
