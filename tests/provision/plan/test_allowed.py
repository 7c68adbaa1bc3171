"""What a plan may hold: every plan of the planner, and nothing else."""

from __future__ import annotations

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from machine.errors import Refused
from provision.model import AnyAction, State, WriteFile
from provision.plan.allowed import allow_list, check_actions, is_user_name
from provision.plan.planner import make_plan
from provision.resolve.update import plan_requested_update
from provision.target import PlanTarget
from tests.provision.forged import FORGED, honest, with_step
from tests.provision.plan.machines import HWE, RTX_3090_TI, healthy_3090, packages, ubuntu
from tests.recorded_machines import load, names
from tests.subjects import for_each

# together they reach every kind of step that the planner makes
TARGETS = (
    {},
    {"source": "nvidia", "toolkit": True, "display": "headless"},
    {"source": "dkms", "rocm": "host"},
    {"vendor": "amd", "rocm": "host", "docker_group": True},
    {"vendor": "nvidia", "toolkit": True, "containers": False},
)


@for_each("name", names())
def test_every_plan_of_a_recorded_machine_is_allowed(name: str) -> None:
    host = read_host(load(name))
    for target in TARGETS:
        check_actions(make_plan(host, catalogue(), msgspec.convert(target, PlanTarget)), catalogue(), "the planner")


def test_steps_that_no_recorded_machine_has_are_allowed() -> None:
    """A person's blacklist, unattended upgrades without half of the set, sources of another ROCm, Steam, an update."""
    host = ubuntu(RTX_3090_TI, installed=packages("steam-launcher", "nvidia-driver-580-open", "nvidia-dkms-580-open"))
    check_actions(make_plan(host, catalogue(), PlanTarget()), catalogue(), "the planner")
    update = plan_requested_update(healthy_3090(), catalogue(), honest())
    assert [step.id for step in update.steps] == ["next-boot-guard", "update", "next-boot-choice", "reboot"]
    check_actions(update, catalogue(), "the planner")


@for_each("name", FORGED)
def test_a_forged_action_is_refused_whatever_its_title_says(name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_actions(with_step(honest(), FORGED[name]), catalogue(), "plan.json")
    assert refused.value.code == "plan.not-allowed"
    assert "nvidia-persistence" in refused.value.what and refused.value.why.isprintable()


def test_what_would_be_done_is_said() -> None:
    action = FORGED["a sudoers file"]
    with pytest.raises(Refused) as refused:
        check_actions(with_step(honest(), action), catalogue(), "plan.json")
    assert "/etc/sudoers.d/gpu-setup" in refused.value.why


def test_a_step_whose_title_is_several_lines_is_refused() -> None:
    forged = with_step(honest(), FORGED["a sudoers file"], title="Done.\x1b[2J\nContinue?")
    assert allow_list(catalogue()).problem(forged.steps[-1]) == "Its name is not one line of text"


def test_a_home_is_only_for_its_owner_to_write() -> None:
    action: AnyAction = FORGED["root writes into a home"]
    assert isinstance(action, WriteFile)
    step = with_step(honest(), action).steps[-1]
    assert allow_list(catalogue()).problem(msgspec.structs.replace(step, state=State.MANUAL)) is None


@for_each("name", ("ada", "ada.lovelace", "ada@corp.example", "CORP\\ada", "_apt", "svc$", "1st"))
def test_names_that_directories_give_are_names(name: str) -> None:
    assert is_user_name(name)


@for_each("name", ("", "-R", "a b", "a:b", "a,b", "../a", "/a", "a\n", "a" * 300))
def test_what_is_no_user_name(name: str) -> None:
    assert not is_user_name(name)


def test_a_module_for_one_kernel_is_allowed() -> None:
    wanted = f"linux-modules-nvidia-595-open-{HWE}"
    assert allow_list(catalogue()).packages.fullmatch(wanted)
    assert not allow_list(catalogue()).packages.fullmatch(f"{wanted} netcat")
