"""A plan from a file or a request against the planner's own: what is a difference, and what is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.host import AptSource
from gpu_setup.envelope import Answer, encode
from machine.errors import Refused
from provision.apply.journal import ApplyRequest, ApplyRun, StepOutcome, StepResult
from provision.model import AptInstall, Plan, Reboot, State, UserGroup, WantedPackage, WriteFile, seal
from provision.plan.comparison import Difference, differences, with_apt_answers
from provision.plan.driver import amd
from provision.plan.plan_file import as_written, load_plan
from provision.plan.planner import make_plan
from provision.root.approval import require_same
from provision.root.request_check import approved_plan, difference_text
from provision.target import PlanTarget
from tests.provision.forged import honest, with_change, with_step
from tests.provision.plan.machines import RTX_3090_TI, ubuntu
from tests.subjects import for_each

OWN = honest()
DRIVER = "nvidia-driver"
_replace = msgspec.structs.replace


def action_of(plan: Plan, id: str = DRIVER) -> AptInstall:
    action = next(step.action for step in plan.steps if step.id == id)
    assert isinstance(action, AptInstall)
    return action


def with_packages(plan: Plan, *more: str, **changes: object) -> Plan:
    action = action_of(plan)
    packages = (*action.packages, *(WantedPackage(name=name) for name in more))
    return with_change(plan, DRIVER, action=_replace(action, packages=packages, **changes))


def last_run(step: str, outcome: StepOutcome = "done") -> ApplyRun:
    result = StepResult(id=step, title="", outcome=outcome)
    return ApplyRun(run="1", kind="apply", standing="failed", plan_digest="", began="", steps=(result,))


def steps_of(plan: Plan, change: Callable[[tuple[object, ...]], object]) -> Plan:
    return seal(msgspec.structs.replace(plan, steps=change(plan.steps)))


# what is allowed on some machine and is not in this machine's plan; and the field that differs
DIFFERENT = {
    "another title": (with_change(OWN, DRIVER, title="Keep the driver loaded"), "title"),
    "another package of the catalogue": (with_packages(OWN, "docker.io"), "packages"),
    "another package goes": (with_packages(OWN, remove=("nvidia-driver-470",)), "remove"),
    "DKMS is not forbidden any more": (with_packages(OWN, forbid=()), "forbid"),
    "a step more": (with_step(OWN, UserGroup(user="ada", groups=("docker",)), "docker-group"), "title"),
    "Ubuntu's own source is emptied": (
        with_step(
            OWN, WriteFile(path="/etc/apt/sources.list.d/ubuntu.sources", content=amd.EMPTIED), "rocm-old-source"
        ),
        "title",
    ),
    "a step twice": (with_step(OWN, UserGroup(user="ada", groups=("docker",)), DRIVER), "kind"),
    "a step less": (steps_of(OWN, lambda steps: steps[:-1]), "title"),
    "another order": (steps_of(OWN, lambda steps: (steps[-1], *steps[:-1])), "order"),
    "a step that is said to be done": (with_change(OWN, DRIVER, state=State.DONE), "state"),
    "a step that is said to be a person's": (with_change(OWN, DRIVER, state=State.MANUAL), "state"),
    "another action under a known id": (with_change(OWN, DRIVER, action=Reboot()), "kind"),
}


@for_each("name", DIFFERENT)
def test_what_differs_is_found(name: str) -> None:
    given, field = DIFFERENT[name]
    assert field in {found.field for found in differences(given, OWN)}
    with pytest.raises(Refused) as refused:
        require_same(given, OWN, "plan.json", None)
    assert refused.value.code == "plan.differs"


@for_each("name", [name for name in DIFFERENT if name != "a step that is said to be done"])
def test_root_refuses_a_request_that_differs_from_its_own_plan(name: str) -> None:
    request = ApplyRequest(kind="apply", plan=DIFFERENT[name][0])
    with pytest.raises(Refused) as refused:
        approved_plan(request, with_apt_answers(OWN, request.plan))
    assert refused.value.code == "plan.differs"


def test_the_message_has_step_field_and_both_values() -> None:
    given = with_change(OWN, DRIVER, title="Keep the driver loaded")
    text = difference_text(differences(given, OWN), "the file")
    title = next(step.title for step in OWN.steps if step.id == DRIVER)
    assert text == (f"Step {DRIVER}, title: the file says Keep the driver loaded, this machine's plan says {title}.")
    long = Difference("x\n", "packages", "\x1b[2J", "y" * 500).text("the file")
    assert long.isprintable() and len(long) < 400


def test_every_plan_equals_itself() -> None:
    assert differences(OWN, OWN) == ()
    require_same(OWN, OWN, "plan.json", None)


def test_text_that_is_never_carried_out_does_not_count() -> None:
    """The reason, the commands and the diff of the file are not shown: the planner's own are."""
    given = with_change(
        OWN, DRIVER, because="Because.", commands=(("rm", "-rf", "/"),), diff="-a\n+b\n", undo="nothing"
    )
    assert differences(given, OWN) == ()


