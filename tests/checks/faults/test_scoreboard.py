"""The doctor finds what is put into healthy machines, and is silent about what only looks like it."""

from __future__ import annotations

import sys

import pytest

from checks.registry import ALL
from tests.checks.faults.scoreboard import scoreboard, text
from tests.checks.faults.table import faults, look_alikes
from tests.tool import ROOT

COMMITTED = ROOT / "docs" / "reference" / "scoreboard.md"

# each pair is a whole reading of a machine
pytestmark = pytest.mark.long


def test_there_are_enough_faults_and_pairs() -> None:
    board = scoreboard()
    assert len({pair.fault.id for pair in board.pairs}) == len(faults()) >= 60
    assert len(board.pairs) >= 300


def test_a_third_of_the_pairs_use_another_versions_wording() -> None:
    board = scoreboard()
    assert board.other_wordings >= len(board.pairs) / 3
    said, other = board.kernel_lines
    assert other >= said / 3


def test_the_doctor_finds_each_injected_fault() -> None:
    board = scoreboard()
    sys.stdout.write(text(board))
    missed = [
        f"{pair.fault.id} as {pair.fault.wordings[pair.wording].of} on {pair.machine}"
        for pair in board.pairs
        if pair.missed
    ]
    assert board.recall >= 0.95, missed


def test_healthy_machines_have_no_findings() -> None:
    assert scoreboard().false_alarms == ()


def test_look_alikes_raise_no_alarm() -> None:
    board = scoreboard()
    fell = [(row.look_alike.id, row.machine, row.fell) for row in board.mistaken]
    assert len(board.mistaken) <= 0.02 * len(board.look_alikes), fell


def test_the_tables_name_only_existing_checks() -> None:
    known = {check.id for check in ALL}
    named = {check for fault in faults() for check in fault.raises} | {c for row in look_alikes() for c in row.like}
    assert named <= known


def test_every_look_alike_has_a_machine() -> None:
    assert {row.look_alike.id for row in scoreboard().look_alikes} == {row.id for row in look_alikes()}


def test_the_committed_scoreboard_is_not_far_from_this_one() -> None:
    """Numbers move with each new machine and check; the rows that it names must be there."""
    committed = COMMITTED.read_text(encoding="utf-8")
    now = text(scoreboard())
    rows = {line.split("|")[1] for line in now.splitlines() if line.startswith("| `")}
    old = {line.split("|")[1] for line in committed.splitlines() if line.startswith("| `")}
    assert len(rows - old) <= 5, "run python -m tests.checks.faults.scoreboard > docs/reference/scoreboard.md"
