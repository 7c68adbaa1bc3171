"""What the doctor promises of the plan, the plan does; and what the plan promises of the next boot comes true.

Each machine is a recording, one of a real report, or a healthy one with a fault. The plan is applied to its facts by a
model (`after_plan.py`), and the doctor is asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.model import DoctorReport, Finding, FixKind, Severity
from checks.registry import ALL
from checks.runner import run
from provision.model import Plan, State
from provision.plan.allowed import check_actions
from provision.plan.plan_cards import supported_cards
from provision.plan.planner import make_plan
from provision.plan.unresolved import causes, with_unresolved
from provision.target import PlanTarget, PlanVendor
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay
from tests.checks.faults.scoreboard import healthy, machines, places
from tests.provision.plan.after_plan import after
from tests.recorded_machines import load, names
from tests.reports.ask import machine as machine_of
from tests.reports.table import reports

pytestmark = pytest.mark.long


class Case(NamedTuple):
    """A machine, what the doctor says before the plan and after it, and the machine after the plan."""

    name: str
    plan: Plan
    before: DoctorReport
    changed: Host
    after: DoctorReport

    @property
    def needs_a_person(self) -> bool:
        """A refusal or a step by hand says why a person must act."""
        by_hand = any(step.state in (State.MANUAL, State.BLOCKED) for step in self.plan.steps)
        return bool(self.plan.refusals) or by_hand


@cache
def cases() -> tuple[Case, ...]:
    return tuple(case for name, host in faulty() for case in planned(name, host))


def planned(name: str, host: Host) -> Iterator[Case]:
    before = run(host, catalogue(), ALL)
    if errors(before) or promises(before):
        plan = with_unresolved(make_plan(host, catalogue(), PlanTarget()), before)
        changed = after(host, plan, catalogue())
        yield Case(name, plan, before, changed, run(changed, catalogue(), ALL))


def faulty() -> Iterator[tuple[str, Host]]:
    """Every recorded machine, those of the real reports, and every wording of every fault on two of the healthy
    machines that can have it."""
    for name in names():
        yield name, read_host(load(name))
    for report in reports():
        yield report.name, read_host(machine_of(report))
    seen: dict[tuple[str, int], int] = {}
    for fault, wording, name in places():
        key = (fault.id, wording)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 2:
            machine = Overlay(machines()[name])
            apply(machine, healthy()[name], fault.wordings[wording].edits)
            yield f"{fault.id}[{wording}] on {name}", read_host(machine)


def promises(report: DoctorReport) -> dict[str, Finding]:
    """By check, the findings that the plan is said to cure."""
    return {
        finding.check: finding
        for row in report.results
        for finding in row.findings
        if finding.fix is not None and finding.fix.kind is FixKind.PROVISION and finding.severity is not Severity.INFO
    }


def errors(report: DoctorReport) -> set[str]:
    """Checks with an error that no other finding explains."""
    return {finding.check for finding in causes(report)}


def test_every_such_plan_may_be_carried_out() -> None:
    for case in cases():
        check_actions(case.plan, catalogue(), case.name)


def test_what_the_plan_is_said_to_do_is_done_by_its_steps() -> None:
    broken = [
        f"{case.name}: {id}: {finding.summary}"
        for case in cases()
        for id, finding in promises(case.before).items()
        if id in promises(case.after) and not case.needs_a_person
    ]
    assert broken == []
    assert len({id for case in cases() for id in promises(case.before)}) >= 14


def test_what_stops_training_is_cured_by_the_plan_or_listed_beside_it() -> None:
    silent = {
        case.name: left
        for case in cases()
        if not case.needs_a_person and (left := errors(case.after) - {row.check for row in case.plan.unresolved})
    }
    assert silent == {}


def test_what_the_plan_cures_is_not_listed_as_left_to_a_person() -> None:
    """But for what only a person can judge: the model does not know that a vGPU takes no public driver."""
    cured = {
        case.name: both
        for case in cases()
        if not case.needs_a_person and (both := _left_to_commands(case) - errors(case.after))
    }
    assert cured == {}


def _left_to_commands(case: Case) -> set[str]:
    commands = {found.check for found in causes(case.before) if found.fix and found.fix.kind is FixKind.COMMAND}
    return commands & {row.check for row in case.plan.unresolved}


def test_a_plan_without_steps_says_what_a_person_must_do_first() -> None:
    idle = [case for case in cases() if errors(case.before) and not case.plan.open_steps() and not case.plan.refusals]
    assert [case.name for case in idle if not case.plan.unresolved] == []
    assert len(idle) >= 20


def test_after_the_reboot_of_a_plan_each_card_has_its_driver() -> None:
    drivers = {PlanVendor.NVIDIA: "nvidia", PlanVendor.AMD: "amdgpu"}
    booted = [case for case in cases() if case.plan.reboots and not case.needs_a_person]
    without = {
        case.name: str(seen)
        for case in booted
        for seen in supported_cards(case.changed, catalogue())
        if seen.vendor.value == case.plan.vendor and seen.pci.driver != drivers[seen.vendor]
    }
    assert without == {}
    assert len(booted) >= 20
