"""Machines without a card, with two vendors' cards, and systems that do not stand on the metal."""

from __future__ import annotations

from tests.machines import cards, engines, guests, hardware, nvidia
from tests.machines.cards import FIRST, FIRST_AMD, INTEL_SLOT, SECOND_AMD
from tests.machines.devices import amdgpu, nouveau, pci
from tests.machines.nvidia import Driver
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import ubuntu


def no_gpu(machine: Recording) -> None:
    kernels, box = (hardware.GA_6_8,), hardware.MINI_PC
    ubuntu(machine, point="24.04.1", kernels=kernels, hardware=box, secure_boot=True, desktop=False, cmdline="")
    pci(machine, cards.INTEL_N100, INTEL_SLOT, "i915", connected=())
    machine.modules.append("i915")


def two_vendors(machine: Recording) -> None:
    ubuntu(machine, point="24.04.4", kernels=(hardware.HWE_6_17,), hardware=hardware.GAMING, secure_boot=False)
    nouveau(machine, cards.RTX_3090, FIRST)
    amdgpu(machine, cards.RX_7900_XT, SECOND_AMD, 1, boot=False, connected=())


def vfio_host(machine: Recording) -> None:
    line = "quiet splash amd_iommu=on iommu=pt vfio-pci.ids=10de:2684,10de:22ba"
    kernels, box = (hardware.HWE_6_14,), hardware.AM5_16
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=box, secure_boot=False, cmdline=line)
    guests.reserved(machine, cards.RTX_4090, FIRST)
    amdgpu(machine, cards.RAPHAEL, cards.IN_PROCESSOR._replace(drm=1), 1)


def kvm_guest(machine: Recording) -> None:
    """The guest to which such a host hands its card."""
    driver, kernels = Driver("595.71.05"), (hardware.GA_6_8_88,)
    ubuntu(machine, point="24.04.1", kernels=kernels, hardware=hardware.KVM, secure_boot=False, desktop=False)
    nvidia.archive(machine, driver, kernels, headless=True)
    nvidia.at_work(machine, driver, (cards.RTX_4090, FIRST), desktop=False)
    engines.nvidia(machine, driver.version)


def vgpu_guest(machine: Recording) -> None:
    """A slice of an A40; its GRID driver came as a package from the host's vendor."""
    driver, kernels = Driver("580.95.05", dkms=True), (hardware.GA_6_8_60,)
    ubuntu(machine, point="24.04.2", kernels=kernels, hardware=hardware.VMWARE, secure_boot=False, desktop=False)
    machine.package("nvidia-linux-grid-580", "580.95.05")
    nvidia.built_here(machine, "nvidia", driver.version, nvidia.MODULES, kernels)
    nvidia.libraries(machine, driver)
    nvidia.at_work(machine, driver, (cards.A40_SLICE, FIRST), desktop=False)
    # a slice has no sensors and no limit of its own
    for gpu in machine.documents["nvml"]["gpus"]:
        gpu.update(dict.fromkeys(("temperature", "power", "power_limit", "power_default", "power_max")))
    machine.file("/etc/nvidia/gridd.conf", "ServerAddress=\nFeatureType=1\n")
    engines.build_tools(machine)


def wsl(machine: Recording) -> None:
    guests.wsl(machine, hardware.WINDOWS_PC, point="24.04.3")
    card = cards.RTX_4090._replace(name="NVIDIA GeForce RTX 4090")
    # the id is all that is known of the card: WSL has no PCI device of it
    nvidia.answer(machine, Driver("580.88"), nvidia.gpu(card, FIRST, desktop=False) | {"device": "2684"})


def wsl_linux_driver(machine: Recording) -> None:
    """The usual mistake: `apt install nvidia-driver-…` inside of WSL."""
    guests.wsl(machine, hardware.WINDOWS_PC, point="24.04.2")
    driver = Driver("535.288.01", open=False)
    for name in ("nvidia-driver-535", "nvidia-dkms-535", "libnvidia-compute-535", "nvidia-utils-535"):
        machine.package(name, f"{driver.version}-0ubuntu0.24.04.1")
    nvidia.libraries(machine, driver)
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def container_rtx3090(machine: Recording) -> None:
    driver = Driver("595.84")
    guests.container(machine, "6.17.0-35-generic", hardware.INTEL_PC)
    pci(machine, cards.RTX_3090._replace(bar=32768), FIRST, "nvidia")
    for path in [path for path in machine.stat if path.startswith("/dev/dri")]:
        del machine.stat[path]
    del machine.names["/dev/dri"]
    nvidia.module_version(machine, driver)
    nvidia.nodes(machine, 1)
    machine.modules += ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"]
    nvidia.libraries(machine, driver)
    nvidia.answer(machine, driver, nvidia.gpu(cards.RTX_3090, FIRST, desktop=False))
    guests.space(machine, "/dev/shm", 8, 8, "tmpfs")
    engines.build_tools(machine)


def container_rx7900xtx(machine: Recording) -> None:
    """`--device=/dev/dri` without `--device=/dev/kfd`, and Docker's 64 MB of shared memory."""
    guests.container(machine, "6.17.0-35-generic", hardware.INTEL_PC, memory=12)
    amdgpu(machine, cards.RX_7900_XTX, FIRST_AMD, 1)
    del machine.stat["/dev/kfd"]
    machine.names["/dev"].discard("kfd")
    machine.space["/dev/shm"] = {
        "free": 64 << 20, "total": 64 << 20, "inodes_free": 8 << 20, "fstype": "tmpfs", "options": ["rw", "nosuid"],
    }  # fmt: skip
    engines.build_tools(machine)


# name → what it shows
MACHINES = {
    "no-gpu": (no_gpu, "mini PC with Intel graphics only, Ubuntu Server"),
    "two-vendors": (two_vendors, "RTX 3090 and RX 7900 XT in one machine, 24.04.4 as installed"),
    "vfio-host": (vfio_host, "an RTX 4090 kept for a virtual machine, beside a Ryzen's own graphics"),
    "kvm-guest-healthy": (kvm_guest, "virtual machine (KVM) with a passed-through RTX 4090"),
    "vgpu-guest": (vgpu_guest, "virtual machine (VMware) with a slice of an A40 and the GRID driver"),
    "wsl": (wsl, "WSL 2 with the RTX 4090 that Windows lends"),
    "wsl-linux-driver": (wsl_linux_driver, "WSL 2 into which someone installed a Linux driver"),
    "container-rtx3090": (container_rtx3090, "Docker container with --gpus all, as root"),
    "container-rx7900xtx": (container_rx7900xtx, "Docker container with /dev/dri, but without /dev/kfd"),
}
