"""Before root changes anything: what stops a plan, what is asked, what root receives, and the exit status."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from machine.errors import Refused
from provision.apply.journal import ApplyRun, StepResult, StoredProblem
from provision.model import AptInstall, KernelModule, Plan, Refusal, State, Step, WantedPackage, seal
from provision.root.approval import (
    can_be_done,
    driver_use,
    exit_code,
    make_request,
    nothing_to_do,
    require_doable,
)
from provision.target import PlanTarget
from tests.provision.hosts import Folder, Nowhere
from tests.provision.plan.machines import RTX_3090_TI, ubuntu

DRIVER = Step(
    id="nvidia-driver",
    title="Install the driver",
    action=AptInstall(packages=(WantedPackage(name="nvidia-driver-595-open"),)),
    state=State.TODO,
    because="It is missing.",
)


def plan_of(*steps: Step, refusals: tuple[Refusal, ...] = ()) -> Plan:
    bare = Plan(
        machine="m", vendor=None, target=PlanTarget(), steps=steps, reboots=0, download_bytes=0, download_note="",
        refusals=refusals, notes=(), host_digest="",
    )  # fmt: skip
    return seal(bare)


def blocked() -> Plan:
    return plan_of(DRIVER, msgspec.structs.replace(DRIVER, id="other", state=State.BLOCKED, because="dpkg is locked."))


def refused() -> Plan:
    return plan_of(
        refusals=(Refusal(code="plan.card", what="This card is not supported.", why="Old.", next="Buy one."),)
    )


def test_a_plan_that_can_be_done_is_let_through() -> None:
    require_doable(plan_of(DRIVER))
    assert can_be_done(plan_of(DRIVER))
    assert not can_be_done(plan_of(msgspec.structs.replace(DRIVER, state=State.DONE)))
    setting = KernelModule(name="nvidia", change="allow", file="/etc/default/grub")
    assert not can_be_done(plan_of(msgspec.structs.replace(DRIVER, action=setting, state=State.MANUAL)))


@pytest.mark.parametrize(("made", "code"), [(blocked(), "apply.blocked"), (refused(), "plan.card")])
def test_a_blocked_or_refused_plan_is_not_started(made: Plan, code: str) -> None:
    assert not can_be_done(made)
    with pytest.raises(Refused) as caught:
        require_doable(made)
    assert caught.value.code == code


def program(machine: Folder, top: Path, pid: str, name: str) -> None:
    machine.put(f"/proc/{pid}/comm", f"{name}\n")
    (top / f"proc/{pid}/fd").mkdir()
    (top / f"proc/{pid}/fd/3").symlink_to("/dev/nvidia0")


def test_a_program_that_computes_is_asked_about_and_refused_where_nobody_is_asked(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    program(machine, tmp_path, "41", "python3")
    found = driver_use(machine, ubuntu(RTX_3090_TI), plan_of(DRIVER))
    assert found is not None and "python3 (41)" in found.question
    assert found.refusal is not None and found.refusal.code == "apply.busy"


def test_a_desktop_is_asked_about_and_not_refused(tmp_path: Path) -> None:
    machine, host = Folder(tmp_path), ubuntu(RTX_3090_TI)
    program(machine, tmp_path, "42", "Xorg")
    assert driver_use(machine, host, plan_of(DRIVER)) is None, "without a loaded driver it shows by another one"
    loaded = msgspec.structs.replace(host, nvidia=msgspec.structs.replace(host.nvidia, module_version="580.65.06"))
    found = driver_use(machine, loaded, plan_of(DRIVER))
    assert found is not None and "Xorg (42)" in found.question and found.refusal is None


def test_a_plan_that_leaves_the_driver_alone_asks_nothing(tmp_path: Path) -> None:
    machine = Folder(tmp_path)
    program(machine, tmp_path, "41", "python3")
    made = plan_of(msgspec.structs.replace(DRIVER, id="compiler"))
    assert driver_use(machine, ubuntu(RTX_3090_TI), made) is None


def test_the_request_holds_the_way_to_the_network_and_nothing_else() -> None:
    environ = {"https_proxy": "http://proxy:3128", "HF_TOKEN": "secret", "SSH_CONNECTION": "1 2 3 4"}
    request = make_request("apply", plan_of(DRIVER), Nowhere(), environ, reboot=True)
    assert (request.environ, request.ssh, request.reboot) == ({"https_proxy": "http://proxy:3128"}, True, True)


def run_that(standing: str, *steps: str, kind: str = "apply", problem: StoredProblem | None = None) -> ApplyRun:
    results = [{"id": step, "title": step, "outcome": "done"} for step in steps]
    document = {"run": "r", "kind": kind, "standing": standing, "plan_digest": "", "began": "", "steps": results}
    run = msgspec.convert(document, ApplyRun)
    return msgspec.structs.replace(run, problem=problem)


def test_exit_codes() -> None:
    failed = StoredProblem(code="apt.failed", what="apt failed.", exit_code=4)
    assert exit_code(run_that("done", "nvidia-driver")) == 0
    assert exit_code(run_that("restart", "nvidia-driver", "reboot")) == 5
    assert exit_code(run_that("person", "mok")) == 0, "nothing waits for a boot"
    assert exit_code(run_that("person", "kernel", kind="rollback")) == 5
    assert exit_code(run_that("failed", "nvidia-driver", problem=failed)) == 4


def test_nothing_to_do_is_a_run_whose_steps_were_done_before() -> None:
    run = nothing_to_do(plan_of(msgspec.structs.replace(DRIVER, state=State.DONE)))
    assert run.steps == (StepResult(id="nvidia-driver", title="Install the driver", outcome="already"),)
    assert (run.next, exit_code(run)) == ("gpu-setup up", 0)
    setting = KernelModule(name="amdgpu", change="allow", file="/etc/default/grub")
    by_hand = nothing_to_do(plan_of(msgspec.structs.replace(DRIVER, action=setting, state=State.MANUAL)))
    assert (by_hand.standing, by_hand.steps[0].outcome, exit_code(by_hand)) == ("person", "manual", 0)
    assert by_hand.next.startswith("To do by hand: ")
    assert nothing_to_do(plan_of(), "rollback").notes == ("There is nothing to roll back.",)
