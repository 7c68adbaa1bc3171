"""Asking for a plan, and reading it: what the examples share."""

from __future__ import annotations

import msgspec

from checks.catalogue import catalogue
from checks.facts.host import Host
from provision.model import AptInstall, Plan, Step
from provision.plan.planner import make_plan
from provision.target import PlanTarget


def planned(host: Host, **target: object) -> Plan:
    return make_plan(host, catalogue(), msgspec.convert(target, PlanTarget))


def step(found: Plan, id: str) -> Step:
    return next(step for step in found.steps if step.id == id)


def install(found: Plan, id: str = "nvidia-driver") -> list[str]:
    action = step(found, id).action
    assert isinstance(action, AptInstall)
    return [wanted.name for wanted in action.packages]


def states(found: Plan) -> dict[str, str]:
    return {step.id: step.state.value for step in found.steps}
