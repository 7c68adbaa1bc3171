"""Whether a plan from elsewhere (a file, a request) says what the planner says on this machine, step by step."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import msgspec

from provision.model import AnyAction, AptInstall, AptRemove, Plan, State, Step, WantedPackage, seal
from provision.plan.allowed import shown
from provision.plan.driver.driver_set import module_package

ABSENT = "nothing"


class Difference(NamedTuple):
    """`field`: of the step or of its action; `given`: in the file or the request; `planned`: by the planner here."""

    step: str
    field: str
    given: str
    planned: str

    def text(self, source: str) -> str:
        return (
            f"step {shown(self.step)}, {self.field}: {source} says {shown(self.given)}, "
            f"this machine's plan says {shown(self.planned)}"
        )


def differences(given: Plan, own: Plan) -> tuple[Difference, ...]:
    """What keeps `own` from being carried out in the name of `given`; empty when they have the same open steps.

    Steps that are done in both do nothing, and are not compared.
    """
    found: list[Difference] = []
    planned = {step.id: step for step in own.steps}
    seen: list[str] = []
    for step in given.open_steps():
        if (mine := planned.get(step.id)) is None:
            found.append(Difference(step.id, "title", step.title, ABSENT))
        elif mine.state is State.DONE:
            found.append(Difference(step.id, "state", step.state.value, mine.state.value))
        else:
            found += _step_differences(step, mine)
            seen.append(step.id)
    known = {step.id: step for step in given.steps}
    for step in own.open_steps():
        if (theirs := known.get(step.id)) is None:
            found.append(Difference(step.id, "title", ABSENT, step.title))
        elif theirs.state is State.DONE:
            found.append(Difference(step.id, "state", theirs.state.value, step.state.value))
    order = [step.id for step in own.open_steps() if step.id in seen]
    if not found and seen != order:
        found.append(Difference(seen[0], "order", ", ".join(seen), ", ".join(order)))
    return tuple(found)


def _step_differences(given: Step, own: Step) -> list[Difference]:
    found = [
        Difference(given.id, field, theirs, ours)
        for field, theirs, ours in (("title", given.title, own.title), ("state", given.state.value, own.state.value))
        if theirs != ours
    ]
    theirs, ours = msgspec.to_builtins(_comparable(given.action)), msgspec.to_builtins(_comparable(own.action))
    return found + [
        Difference(given.id, field, _text(theirs.get(field)), _text(ours.get(field)))
        for field in sorted(theirs.keys() | ours.keys())
        if theirs.get(field) != ours.get(field)
    ]


def _comparable(action: AnyAction) -> AnyAction:
    """The action without what dpkg has now: it is a fact, and no part of the action."""
    if not isinstance(action, AptInstall):
        return action
    bare = tuple(msgspec.structs.replace(wanted, installed=None) for wanted in action.packages)
    return msgspec.structs.replace(action, packages=bare)


def _text(value: object) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def with_apt_answers(own: Plan, given: Plan) -> Plan:
    """The planner's plan with what apt answered to the given one: versions, dependencies, removals, and the modules of
    single kernels. These change no step: apt is asked again before each transaction, and what it would then do besides
    is refused.
    """
    known = {step.id: step.action for step in given.steps}
    steps = tuple(
        msgspec.structs.replace(step, action=with_answers(step.action, known.get(step.id))) for step in own.steps
    )
    return seal(msgspec.structs.replace(own, steps=steps))


def with_answers(own: AnyAction, given: AnyAction | None) -> AnyAction:
    """One action with apt's answers to the given one; as it is if the two are not of one kind."""
    if isinstance(own, AptRemove) and isinstance(given, AptRemove):
        return msgspec.structs.replace(own, removes=given.removes)
    if not (isinstance(own, AptInstall) and isinstance(given, AptInstall)):
        return own
    versions = {wanted.name: wanted.version for wanted in given.packages}
    named = {wanted.name for wanted in own.packages}
    more = [w for w in given.packages if w.name not in named and _is_module_for_one_kernel(w, own)]
    return msgspec.structs.replace(
        own,
        packages=(*(msgspec.structs.replace(w, version=versions.get(w.name)) for w in own.packages), *more),
        brings=given.brings,
        removes=given.removes,
    )


def _is_module_for_one_kernel(wanted: WantedPackage, own: AptInstall) -> bool:
    """Whether it is the driver's module that `own` installs, for a kernel of the archive."""
    ours, theirs = module_package(own), module_package(AptInstall(packages=(wanted,)))
    return ours is not None and theirs is not None and ours[1] == theirs[1] and theirs[3][:1].isdigit()


def with_done(plan: Plan, ids: Set[str]) -> Plan:
    """The plan with these steps done."""
    steps = tuple(msgspec.structs.replace(step, state=State.DONE) if step.id in ids else step for step in plan.steps)
    return seal(msgspec.structs.replace(plan, steps=steps))


def done_steps(plan: Plan) -> frozenset[str]:
    return frozenset(step.id for step in plan.steps) - frozenset(step.id for step in plan.open_steps())
