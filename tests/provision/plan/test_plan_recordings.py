"""The plan of every recorded machine, against the key "plan" of its expect.json."""

from __future__ import annotations

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from provision.model import Plan
from provision.plan.planner import make_plan
from provision.target import PlanTarget, PlanVendor
from tests.recorded_machines import expected, load, names
from tests.subjects import for_each


def shape(found: Plan) -> dict[str, object]:
    """What expect.json holds of a plan: steps with their states, packages to install, reboots, refusals."""
    return {
        "steps": [f"{step.id} {step.state.value}" for step in found.steps],
        "packages": list(found.packages()),
        "reboots": found.reboots,
        "refusals": [refusal.code for refusal in found.refusals],
    }


def plan_of(name: str, vendor: PlanVendor = PlanVendor.AUTO) -> Plan:
    return make_plan(read_host(load(name)), catalogue(), PlanTarget(vendor=vendor))


@for_each("name", names())
def test_a_recorded_machine_gets_the_plan_that_is_expected_of_it(name: str) -> None:
    assert shape(plan_of(name)) == expected(name)["plan"]


@pytest.mark.parametrize(("vendor", "first"), [(PlanVendor.NVIDIA, "nvidia-driver"), (PlanVendor.AMD, "kernel")])
def test_the_machine_of_two_vendors_has_a_plan_for_each(vendor: PlanVendor, first: str) -> None:
    found = plan_of("two-vendors", vendor)
    assert found.refusals == ()
    assert first in [step.id for step in found.steps[:2]]


@for_each("name", names())
def test_reading_a_machine_twice_gives_one_plan(name: str) -> None:
    assert plan_of(name).digest == plan_of(name).digest
