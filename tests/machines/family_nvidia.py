"""Machines with an NVIDIA card: as installed, at work by every driver route, and broken."""

from __future__ import annotations

from tests.machines import cards, engines, hardware, nvidia
from tests.machines.cards import CLOUD_SLOT, FIRST, INTEL_SLOT, SECOND
from tests.machines.devices import nouveau, pci
from tests.machines.nvidia import Driver
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import ubuntu

DOCKER = ("docker",)


# --- as the installer leaves them


def rtx3090ti_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.3", kernels=(hardware.HWE_6_14,), hardware=hardware.GAMING, secure_boot=True)
    nouveau(machine, cards.RTX_3090_TI, FIRST)


def rtx6000ada_fresh(machine: Recording) -> None:
    station = hardware.WORKSTATION
    ubuntu(machine, point="24.04.5", kernels=(hardware.HWE_7_0,), hardware=station, secure_boot=True, encrypted=True)
    nouveau(machine, cards.RTX_6000_ADA, FIRST)


def rtx4060ti_8gb_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.2", kernels=(hardware.HWE_6_11,), hardware=hardware.OLD_PC, secure_boot=None)
    nouveau(machine, cards.RTX_4060_TI_8, FIRST)


# --- at work: Ubuntu's archive, modules that Canonical built and signed


def rtx3090_healthy(machine: Recording) -> None:
    driver, kernels = Driver("595.84"), (hardware.HWE_6_17,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=True, groups=DOCKER)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_3090._replace(bar=32768), FIRST))
    engines.nvidia(machine, driver.version)


def rtx3090ti_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.95.05"), (hardware.HWE_6_14_24, hardware.HWE_6_14)
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.GAMING, secure_boot=True, groups=DOCKER)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_3090_TI._replace(bar=32768), FIRST))
    engines.nvidia(machine, driver.version)


def rtx6000ada_healthy(machine: Recording) -> None:
    driver, kernels, station = Driver("595.84"), (hardware.HWE_7_0_28,), hardware.WORKSTATION
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=station, secure_boot=True, encrypted=True)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_6000_ADA, FIRST))
    engines.build_tools(machine)


def rtx3060(machine: Recording) -> None:
    driver, kernels = Driver("580.159.04", open=False), (hardware.GA_6_8_88,)
    ubuntu(machine, point="24.04.2", kernels=kernels, hardware=hardware.OLD_PC, secure_boot=None)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_3060, FIRST))
    engines.nvidia(machine, driver.version)


def rtx4060ti_16gb_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.173.02", open=False), (hardware.HWE_6_17_14,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.AM5, secure_boot=True, groups=DOCKER)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_4060_TI_16, FIRST))
    engines.nvidia(machine, driver.version, ce=True)


def t4_server_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.159.04", server=True), (hardware.GA_6_8_60,)
    ubuntu(
        machine, point="24.04.2", kernels=kernels, hardware=hardware.RACK, secure_boot=True, desktop=False, cmdline=""
    )
    nvidia.archive(machine, driver, kernels, headless=True)
    nvidia.at_work(machine, driver, (cards.T4, FIRST), desktop=False)
    engines.nvidia(machine, driver.version)


def h100_server_healthy(machine: Recording) -> None:
    driver, kernels = Driver("595.84", server=True), (hardware.GA_6_8,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.GENOA, secure_boot=True, desktop=False)
    nvidia.archive(machine, driver, kernels, headless=True)
    nvidia.at_work(machine, driver, (cards.H100, FIRST), (cards.H100, SECOND), desktop=False)
    engines.nvidia(machine, driver.version, ce=True)


def rtx5090_oem_healthy(machine: Recording) -> None:
    driver, kernels = Driver("595.71.05"), (hardware.OEM_6_14,)
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.AM5_16, secure_boot=True)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_5090, FIRST))
    engines.build_tools(machine)


# --- at work: built by DKMS from Ubuntu's archive


def rtx5090_healthy(machine: Recording) -> None:
    driver, kernels = Driver("610.43.02", dkms=True), (hardware.HWE_7_0,)
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=hardware.AM5_16, secure_boot=False, groups=DOCKER)
    nvidia.archive(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_5090, FIRST))
    engines.nvidia(machine, driver.version)


def v100_server_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.95.05", open=False, dkms=True, server=True), (hardware.GA_6_8_41,)
    ubuntu(
        machine, point="24.04.1", kernels=kernels, hardware=hardware.RACK, secure_boot=None, desktop=False, cmdline=""
    )
    nvidia.archive(machine, driver, kernels, headless=True)
    nvidia.at_work(machine, driver, (cards.V100, FIRST), desktop=False)
    engines.build_tools(machine)


# --- at work: NVIDIA's repository, built by DKMS


def rtx4090_healthy(machine: Recording) -> None:
    driver, kernels = Driver("610.43.02", dkms=True), (hardware.HWE_7_0_14, hardware.HWE_7_0_28)
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=True, groups=DOCKER)
    nvidia.repository(machine, driver, kernels)
    nvidia.key(machine, enrolled=True)
    nvidia.at_work(machine, driver, (cards.RTX_4090, FIRST))
    engines.nvidia(machine, driver.version)


