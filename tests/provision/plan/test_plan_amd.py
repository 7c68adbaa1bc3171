"""AMD: the kernel's driver, new enough for the GPU, and access to it."""

from __future__ import annotations

import msgspec
import pytest

from checks.facts.host import Amd, AptSource, Docker, Package, Person, RocmInstall
from provision.model import AptInstall, AptPreference, AptRemove, State, UserGroup, WriteFile
from tests.provision.plan.answers import install, planned, states, step
from tests.provision.plan.machines import (
    GA,
    HWE,
    RAPHAEL,
    RX_6700_XT,
    RX_7900_XT,
    RX_9070_XT,
    W7900,
    amd_at_work,
    packages,
    ubuntu,
)

IDLE_7900_XT = msgspec.structs.replace(RX_7900_XT, driver=None)


def test_a_fresh_rx_7900_xt_needs_access_and_an_engine_but_no_driver() -> None:
    found = planned(ubuntu(RX_7900_XT, RAPHAEL, amd=amd_at_work("gfx1100")))
    assert states(found) == {"kernel": "done", "groups": "todo", "docker": "todo", "compiler": "todo"}
    assert "signed by Canonical" in step(found, "kernel").because
    groups = step(found, "groups")
    assert isinstance(groups.action, UserGroup)
    assert groups.action.groups == ("render", "video")
    assert groups.commands == (("usermod", "--append", "--groups", "render,video", "ada"),)
    assert "next login" in groups.because
    assert found.reboots == 0
    assert any("integrated" in note for note in found.notes)
    assert any("--group-add 992" in note for note in found.notes)
    assert any("ROCm is not installed on the host" in note for note in found.notes)


def test_an_rx_9070_xt_on_the_first_kernel_gets_the_hwe_one() -> None:
    found = planned(ubuntu(RX_9070_XT, release=GA, flavour="generic"))
    assert install(found, "kernel") == ["linux-generic-hwe-24.04"]
    assert "gfx1201 needs 6.14" in step(found, "kernel").because
    assert found.reboots == 1


def test_an_hwe_kernel_that_waits_needs_only_the_restart() -> None:
    host = ubuntu(RX_9070_XT)
    kernel = msgspec.structs.replace(host.kernel, release=GA, next_boot=HWE)
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert states(found)["kernel"] == "done"
    assert "the running 6.8" in step(found, "reboot").because


def test_a_w7900_on_the_first_kernel_is_new_enough() -> None:
    found = planned(ubuntu(W7900, release=GA, flavour="generic", amd=amd_at_work("gfx1100")))
    assert states(found)["kernel"] == "done"
    assert found.reboots == 0


def test_a_working_machine_has_nothing_to_do() -> None:
    host = ubuntu(
        RX_7900_XT,
        groups=("ada", "render", "video", "docker"),
        installed=packages("docker.io", "docker-buildx", "build-essential", "python3-dev"),
        docker=Docker(kind="docker.io", version="28.2.2", answers=True),
        amd=amd_at_work("gfx1100", "render", "video"),
    )
    found = planned(host)
    assert found.open_steps() == ()
    assert found.reboots == 0


def test_membership_that_this_session_does_not_have_yet_is_done_with_a_hint() -> None:
    person = Person(uid=1000, user="ada", groups=("ada",), database_groups=("ada", "render", "video"))
    found = planned(ubuntu(RX_7900_XT, amd=amd_at_work("gfx1100"), person=person))
    assert step(found, "groups").state is State.DONE
    assert "log out and in" in step(found, "groups").because


def test_only_the_missing_group_is_added() -> None:
    found = planned(ubuntu(RX_7900_XT, groups=("ada", "video"), amd=amd_at_work("gfx1100")))
    assert step(found, "groups").commands == (("usermod", "--append", "--groups", "render", "ada"),)


def test_a_kernel_without_amdgpu_gets_its_extra_modules() -> None:
    host = ubuntu(RX_7900_XT, amd=Amd(loaded=False))
    kernel = msgspec.structs.replace(host.kernel, modules=())
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert install(found, "amdgpu-module") == [f"linux-modules-extra-{HWE}"]


def test_a_blacklist_line_is_left_to_the_person_and_no_reboot_is_promised_before() -> None:
    host = ubuntu(IDLE_7900_XT, amd=Amd(loaded=False))
    kernel = msgspec.structs.replace(host.kernel, blacklisted=(("amdgpu", "/etc/modprobe.d/mine.conf"),))
    found = planned(msgspec.structs.replace(host, kernel=kernel))
    assert step(found, "amdgpu-allow").state is State.MANUAL
    assert step(found, "amdgpu-allow").commands[-1] == ("systemctl", "reboot")
    assert found.reboots == 0


