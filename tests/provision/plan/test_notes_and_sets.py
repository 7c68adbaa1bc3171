"""Around a driver on a machine in use: unattended upgrades, networks of other engines, Python, versions."""

from __future__ import annotations

import msgspec
import pytest

from checks.facts.host import Docker, Host, PciCard, PythonFacts
from provision.model import AptInstall, WriteFile
from tests.provision.plan.answers import install, planned, states, step
from tests.provision.plan.machines import RTX_3090_TI, RX_7900_XT, card, healthy_3090, packages, toolkit, ubuntu


def with_updates(host: Host, *blocks: str, on: bool = True) -> Host:
    return msgspec.structs.replace(
        host, apt=msgspec.structs.replace(host.apt, unattended=on, unattended_blocks=tuple(blocks))
    )


@pytest.mark.parametrize(
    ("blocks", "on", "planned_for"),
    [
        (("nvidia-",), True, True),  # the advice that strands machines
        ((), True, False),
        (("linux-", "nvidia-", "libnvidia-"), True, False),
        (("nvidia-",), False, False),
        (("firefox",), True, False),
    ],
)
def test_the_whole_set_is_kept_from_unattended_upgrades_or_nothing(
    blocks: tuple[str, ...], on: bool, planned_for: bool
) -> None:
    for host in (ubuntu(RTX_3090_TI), healthy_3090()):
        assert ("unattended-set" in states(planned(with_updates(host, *blocks, on=on)))) is planned_for


def test_what_completes_the_set_names_kernels_modules_and_libraries() -> None:
    found = step(planned(with_updates(healthy_3090(), "nvidia-")), "unattended-set")
    assert isinstance(found.action, WriteFile)
    assert all(f'"{name}"' in found.action.content for name in ("linux-", "nvidia-", "libnvidia-"))
    assert "kernel and kernel modules and driver" in found.because
    assert "gpu-setup update" in found.because


def test_amd_machines_have_no_such_set() -> None:
    assert "unattended-set" not in states(planned(with_updates(ubuntu(RX_7900_XT), "nvidia-")))


def test_docker_beside_libvirt_comes_with_a_warning() -> None:
    host = ubuntu(RTX_3090_TI)
    beside = msgspec.structs.replace(host, os=msgspec.structs.replace(host.os, virtual_networks=("virbr0",)))
    assert any("virbr0" in note and "DOCKER-USER" in note for note in planned(beside).notes)
    assert not any("DOCKER-USER" in note for note in planned(host).notes)
    podman = msgspec.structs.replace(beside, docker=Docker(kind="podman"))
    assert not any("DOCKER-USER" in note for note in planned(podman).notes)


def test_a_laptops_desktop_keeps_its_other_gpu() -> None:
    inside = PciCard(slot="0000:00:02.0", vendor="8086", device="a780", boot_vga=True, driver="i915")
    found = planned(ubuntu(card("10de", "2204", driver="nouveau"), inside))
    assert any("0000:00:02.0" in note and "keeps running on another GPU" in note for note in found.notes)
    assert not any("prime-select" in word for step in found.steps for command in step.commands for word in command)


@pytest.mark.parametrize(("venv", "state"), [(False, "todo"), (True, None), (None, None)])
def test_venv_comes_where_python_lacks_it(venv: bool | None, state: str | None) -> None:
    host = msgspec.structs.replace(ubuntu(RTX_3090_TI), python=PythonFacts(venv=venv))
    assert states(planned(host)).get("python-venv") == state


@pytest.mark.parametrize(
    ("version", "state"), [("1.16.2-1", "todo"), ("1.18.0~rc.1-1", "todo"), ("1.18.0-1", "done"), ("1.21.0-1", "done")]
)
def test_an_old_container_toolkit_is_moved_and_a_newer_one_stays(version: str, state: str) -> None:
    host = ubuntu(RTX_3090_TI, installed=toolkit(version))
    found = step(planned(host), "container-toolkit")
    assert found.state == state
    assert version in found.because
    if state == "todo":
        assert isinstance(found.action, AptInstall)
        assert {wanted.at_least for wanted in found.action.packages} == {"1.18.0-1"}
        assert "nvidia-container-toolkit" in found.commands[0]


def test_a_container_toolkit_of_two_versions_becomes_one() -> None:
    mixed = (*packages("nvidia-container-toolkit", version="1.20.0-1"), *toolkit("1.19.1-1")[1:])
    found = step(planned(ubuntu(RTX_3090_TI, installed=mixed)), "container-toolkit")
    assert found.state == "todo"
    assert "different versions" in found.because
    assert install(planned(ubuntu(RTX_3090_TI, installed=mixed)), "container-toolkit")[0] == "nvidia-container-toolkit"


def test_every_step_to_do_says_by_which_commands_it_is_done() -> None:
    for found in (
        planned(ubuntu(RTX_3090_TI), source="nvidia", toolkit=True),
        planned(with_updates(ubuntu(RTX_3090_TI), "nvidia-")),
        planned(ubuntu(RX_7900_XT), rocm="host"),
    ):
        for each in found.open_steps():
            assert each.commands, each.id
    key = step(planned(ubuntu(RTX_3090_TI)), "key-nvidia.container-toolkit")
    assert key.commands[0][0] == "curl"
    assert key.commands[1][:2] == ("gpg", "--show-keys")