def a100_server_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.159.04", dkms=True), (hardware.GA_6_8_117,)
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.EPYC, secure_boot=False, desktop=False)
    nvidia.repository(machine, driver, kernels, pinned=True)
    nvidia.at_work(machine, driver, (cards.A100, FIRST), desktop=False)
    pci(machine, cards.ASPEED, INTEL_SLOT, "ast", connected=())
    engines.nvidia(machine, driver.version, ce=True)


def t4_cloud_healthy(machine: Recording) -> None:
    driver, kernels = Driver("580.178.04", dkms=True), (hardware.AWS_6_17,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.AWS_G4DN, secure_boot=False, desktop=False)
    nvidia.repository(machine, driver, kernels, pinned=True)
    nvidia.at_work(machine, driver, (cards.T4, CLOUD_SLOT), desktop=False, lanes=8)
    engines.build_tools(machine)


# --- broken, or with something that should be known


def rtx4090_runfile(machine: Recording) -> None:
    driver, kernels = Driver("580.82.07"), (hardware.LOW_6_8,)
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.GAMING, secure_boot=False)
    nvidia.runfile(machine, driver, kernels)
    nvidia.at_work(machine, driver, (cards.RTX_4090, FIRST))
    engines.nvidia(machine, driver.version, ce=True)


def rtx5090_proprietary_module(machine: Recording) -> None:
    driver, kernels = Driver("580.173.02", open=False), (hardware.HWE_6_17,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.AM5, secure_boot=False)
    nvidia.archive(machine, driver, kernels)
    nvidia.loaded(machine, driver, (cards.RTX_5090, FIRST), connected=())
    at = FIRST.address
    machine.log += [
        f"NVRM: The NVIDIA GPU {at} (PCI ID: 10de:2b85)",
        "NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
        f"NVRM: GPU {at}: RmInitAdapter failed! (0x22:0x56:884)",
        f"NVRM: GPU {at}: rm_init_adapter failed, device minor number 0",
    ]
    nvidia.answer(machine, driver)


def v100_dropped(machine: Recording) -> None:
    driver, kernels = Driver("595.71.05", open=False, dkms=True), (hardware.GA_6_8_41, hardware.GA_6_8_117)
    ubuntu(
        machine, point="24.04.1", kernels=kernels, hardware=hardware.RACK, secure_boot=None, desktop=False, cmdline=""
    )
    nvidia.repository(machine, driver, kernels)
    pci(machine, cards.V100, FIRST, None)
    # NixOS/nixos-hardware#1880 (595.71.05, 2026-05-17), with this card's name
    machine.log += [
        "NVRM: The NVIDIA Tesla V100-PCIE-32GB GPU installed in this system is",
        "NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please",
        "NVRM:  visit http://www.nvidia.com/object/unix.html for more",
        "NVRM:  information.  The 595.71.05 NVIDIA driver will ignore",
        "NVRM:  this GPU.  Continuing probe...",
        "NVRM: No NVIDIA GPU found.",
    ]
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def rtx3090_secureboot_dkms_rejected(machine: Recording) -> None:
    driver, kernels = Driver("610.43.02", dkms=True), (hardware.HWE_7_0,)
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=hardware.GAMING, secure_boot=True)
    nvidia.archive(machine, driver, kernels)
    nvidia.key(machine, enrolled=False)
    pci(machine, cards.RTX_3090, FIRST, None)
    machine.log += ["Loading of module with unavailable key is rejected"] * 3
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def rtx4090_dkms_failed(machine: Recording) -> None:
    """The driver of the repository did not build for the newer kernel: pop-os/pop#3811 has the messages."""
    driver, kernels = Driver("580.119.02", dkms=True), (hardware.HWE_6_14, hardware.HWE_6_17_14)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.AM5, secure_boot=False)
    nvidia.archive(machine, driver, kernels[:1])
    pci(machine, cards.RTX_4090, FIRST, None)
    release = kernels[1].release
    machine.package("nvidia-dkms-580-open", "580.119.02-0ubuntu0.24.04.1", status="install ok half-configured")
    machine.file(
        "/var/lib/dkms/nvidia/580.119.02/build/make.log",
        f"DKMS (dkms-3.0.11) make.log for nvidia-580.119.02 for kernel {release} (x86_64)\n"
        "Mon Nov 23 08:12:40 UTC 2026\n"
        "nvidia/os-mlock.c: In function 'os_lock_user_pages':\n"
        "nvidia/os-mlock.c:304:36: error: implicit declaration of function 'get_dev_pagemap'\n"
        "make[3]: *** [scripts/Makefile.build:287: nvidia/os-mlock.o] Error 1\n"
        "make: *** [Makefile:115: modules] Error 2\n",
    )
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def rtx3090_library_mismatch(machine: Recording) -> None:
    driver, kernels = Driver("595.84", loaded="595.71.05"), (hardware.HWE_6_17,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=False)
    nvidia.archive(machine, driver, kernels)
    nvidia.loaded(machine, driver, (cards.RTX_3090, FIRST))
    machine.log += [
        "NVRM: API mismatch: the client has the version 595.84, but",
        "NVRM: this kernel module has the version 595.71.05.  Please",
        "NVRM: make sure that this kernel module and all NVIDIA driver",
        "NVRM: components have the same version.",
    ]
    machine.file("/run/reboot-required", "*** System restart required ***\n")
    machine.file("/run/reboot-required.pkgs", "libnvidia-compute-595\n")
    nvidia.answer(machine, driver, problem="mismatch", detail="18: Driver/library version mismatch")


