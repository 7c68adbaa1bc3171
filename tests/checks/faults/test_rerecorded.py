"""A bundle of a machine with a fault shows the fault: what a recording leaves out changes no judgement."""

from __future__ import annotations

import pytest

from checks.allowed import sources
from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.model import Status
from checks.registry import ALL
from checks.runner import run
from machine.local import Machine
from machine.recorder import RecordingMachine, identities_of, tree
from machine.recording import RecordedMachine
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay
from tests.checks.faults.scoreboard import healthy, machines, places


def statuses(machine: Machine) -> dict[str, Status]:
    return {row.id: row.status for row in run(read_host(machine), catalogue(), ALL).results}


@pytest.mark.parametrize(
    ("turns", "fewest"),
    [pytest.param(range(1), 60, marks=pytest.mark.long), pytest.param(range(1, 9), 60, marks=pytest.mark.full)],
)
def test_every_fault_is_the_same_in_a_recording(turns: range, fewest: int) -> None:
    """The first wording of each, and all the others, each on one machine."""
    pairs = [(fault, turn, name) for fault, turn, name in places() if turn in turns]
    first = {(fault.id, turn): (fault.wordings[turn], name) for fault, turn, name in reversed(pairs)}
    assert len(first) >= fewest
    differences = {}
    for (fault, _), (wording, name) in first.items():
        machine = Overlay(machines()[name])
        apply(machine, healthy()[name], wording.edits)
        seen = RecordingMachine(machine)
        there = statuses(seen)
        copy = tree(seen, name, identities_of(machine), {"name": name, "taken_at": machine.taken_at}, sources)
        here = statuses(RecordedMachine(copy))
        if here != there:
            differences[fault, name] = {
                check: (there[check], here[check]) for check in there if there[check] != here[check]
            }
    assert differences == {}
