"""Later kernels: the branch with their modules, the hook that does not boot one without a module, update."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.provision import state
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import KERNELS, Repositories
from tests.machines import hardware

pytestmark = pytest.mark.lab

OLD, NEW = hardware.HWE_7_0_28, hardware.HWE_7_0
BEHIND = "rtx3090-behind"
META = "linux-image-generic-hwe-24.04"


def _driver(plan: dict[str, Any]) -> str:
    (step,) = [step for step in plan["steps"] if step["id"] == "nvidia-driver"]
    return str(step["action"]["packages"][0]["name"])


def _lagging(shops: Repositories, *branches: int) -> None:
    """The archive before the modules of these branches for the newest kernel are in it; the metas still lead to the
    older one."""
    shops.archive(modules_for=tuple(row for row in KERNELS if row is not NEW))
    if 580 in branches:
        return
    lagging = {package.name: package for package in shops.on_sale("ubuntu")}
    whole = {package.name: package for package in shops.packages("ubuntu")}
    for name, package in whole.items():
        if name.startswith("linux-modules-nvidia-580"):
            lagging[name] = package
    shops.publish("ubuntu", lagging.values())


def _prepared(guest: Guest) -> None:
    assert guest.tool("apply", "--yes").rc == 5
    guest.reboot()
    assert guest.tool("resume").rc == 0
    assert guest.run("uname", "-r").returncode == 0


def test_the_branch_with_modules_for_the_kernel_to_come_is_taken(hosts: Hosts, shops: Repositories) -> None:
    """The next upgrade brings a kernel for which only the long-term branch has modules already."""
    _lagging(shops, 595)
    with hosts.guest(BEHIND) as guest:
        planned = guest.tool("plan")
        assert planned.rc == 0, planned.document
        assert _driver(planned.data) == "nvidia-driver-580-open"


def test_where_no_branch_has_them_yet_the_kernel_that_is_here_counts(hosts: Hosts, shops: Repositories) -> None:
    _lagging(shops, 580, 595)
    with hosts.guest(BEHIND) as guest:
        planned = guest.tool("plan")
        assert planned.rc == 0, planned.document
        assert _driver(planned.data) == "nvidia-driver-595-open"
        assert any(NEW.release in note and "next-boot-guard" in note for note in planned.data["notes"])


def test_a_kernel_without_its_module_is_not_started_next(hosts: Hosts, shops: Repositories) -> None:
    _lagging(shops, 580, 595)
    with hosts.guest(BEHIND) as guest:
        _prepared(guest)
        # as unattended-upgrades does it
        upgraded = guest.run("apt-get", "install", "--yes", META, user="root")
        assert upgraded.returncode == 0, upgraded.stderr
        assert guest.path(f"/boot/vmlinuz-{NEW.release}").exists()
        assert NEW.release in guest.run("cat", "/run/motd.d/gpu-setup-kernel").stdout
        guest.reboot()
        facts = guest.tool("facts").data
        assert (facts["kernel"]["release"], facts["nvidia"]["module_version"]) == (OLD.release, "595.84")

        # update waits for the module too, and changes nothing
        before = state.of(guest)
        waits = guest.tool("update", "--yes")
        assert (waits.rc, waits.error["code"]) == (3, "update.no-module")
        assert state.differences(before, state.of(guest)) == []

        # the module comes, and kernel and driver move together
        shops.reset()
        moved = guest.tool("update", "--yes")
        assert moved.rc == 5, moved.document
        guest.reboot()
        assert guest.tool("resume").rc == 0
        facts = guest.tool("facts").data
        assert (facts["kernel"]["release"], facts["nvidia"]["module_version"]) == (NEW.release, "595.84")
        assert not guest.path("/etc/default/grub.d/gpu-setup-next-kernel.cfg").exists()
        again = guest.tool("update", "--yes")
        assert again.rc == 0 and {step["outcome"] for step in again.data["steps"]} <= {"already"}