def test_the_kernels_amdgpu_replaces_a_failed_amdgpu_dkms() -> None:
    broken = Package(name="amdgpu-dkms", version="1:6.16", state="half-configured")
    found = planned(ubuntu(IDLE_7900_XT, installed=(broken, *packages("amdgpu-dkms-firmware")), amd=Amd(loaded=False)))
    remove = step(found, "amdgpu-dkms-remove").action
    assert isinstance(remove, AptRemove)
    assert remove.packages == ("amdgpu-dkms", "amdgpu-dkms-firmware")
    assert found.reboots == 1


def test_a_working_amdgpu_dkms_stays() -> None:
    amd = msgspec.structs.replace(amd_at_work("gfx1100"), module_version="6.16.13")
    found = planned(ubuntu(RX_7900_XT, installed=packages("amdgpu-dkms"), amd=amd))
    assert states(found)["amdgpu"] == "done"
    assert found.reboots == 0


def test_amdgpu_dkms_supports_the_first_kernel_only() -> None:
    refused = planned(ubuntu(RX_7900_XT), source="dkms")
    assert [refusal.code for refusal in refused.refusals] == ["plan.dkms-kernel"]
    found = planned(ubuntu(RX_7900_XT, release=GA, flavour="generic"), source="dkms")
    assert install(found, "amdgpu") == ["linux-headers-generic", "amdgpu-dkms"]
    assert step(found, "enrol-key").state is State.MANUAL
    pin = step(found, "pin-amd.driver").action
    assert isinstance(pin, AptPreference)
    assert "*" not in pin.packages


def test_rocm_on_the_host_is_the_release_that_the_cards_stack_is_built_for() -> None:
    found = planned(ubuntu(W7900, amd=amd_at_work("gfx1100")), rocm="host")
    assert install(found, "rocm") == ["rocm", "libatomic1", "libquadmath0"]
    pin = step(found, "pin-amd.rocm.legacy").action
    assert isinstance(pin, AptPreference)
    assert "*" not in pin.packages
    assert states(found)["key-amd.rocm.legacy"] == "todo"


def test_rocm_on_the_host_is_blocked_while_its_key_cannot_be_checked() -> None:
    found = planned(ubuntu(RX_6700_XT, amd=amd_at_work("gfx1031")), rocm="host")
    assert install(found, "rocm")[0] == "amdrocm10.0-gfx1031"
    assert {states(found)[id] for id in ("key-amd.rocm.10", "repository-amd.rocm.10", "rocm")} == {"blocked"}
    assert "fingerprint" in step(found, "key-amd.rocm.10").because


def test_installed_rocm_is_kept_and_another_release_is_removed_before_a_new_one() -> None:
    amd = msgspec.structs.replace(amd_at_work("gfx1100"), rocm=(RocmInstall(path="/opt/rocm-7.2.4", version="7.2.4"),))
    host = ubuntu(W7900, amd=amd, installed=packages("rocm", "rocm-core"))
    assert any("/opt/rocm-7.2.4 is kept" in note for note in planned(host).notes)
    assert "rocm-remove-old" not in states(planned(host, rocm="host"))
    newer = planned(ubuntu(RX_6700_XT, amd=amd, installed=packages("rocm", "rocm-core")), rocm="host")
    remove = step(newer, "rocm-remove-old").action
    assert isinstance(remove, AptRemove)
    assert remove.packages == ("rocm", "rocm-core")


def test_the_source_of_the_other_rocm_is_emptied_and_not_fought() -> None:
    old = AptSource(file="/etc/apt/sources.list.d/rocm.list", uri="https://repo.radeon.com/rocm/apt/7.2.4")
    host = ubuntu(RX_6700_XT, amd=amd_at_work("gfx1031"))
    host = msgspec.structs.replace(host, apt=msgspec.structs.replace(host.apt, sources=(old,)))
    found = step(planned(host, rocm="host"), "rocm-old-source-rocm.list").action
    assert isinstance(found, WriteFile)
    assert found.path == "/etc/apt/sources.list.d/rocm.list"


def test_no_containers_on_request() -> None:
    found = planned(ubuntu(RX_7900_XT, amd=amd_at_work("gfx1100")), containers=False)
    assert not any(id.startswith("docker") for id in states(found))


@pytest.mark.parametrize("release", ["6.8.0-88-generic", "6.11.0-29-generic", "6.13.12"])
def test_kernel_numbers_are_compared_as_numbers(release: str) -> None:
    found = planned(ubuntu(RX_9070_XT, release=release, flavour="generic"))
    kernel = step(found, "kernel")
    assert isinstance(kernel.action, AptInstall)
    assert kernel.state is State.TODO
