"""What a recording leaves out changes no judgement: a machine that is recorded again is the same to the doctor."""

from __future__ import annotations

import json

import pytest

from checks.allowed import sources
from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.registry import ALL
from checks.runner import exit_code, run
from gpu_setup.envelope import Answer, encode
from machine import scrub
from machine.recorder import RecordingMachine, identities_of, tree
from machine.recording import RecordedMachine
from tests.recorded_machines import FEW, load, names


def doctor(machine: RecordedMachine) -> object:
    report = run(read_host(machine), catalogue(), ALL)
    return json.loads(encode(Answer("doctor", report, exit_code(report), str)))


def in_order(found: object) -> object:
    """With lists of names sorted: a pseudonym may have another place in the alphabet."""
    if isinstance(found, dict):
        return {key: in_order(value) for key, value in found.items()}
    if isinstance(found, list):
        return [in_order(value) for value in found]
    return ", ".join(sorted(found.split(", "))) if isinstance(found, str) else found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.long) for name in names()]
)
def test_a_machine_recorded_again_is_judged_the_same(name: str) -> None:
    seen = RecordingMachine(load(name))
    read_host(seen)
    who = identities_of(seen.machine)
    about = {"name": name, "taken_at": load(name).taken_at}
    again = RecordedMachine(tree(seen, name, who, about, sources), strict=True)
    # people and ids have other names in the copy
    assert in_order(doctor(again)) == in_order(scrub.json(doctor(load(name)), who))