def rtx3090_modules_lag(machine: Recording) -> None:
    driver, kernels = Driver("595.84"), (hardware.HWE_7_0_28, hardware.HWE_7_0)
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=False)
    nvidia.archive(machine, driver, kernels[:1])
    pci(machine, cards.RTX_3090, FIRST, None)
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def hybrid_laptop(machine: Recording) -> None:
    """The panel is connected to the CPU's graphics, the card sleeps until it is used (PRIME on-demand)."""
    driver, kernels = Driver("595.84"), (hardware.HWE_6_17,)
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.LAPTOP, secure_boot=True, groups=DOCKER)
    pci(machine, cards.INTEL_LAPTOP, INTEL_SLOT, "i915", connected=("eDP-1",))
    nvidia.archive(machine, driver, kernels)
    slot = FIRST._replace(drm=2)
    nvidia.at_work(machine, driver, (cards.RTX_5090_LAPTOP, slot), desktop=False, boot=False, power_state="D3cold")
    machine.file("/etc/prime-discrete", "on-demand\n")
    machine.package("nvidia-prime", "0.8.17.2", arch="all")
    machine.modules.append("i915")
    engines.nvidia(machine, driver.version)


# name → what it shows
MACHINES = {
    "rtx3090ti-fresh": (rtx3090ti_fresh, "RTX 3090 Ti, Ubuntu Desktop 24.04.3 as installed, Secure Boot on"),
    "rtx6000ada-fresh": (rtx6000ada_fresh, "RTX 6000 Ada, Ubuntu Desktop 24.04.5 as installed, encrypted disk"),
    "rtx4060ti-8gb-fresh": (rtx4060ti_8gb_fresh, "RTX 4060 Ti with 8 GB on an old board with a BIOS, as installed"),
    "rtx3090-healthy": (rtx3090_healthy, "RTX 3090 with the archive's 595-open, docker.io and the container toolkit"),
    "rtx3090ti-healthy": (rtx3090ti_healthy, "RTX 3090 Ti with the archive's 580-open for two kernels"),
    "rtx6000ada-healthy": (rtx6000ada_healthy, "RTX 6000 Ada with the archive's 595-open, no container engine"),
    "rtx3060": (rtx3060, "RTX 3060 12 GB with the archive's proprietary 580, started by a BIOS, kernel 6.8"),
    "rtx4060ti-16gb-healthy": (rtx4060ti_16gb_healthy, "RTX 4060 Ti 16 GB, the archive's proprietary 580, docker-ce"),
    "t4-server-healthy": (t4_server_healthy, "T4 in a rack server, the archive's 580-server-open without a desktop"),
    "h100-server-healthy": (h100_server_healthy, "two H100 PCIe, the archive's 595-server-open"),
    "rtx5090-oem-healthy": (rtx5090_oem_healthy, "RTX 5090 on Ubuntu's OEM kernel with prebuilt modules"),
    "rtx5090-healthy": (rtx5090_healthy, "RTX 5090 with the archive's 610-open by DKMS, Secure Boot off"),
    "v100-server-healthy": (v100_server_healthy, "V100 with the archive's proprietary 580-server by DKMS, BIOS"),
    "rtx4090-healthy": (rtx4090_healthy, "RTX 4090 with NVIDIA's repository 610, DKMS, its key enrolled"),
    "a100-server-healthy": (a100_server_healthy, "A100 with NVIDIA's repository pinned to 580, beside an ASPEED"),
    "t4-cloud-healthy": (t4_cloud_healthy, "T4 in a rented virtual machine (g4dn), aws kernel, NVIDIA's repository"),
    "rtx4090-runfile": (rtx4090_runfile, "RTX 4090 with the driver from NVIDIA's .run file, lowlatency kernel"),
    "rtx5090-proprietary-module": (rtx5090_proprietary_module, "RTX 5090 with the proprietary module: no devices"),
    "v100-driver-too-new": (v100_dropped, "V100 after an upgrade to 595, which no longer drives Volta"),
    "rtx3090-secureboot-dkms-rejected": (rtx3090_secureboot_dkms_rejected, "DKMS module whose key is not enrolled"),
    "rtx4090-dkms-failed": (rtx4090_dkms_failed, "DKMS could not build the module for the new kernel"),
    "rtx3090-library-mismatch": (rtx3090_library_mismatch, "libraries upgraded under a running module"),
    "rtx3090-modules-lag": (rtx3090_modules_lag, "the running kernel has no prebuilt NVIDIA module yet"),
    "hybrid-laptop": (hybrid_laptop, "laptop: Intel graphics for the panel, an RTX 5090 Laptop asleep beside it"),
}