def test_a_step_that_was_done_since_is_no_difference() -> None:
    done = with_change(OWN, DRIVER, state=State.DONE, title="NVIDIA driver 595")
    assert [found.field for found in differences(OWN, done)] == ["state"]
    require_same(OWN, done, "plan.json", last_run(DRIVER))
    approved_plan(ApplyRequest(kind="apply", plan=OWN), done)


def test_a_step_that_the_last_run_has_done_may_be_missing_now() -> None:
    """The next-boot guard is planned only with a driver to install."""
    now = steps_of(OWN, lambda steps: tuple(step for step in steps if step.id != "next-boot-guard"))
    assert [found.step for found in differences(OWN, now)] == ["next-boot-guard"]
    require_same(OWN, now, "plan.json", last_run("next-boot-guard"))
    with pytest.raises(Refused):
        require_same(OWN, now, "plan.json", last_run("next-boot-guard", "failed"))


def test_a_step_that_is_open_again_is_compared_although_the_last_run_has_done_it() -> None:
    require_same(OWN, OWN, "plan.json", last_run(DRIVER))
    with pytest.raises(Refused):
        require_same(with_change(OWN, DRIVER, title="Other"), OWN, "plan.json", last_run(DRIVER))


def test_a_machine_that_has_changed_is_named_with_what_differs() -> None:
    given = seal(_replace(with_change(OWN, DRIVER, title="Other"), facts={**OWN.facts, "kernel": "6.8.0-1-generic"}))
    with pytest.raises(Refused) as refused:
        require_same(given, OWN, "plan.json", None)
    assert refused.value.code == "apply.changed"
    assert "6.8.0-1-generic" in refused.value.why and DRIVER in refused.value.why


def answered() -> Plan:
    """The plan as it is after apt has answered, with a module for the kernel of the next upgrade."""
    action = action_of(OWN)
    packages = tuple(_replace(wanted, version="1.2-3") for wanted in action.packages)
    more = WantedPackage(name="linux-modules-nvidia-595-open-6.17.0-99-generic", version="1.2-3")
    brings = (WantedPackage(name="libnvidia-compute-595", version="1.2-3"),)
    whole = _replace(action, packages=(*packages, more), brings=brings, removes=("nvidia-settings",))
    return with_change(OWN, DRIVER, action=whole)


def test_apts_answers_are_taken_over_and_nothing_else_is() -> None:
    request = ApplyRequest(kind="apply", plan=answered())
    assert approved_plan(request, with_apt_answers(OWN, request.plan)).steps == request.plan.steps


@for_each("name", ("linux-modules-nvidia-580-open-6.17.0-99-generic", "linux-modules-nvidia-595-open-generic", "dkms"))
def test_a_package_that_apt_cannot_have_answered_is_not_taken_over(name: str) -> None:
    given = with_packages(OWN, name)
    assert [found.field for found in differences(given, with_apt_answers(OWN, given))] == ["packages"]


def test_a_step_that_the_person_saw_as_done_is_not_done_by_root() -> None:
    """A compiler of the person's own is not on root's PATH."""
    request = ApplyRequest(kind="apply", plan=with_change(OWN, "compiler", state=State.DONE))
    found = approved_plan(request, OWN)
    assert {step.id: step.state for step in found.steps}["compiler"] is State.DONE


def test_a_request_for_a_machine_that_the_planner_refuses() -> None:
    wsl = honest("wsl-linux-driver")
    with pytest.raises(Refused) as refused:
        approved_plan(ApplyRequest(kind="apply", plan=OWN), wsl)
    assert refused.value.code == "plan.wsl"


def test_another_target_is_another_plan() -> None:
    given = honest(docker_group=True)
    assert given.target == PlanTarget(docker_group=True)
    assert [found.step for found in differences(given, OWN)] == ["docker-group"]


def test_a_plan_file_has_no_addresses_and_is_still_the_plan_of_its_machine(tmp_path: Path) -> None:
    """The digest is of what is written: every machine's kernel command line names its disk."""
    host = ubuntu(RTX_3090_TI)
    disk, password = "0c64a3c2-3d75-4f5d-9a3e-2f6c0d8f1a11", "hunter2hunter2"
    source = AptSource(file="x.list", uri=f"https://ada:{password}@apt.corp.example/ubuntu", owner="other")
    kernel = _replace(host.kernel, cmdline=(f"root=UUID={disk}", "quiet"))
    host = _replace(host, kernel=kernel, apt=_replace(host.apt, sources=(*(host.apt.sources or ()), source)))
    fresh = make_plan(host, catalogue(), PlanTarget())
    file = tmp_path / "plan.json"
    file.write_bytes(encode(Answer("plan", as_written(fresh), 0, str)))
    assert disk not in file.read_text() and password not in file.read_text()
    require_same(load_plan(str(file)), fresh, str(file), None)
    with pytest.raises(Refused) as refused:
        require_same(load_plan(str(file)), with_change(fresh, DRIVER, title="Other"), str(file), None)
    assert refused.value.code == "plan.differs"
