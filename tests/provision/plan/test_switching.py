"""Replacing a driver: the whole old set is removed, the family stays the same, 32-bit libraries are kept."""

from __future__ import annotations

import msgspec

from checks.catalogue import catalogue
from checks.facts.host import Host, Nvidia, Package
from provision.model import AptInstall, Plan
from provision.plan.planner import make_plan
from provision.target import DriverSource, PlanTarget
from tests.provision.plan.answers import install, planned, step
from tests.provision.plan.machines import RTX_3090_TI, V100, card, healthy_3090, packages, ubuntu

ARCHIVE = (
    "nvidia-driver-580-open",
    "nvidia-kernel-common-580",
    "nvidia-firmware-580-580.173.02",
    "nvidia-utils-580",
    "libnvidia-compute-580",
    "linux-modules-nvidia-580-open-generic-hwe-24.04",
    "linux-modules-nvidia-580-open-6.17.0-14-generic",
)
OTHERS = ("nvidia-container-toolkit", "libnvidia-container1", "nvidia-prime", "nvidia-settings", "nvidia-cuda-toolkit")


def going(found: Plan) -> set[str]:
    action = step(found, "nvidia-driver").action
    assert isinstance(action, AptInstall)
    return set(action.remove)


def with_packages(host: Host, *more: Package) -> Host:
    apt = msgspec.structs.replace(host.apt, packages=(*(host.apt.packages or ()), *more))
    return msgspec.structs.replace(host, apt=apt)


def vendor_machine(branch: str) -> Host:
    """NVIDIA's own packages as they are called from 590 on, and what else has their vendor's name."""
    own = ("nvidia-open", "nvidia-dkms-open", "libnvidia-compute", "nvidia-kernel-common", "nvidia-persistenced")
    return ubuntu(
        card("10de", "2204", driver="nvidia"),
        installed=(
            *packages(*own, version=f"{branch}.43.02-1ubuntu1"),
            *packages(f"nvidia-driver-pinning-{branch}", version=f"{branch}-1ubuntu1"),
            *packages("nvidia-settings", version="510.47.03-0ubuntu4"),
            *packages("nvidia-container-toolkit", version="1.20.0-1"),
        ),
        nvidia=Nvidia(module_version=f"{branch}.43.02", open_module=True, nvml=(), runfile=False),
    )


def test_from_the_archive_to_nvidias_packages_the_whole_set_is_replaced() -> None:
    host = with_packages(healthy_3090(), *packages(*ARCHIVE[1:], *OTHERS))
    assert going(planned(host, source="nvidia")) == set(ARCHIVE)


def test_names_that_both_have_are_replaced_and_not_removed() -> None:
    """Before 590 NVIDIA's packages are called like Ubuntu's: apt moves these from one to the other by itself."""
    host = with_packages(healthy_3090(), *packages(*ARCHIVE[1:], *OTHERS))
    found = planned(host, source="nvidia", branch=580)
    assert "nvidia-open-580" in install(found)
    assert going(found) == {name for name in ARCHIVE if name.startswith(("nvidia-driver", "linux-modules"))}


def test_from_nvidias_packages_to_the_archive_the_whole_set_is_replaced() -> None:
    found = planned(vendor_machine("610"), source="archive")
    assert going(found) == {
        "nvidia-open",
        "nvidia-dkms-open",
        "libnvidia-compute",
        "nvidia-kernel-common",
        "nvidia-persistenced",
        "nvidia-driver-pinning-610",
    }


def test_an_older_branch_is_replaced_with_all_its_packages() -> None:
    host = with_packages(healthy_3090(), *packages(*ARCHIVE[1:], *OTHERS))
    assert going(planned(host, branch=595)) == set(ARCHIVE)


def test_what_is_only_configured_still_is_no_package_any_more() -> None:
    gone = Package(name="libnvidia-compute-550", version="550.1", state="config-files")
    assert "libnvidia-compute-550" not in going(planned(with_packages(healthy_3090(), gone), branch=595))


def test_the_server_family_is_kept() -> None:
    installed = packages("nvidia-headless-no-dkms-580-server", "linux-modules-nvidia-580-server-generic-hwe-24.04")
    found = planned(ubuntu(V100, desktop=False, installed=installed), branch=580)
    assert install(found) == [
        "nvidia-headless-no-dkms-580-server",
        "nvidia-utils-580-server",
        "nvidia-compute-utils-580-server",
        "linux-modules-nvidia-580-server-generic-hwe-24.04",
    ]
    assert going(found) == set()
    assert "-server" in step(found, "nvidia-driver").because


def test_no_machine_gets_the_server_family_unasked() -> None:
    for host in (ubuntu(V100, desktop=False), ubuntu(RTX_3090_TI)):
        assert not [name for name in install(planned(host)) if "-server" in name]


def test_steams_32_bit_libraries_come_in_the_same_transaction() -> None:
    fresh = with_packages(ubuntu(RTX_3090_TI), *packages("steam-libs-i386:i386"))
    assert install(planned(fresh))[-1] == "libnvidia-gl-595:i386"
    there = with_packages(healthy_3090(), *packages("libnvidia-gl-580:i386", "libnvidia-compute-580:i386"))
    found = planned(there, branch=595)
    assert install(found)[-2:] == ["libnvidia-gl-595:i386", "libnvidia-compute-595:i386"]
    assert {"libnvidia-gl-580:i386", "libnvidia-compute-580:i386"} <= going(found)
    assert not [name for name in install(planned(ubuntu(RTX_3090_TI))) if name.endswith(":i386")]


def test_a_branch_left_out_is_left_out_for_the_server_family_too() -> None:
    installed = packages("nvidia-headless-no-dkms-580-server")
    found = make_plan(
        ubuntu(RTX_3090_TI, installed=installed), catalogue(), PlanTarget(source=DriverSource.ARCHIVE), without=(595,)
    )
    assert install(found)[0].endswith("-580-server-open")
