"""What the plan says of the next boot: a driver that waits is kept, what keeps it off is named, nothing is promised
that does not come true."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from checks.facts.host import Amd, DkmsBuild, Host, ModuleFile, Nvidia, Package, PciCard
from provision.model import AptInstall, AptPreference, AptRemove, KernelModule, State, Step
from tests.provision.plan.answers import install, planned, states, step
from tests.provision.plan.machines import GA, HWE, RX_7900_XT, card, healthy_3090, packages, ubuntu
from tests.subjects import for_each

pytestmark = pytest.mark.long

IDLE_AMD = msgspec.structs.replace(RX_7900_XT, driver=None)
IDLE_3090 = card("10de", "2204")
NVIDIA_580 = packages(
    "nvidia-driver-580-open",
    "nvidia-utils-580",
    "libnvidia-compute-580",
    "linux-modules-nvidia-580-open-generic-hwe-24.04",
    version="580.95.05-0ubuntu0.24.04.1",
)
PREBUILT = ModuleFile(
    name="nvidia", kernel=HWE, path=f"/lib/modules/{HWE}/kernel/nvidia-580-open/nvidia.ko", origin="prebuilt"
)
BUILT = ModuleFile(name="nvidia", kernel=HWE, path=f"/lib/modules/{HWE}/updates/dkms/nvidia.ko", origin="dkms")
AMD_BUILT = ModuleFile(name="amdgpu", kernel=HWE, path=f"/lib/modules/{HWE}/updates/dkms/amdgpu.ko", origin="dkms")
AMD_DKMS = packages("amdgpu-dkms", "amdgpu-dkms-firmware", version="1:6.16.13-2278356.24.04")


def with_kernel(host: Host, **changes: Any) -> Host:
    return msgspec.structs.replace(host, kernel=msgspec.structs.replace(host.kernel, **changes))


def with_apt(host: Host, **changes: Any) -> Host:
    return msgspec.structs.replace(host, apt=msgspec.structs.replace(host.apt, **changes))


def idle_amd(**kernel: Any) -> Host:
    return with_kernel(ubuntu(IDLE_AMD, amd=Amd(loaded=False)), **kernel)


def idle_nvidia(*modules: ModuleFile, installed: tuple[Package, ...] = NVIDIA_580, **kernel: Any) -> Host:
    nvidia = Nvidia(library_version="580.95.05", nvml_problem="not-loaded", runfile=False)
    host = ubuntu(IDLE_3090, installed=installed, nvidia=nvidia, secure_boot=False)
    return with_kernel(host, modules=modules or (PREBUILT,), **kernel)


def by_hand(host: Host) -> list[Step]:
    return [each for each in planned(host).steps if each.state is State.MANUAL]


@for_each("word", ("nomodeset", "modprobe.blacklist=amdgpu", "module_blacklist=radeon,amdgpu", "amdgpu.modeset=0"))
def test_a_parameter_of_the_kernel_that_keeps_amdgpu_off_is_a_step_by_hand(word: str) -> None:
    host = idle_amd(cmdline=("quiet", word))
    (only,) = by_hand(host)
    assert only.id == "amdgpu-allow"
    assert word in only.title
    assert only.action == KernelModule(name="amdgpu", change="allow", file="/etc/default/grub")
    assert ("update-grub",) in only.commands
    assert ("update-initramfs", "-u", "-k", "all") not in only.commands
    assert ("modprobe amdgpu" in only.because) == word.startswith("modprobe.")
    assert planned(host).reboots == 0


def test_a_module_that_was_loaded_by_hand_needs_no_step() -> None:
    host = with_kernel(ubuntu(RX_7900_XT, amd=Amd(loaded=True)), cmdline=("modprobe.blacklist=amdgpu",))
    assert by_hand(host) == []
    assert planned(host).reboots == 0


def test_another_kernel_at_the_next_boot_is_worth_a_reboot() -> None:
    line = "[    4.153] amdgpu: probe of 0000:03:00.0 failed with error -22"
    file = ModuleFile(name="amdgpu", kernel=HWE, path="", origin="in-tree")
    found = planned(idle_amd(log=(line,), loaded=("amdgpu",), release=GA, next_boot=HWE, modules=(file,)))
    assert "may take" in step(found, "reboot").because


def test_the_parameter_is_removed_where_it_is() -> None:
    own = "/etc/default/grub.d/mi300.cfg"
    host = idle_amd(cmdline=("modprobe.blacklist=amdgpu",), boot_parameters=((own, "modprobe.blacklist=amdgpu"),))
    (only,) = by_hand(host)
    assert only.commands[0] == ("sed", "-i", r"s/ *\bmodprobe\.blacklist=amdgpu//", own)
    # one name of several: an expression would take the others with it
    several = by_hand(idle_amd(cmdline=("modprobe.blacklist=nouveau,amdgpu",)))[0]
    assert several.commands[0] == ("sudoedit", "/etc/default/grub")


def test_a_card_that_was_switched_off_is_switched_on_by_the_same_program() -> None:
    file = "/usr/lib/modprobe.d/blacklist-nvidia.conf"
    blocked = {"blacklisted": (("nvidia", file), ("nvidia_drm", file))}
    (only,) = by_hand(idle_nvidia(**blocked, written_by=((file, "nvidia-prime"),)))
    assert only.id == "nvidia-allow"
    assert only.commands[0] == ("prime-select", "on-demand")
    found = planned(idle_nvidia(**blocked, written_by=((file, "nvidia-prime"),)))
    assert states(found)["nvidia-driver"] == "done"
    assert found.reboots == 0
    own = by_hand(idle_nvidia(**blocked))[0]
    assert own.commands[:2] == (("sudoedit", file), ("update-initramfs", "-u", "-k", "all"))


@for_each(
    "line",
    (
        "[    4.143] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init",
        "[    4.153] amdgpu: probe of 0000:03:00.0 failed with error -12",
        "[    4.153] amdgpu 0000:03:00.0: probe with driver amdgpu failed with error -22",
    ),
)
def test_a_driver_that_failed_in_this_boot_gets_no_reboot(line: str) -> None:
    found = planned(idle_amd(log=(line,), loaded=("amdgpu",)))
    assert found.reboots == 0
    assert step(found, "reboot").state is State.DONE
    assert line.strip() in step(found, "reboot").because


def test_a_reboot_is_promised_where_the_next_boot_differs() -> None:
    assert "it takes Radeon RX 7900 XT" in step(planned(idle_amd()), "reboot").because
    assert planned(idle_amd(cmdline=None)).reboots == 0
    recovery = planned(idle_amd(cmdline=("recovery", "nomodeset", "dis_ucode_ldr")))
    assert [each for each in recovery.steps if each.state is State.MANUAL] == []
    assert recovery.reboots == 1


def test_a_driver_that_waits_for_the_reboot_is_kept() -> None:
    found = planned(idle_nvidia())
    assert states(found)["nvidia-driver"] == "done"
    assert "at the next" in step(found, "reboot").because
    built = DkmsBuild(module="nvidia", version="580.95.05", kernel=HWE, state="installed")
    own = (*packages("nvidia-driver-580-open", "nvidia-dkms-580-open", version="580.95.05-0ubuntu0.24.04.1"),)
    here = planned(idle_nvidia(BUILT, installed=own, dkms=(built,)))
    assert states(here)["nvidia-driver"] == "done"
    assert "installed, supports every GPU here" in step(here, "nvidia-driver").because
    assert here.reboots == 1


def test_the_open_module_of_a_card_before_turing_is_replaced_not_loaded_again() -> None:
    built = DkmsBuild(module="nvidia", version="580.95.05", kernel=HWE, state="installed")
    own = packages("nvidia-driver-580-open", "nvidia-dkms-580-open", version="580.95.05-0ubuntu0.24.04.1")
    host = idle_nvidia(BUILT, installed=own, dkms=(built,))
    volta: PciCard = card("10de", "1db4")
    found = planned(msgspec.structs.replace(host, cards=(volta,)))
    assert install(found)[0] == "nvidia-driver-580"
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert action.remove == ("nvidia-driver-580-open", "nvidia-dkms-580-open")


def test_a_complete_amdgpu_dkms_is_kept_although_it_is_not_loaded() -> None:
    host = ubuntu(IDLE_AMD, installed=AMD_DKMS, amd=Amd(loaded=False), secure_boot=False)
    host = with_kernel(host, modules=(AMD_BUILT,))
    found = planned(host)
    assert "amdgpu-dkms-remove" not in states(found)
    assert states(found)["amdgpu"] == "done"
    assert found.reboots == 1
    blocked = planned(with_kernel(host, cmdline=("modprobe.blacklist=amdgpu",)))
    assert states(blocked)["amdgpu"] == "done"
    assert states(blocked)["amdgpu-allow"] == "manual"
    # without a module for the next kernel it serves nothing
    assert states(planned(with_kernel(host, modules=())))["amdgpu-dkms-remove"] == "todo"
    # Secure Boot refuses it until its key is enrolled, at the console
    firmware = msgspec.structs.replace(host.firmware, secure_boot=True)
    refused = planned(msgspec.structs.replace(host, firmware=firmware))
    assert states(refused)["enrol-key"] == "manual"
    assert "enrols the key" in step(refused, "reboot").because


def test_an_unfinished_amdgpu_dkms_is_removed_and_never_built_again() -> None:
    half = tuple(msgspec.structs.replace(row, state="half-configured") for row in AMD_DKMS[:1])
    host = with_apt(ubuntu(RX_7900_XT, installed=(*half, *AMD_DKMS[1:]), amd=Amd(loaded=True)), broken=("amdgpu-dkms",))
    found = planned(host)
    assert next(each.id for each in found.open_steps()) == "amdgpu-dkms-remove"
    assert "dpkg-repair" not in states(found)
    # the card works with the kernel's module: nothing changes at a reboot
    assert found.reboots == 0
    # kernel packages that wait for it are finished after it is gone
    headers = Package(name=f"linux-headers-{HWE}", version="6.17", state="half-configured")
    more = with_apt(host, broken=("amdgpu-dkms", headers.name), packages=(*(host.apt.packages or ()), headers))
    order = [each.id for each in planned(more).open_steps()]
    assert order.index("amdgpu-dkms-remove") < order.index("dpkg-repair")


def test_no_reboot_into_a_kernel_that_was_left_on_purpose() -> None:
    half = tuple(msgspec.structs.replace(row, state="half-configured") for row in AMD_DKMS[:1])
    amd = Amd(loaded=True, module_version="6.14.14")
    host = with_apt(ubuntu(RX_7900_XT, installed=half, amd=amd, release=GA), broken=("amdgpu-dkms",))
    in_tree = tuple(ModuleFile(name="amdgpu", kernel=each, path="", origin="in-tree") for each in (GA, HWE))
    chosen = with_kernel(with_apt(host, reboot_required=False), next_boot=HWE, installed=(GA, HWE), modules=in_tree)
    found = planned(chosen)
    assert found.reboots == 0
    assert any(f"unless you choose {GA} in its menu" in note for note in found.notes)
    assert planned(with_apt(chosen, reboot_required=True)).reboots == 1


def test_a_build_that_fails_on_the_next_kernel_is_replaced_by_prebuilt_modules() -> None:
    failed = DkmsBuild(
        module="nvidia",
        version="565.77",
        kernel=HWE,
        state="added",
        log_tail="nvidia-drm-drv.c:212:6: error: no member",
    )
    own = packages("nvidia-open", "nvidia-driver-pinning-580", version="580.95.05-1ubuntu1")
    for installed in (own, packages("nvidia-driver-565-open", "nvidia-dkms-565-open")):
        host = with_kernel(ubuntu(IDLE_3090, installed=installed), dkms=(failed,), modules=())
        found = planned(host)
        assert any(name.startswith("linux-modules-nvidia-") for name in install(found)), installed
        assert "nvidia-module" not in states(found)


FOREIGN = packages("libnvidia-compute", "libnvidia-cfg1", version="590.44.01-1ubuntu1")


def mixed(*foreign: Package, **apt: Any) -> Host:
    host = healthy_3090()
    own = tuple(row for row in NVIDIA_580 if row.name not in {each.name for each in foreign})
    others = tuple(
        row for row in host.apt.packages or () if not row.name.startswith(("nvidia-driver", "linux-modules"))
    )
    nvidia = msgspec.structs.replace(
        host.nvidia, module_version="580.95.05", library_version="590.44.01", nvml=None, nvml_problem="mismatch"
    )
    host = msgspec.structs.replace(with_kernel(host, modules=(PREBUILT,)), nvidia=nvidia)
    return with_apt(host, packages=(*others, *own, *foreign), **apt)


def test_packages_of_another_source_are_removed_in_the_drivers_transaction() -> None:
    found = planned(mixed(*FOREIGN))
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    assert set(action.remove) == {"libnvidia-compute", "libnvidia-cfg1"}
    assert action.packages[0].name == "nvidia-driver-580-open"
    assert action.one_source is None
    because = step(found, "nvidia-driver").because
    assert "come from two sources" in because
    assert "590.44.01" in because
    assert found.reboots == 1
    assert "match" not in step(found, "reboot").because


def test_packages_that_both_sources_have_are_taken_from_one() -> None:
    foreign = packages("libnvidia-compute-580", "nvidia-utils-580", version="580.105.08-1ubuntu1")
    found = planned(mixed(*foreign))
    action, pin = step(found, "nvidia-driver").action, step(found, "pin-nvidia.one-source").action
    assert isinstance(action, AptInstall)
    assert isinstance(pin, AptPreference)
    assert action.one_source == "ubuntu"
    assert {"libnvidia-compute-580", "nvidia-utils-580"} <= {row.name for row in action.packages}
    assert (pin.pin, pin.priority) == ("release o=Ubuntu", 1001)
    assert set(pin.packages) == {"libnvidia-compute-580", "nvidia-utils-580"}
    order = [each.id for each in found.steps]
    assert order.index("pin-nvidia.one-source") < order.index("nvidia-driver")


def test_what_dpkg_wants_reinstalled_is_removed_before_apt_is_asked() -> None:
    torn = tuple(
        msgspec.structs.replace(row, state=state)
        for row, state in zip(FOREIGN, ("unpacked", "half-installed"), strict=True)
    )
    found = planned(mixed(*torn, broken=("libnvidia-cfg1", "libnvidia-compute")))
    first = found.steps[0]
    assert first.id == "dpkg-repair"
    assert first.commands[-1] == ("dpkg", "--remove", "--force-remove-reinstreq", "--force-depends", "libnvidia-cfg1")


def test_a_mismatch_that_a_reboot_ends_and_one_that_it_does_not() -> None:
    host = mixed()
    same = msgspec.structs.replace(host, nvidia=msgspec.structs.replace(host.nvidia, library_version="580.126.09"))
    ends = planned(same)
    assert [each.id for each in ends.open_steps()] == ["reboot"]
    assert "match after a reboot" in step(ends, "reboot").because
    # libraries that are of no package: another branch brings both
    found = planned(host)
    assert "a reboot alone does not make them match" in step(found, "nvidia-driver").because
    newest = PREBUILT.path.replace("580", "595")
    packages_595 = packages("nvidia-driver-595-open", "linux-modules-nvidia-595-open-generic-hwe-24.04")
    complete = with_kernel(host, modules=(msgspec.structs.replace(PREBUILT, path=newest),))
    refused = planned(with_apt(complete, packages=(*(host.apt.packages or ())[:1], *packages_595)))
    assert [refusal.code for refusal in refused.refusals] == ["plan.foreign-libraries"]


def test_a_kernel_that_is_not_ubuntus_has_no_prebuilt_modules() -> None:
    host = with_kernel(
        ubuntu(IDLE_3090), release="6.18.7-061807-generic", next_boot="6.18.7-061807-generic", modules=()
    )
    blocked = step(planned(host), "nvidia-driver")
    assert blocked.state is State.BLOCKED
    assert "is not Ubuntu's" in blocked.because
    assert "linux-generic-hwe-24.04" in blocked.because


def test_ubuntus_rocm_packages_are_replaced_by_amds() -> None:
    from checks.facts.host import AptSource

    source = AptSource(file="rocm.list", uri="https://repo.radeon.com/rocm/apt/7.0.1", owner="amd-rocm")
    amds = Package(name="hipcc", version="1.1.1.70001-42~24.04", state="installed")
    host = with_apt(
        ubuntu(RX_7900_XT, installed=(*packages("rocminfo", version="5.7.1-3build1"), amds), amd=Amd(loaded=True)),
        sources=(source,),
    )
    found = planned(host)
    assert states(found)["pin-amd.rocm.legacy"] == "todo"
    remove = step(found, "rocm-remove-ubuntus").action
    assert isinstance(remove, AptRemove)
    assert remove.packages == ("rocminfo",)
    assert "rocm-remove-ubuntus" not in states(planned(with_apt(host, sources=())))
    order = [each.id for each in planned(host, rocm="host").steps]
    assert order.index("rocm-remove-ubuntus") < order.index("rocm")


def test_a_module_whose_signature_is_refused_although_its_key_is_enrolled_is_replaced_by_signed_ones() -> None:
    built = DkmsBuild(module="nvidia", version="580.95.05", kernel=HWE, state="installed")
    own = packages("nvidia-open", "nvidia-dkms-open", "nvidia-driver-pinning-580", version="580.95.05-1ubuntu1")
    refused = ("[    3.1] modprobe: ERROR: could not insert 'nvidia': Key was rejected by service",)
    host = idle_nvidia(BUILT, installed=own, dkms=(built,), log=refused)
    firmware = msgspec.structs.replace(host.firmware, secure_boot=True, mok_key_enrolled=True)
    found = planned(msgspec.structs.replace(host, firmware=firmware))
    assert any(name.startswith("linux-modules-nvidia-580") for name in install(found))
    # a key that is not enrolled is enrolled at the console
    missing = msgspec.structs.replace(firmware, mok_key_enrolled=False)
    assert states(planned(msgspec.structs.replace(host, firmware=missing)))["enrol-key"] == "manual"
