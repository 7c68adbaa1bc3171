"""Machines on which nothing is changed, each with the reason and what to do next."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.model import Refusal
from provision.plan.plan_cards import PlannedCard, card_list
from provision.target import PlanTarget, PlanVendor

CONTAINERS = ("docker", "podman", "lxc", "lxc-libvirt", "systemd-nspawn", "openvz", "container-other", "rkt", "proot")
# NVML's name of a vGPU ends in its profile: "GRID A100-10C", "NVIDIA A40-48Q" (NVIDIA vGPU user guide)
VGPU_NAME = re.compile(r"^GRID |-[0-9]{1,3}[ABCQ](-[0-9]+)?$")
VGPU_PACKAGE = re.compile(r"nvidia-linux-grid-[0-9]+")
# snapd boots TPM-sealed systems in this mode, with kernels from the snap pc-kernel (snapd, boot/cmdline.go)
SEALED_BOOT = "snapd_recovery_mode="


def under_windows(host: Host) -> Refusal | None:
    """WSL without a card that works; where NVML answers there, nothing is wrong (`planner`)."""
    if host.os.virtualisation != "wsl":
        return None
    return Refusal(
        code="plan.wsl",
        what="This is Linux under Windows (WSL): no driver is installed here.",
        why="WSL uses the GPU driver of Windows; a Linux driver would break that.",
        next="gpu-setup doctor shows what to do in Windows",
    )


def machine(host: Host, catalogue: Catalogue) -> tuple[Refusal, ...]:
    """Why nothing is changed on this machine, whatever cards it has."""
    return tuple(
        found for found in (_container(host), _system(host, catalogue), _tpm_encryption(host), _vgpu(host)) if found
    )


def _container(host: Host) -> Refusal | None:
    if host.os.virtualisation not in CONTAINERS:
        return None
    return Refusal(
        code="plan.container",
        what=f"This is a container ({host.os.virtualisation}): drivers are not installed from inside one.",
        why="A container uses the kernel and the driver of the machine that runs it.",
        next="gpu-setup plan on that machine",
    )


def _system(host: Host, catalogue: Catalogue) -> Refusal | None:
    known = " or ".join(system.name for system in catalogue.systems)
    if host.os.id is None or host.os.version_id is None:
        return Refusal(
            code="plan.os-unknown",
            what="The operating system could not be read.",
            why=f"Package names and kernels are known for {known} only, and gpu-setup plans nothing on a guess.",
            next="gpu-setup facts shows why /etc/os-release could not be read",
        )
    for system in catalogue.systems:
        arch = host.os.arch
        same = (system.id, system.version_id) == (host.os.id, host.os.version_id)
        if same and (arch is None or arch in system.architectures):
            return None
    here = host.os.pretty or f"{host.os.id} {host.os.version_id}"
    return Refusal(
        code="plan.os",
        what=f"{here}{f' on {host.os.arch}' if host.os.arch else ''} is not a supported system.",
        why=f"Package names, repositories and kernels are known for {known} only.",
        next="gpu-setup doctor, whose fixes are for this system; install the driver with your system's tools",
    )


def _tpm_encryption(host: Host) -> Refusal | None:
    if not any(word.startswith(SEALED_BOOT) for word in host.kernel.cmdline or ()):
        return None
    return Refusal(
        code="plan.tpm-encryption",
        what="This Ubuntu was installed with disk encryption that the TPM unlocks.",
        why="It boots a kernel from a snap, not apt's kernels and modules, and a change of its boot chain can lock the "
        "disk.",
        next="use a driver snap for pc-kernel, or install Ubuntu with a passphrase instead",
    )


def _vgpu(host: Host) -> Refusal | None:
    named = next((gpu.name for gpu in host.nvidia.nvml or () if gpu.name and VGPU_NAME.search(gpu.name)), None)
    package = next((found.name for found in host.apt.packages or () if VGPU_PACKAGE.fullmatch(found.name)), None)
    if named is None and package is None:
        return None
    return Refusal(
        code="plan.vgpu",
        what=f"The GPU is a vGPU, a slice of a GPU ({named or package}).",
        why="A vGPU works only with the GRID driver that matches its host, which no public archive has.",
        next="ask the administrator of the host for its GRID driver and licence",
    )


def cards_unknown() -> Refusal:
    return Refusal(
        code="plan.cards-unknown",
        what="The PCI devices could not be read, so it is not known whether there is a GPU.",
        why="gpu-setup plans nothing on a guess.",
        next="gpu-setup facts shows what could not be read, and why",
    )


def reserved_cards(cards: tuple[PlannedCard, ...]) -> Refusal:
    return Refusal(
        code="plan.reserved",
        what=f"{card_list(cards)} is reserved for a virtual machine (bound to vfio-pci).",
        why="A driver on this machine would take it away from the virtual machine.",
        next="remove the vfio-pci binding (modprobe.d, kernel command line), reboot, then gpu-setup plan",
    )


def two_vendors(nvidia: tuple[PlannedCard, ...], amd: tuple[PlannedCard, ...]) -> Refusal:
    return Refusal(
        code="plan.two-vendors",
        what=f"There are GPUs of both vendors: {card_list(nvidia)} and {card_list(amd)}.",
        why="A training stack is for one vendor, and gpu-setup does not guess which one you mean.",
        next="gpu-setup plan --vendor nvidia, or --vendor amd",
    )


def vendor_absent(target: PlanTarget, present: PlanVendor) -> Refusal:
    return Refusal(
        code="plan.vendor-absent",
        what=f"There is no supported {target.vendor.value.upper()} GPU in this machine.",
        why=f"Its GPUs are from {present.value.upper()}.",
        next="gpu-setup plan without --vendor",
    )
