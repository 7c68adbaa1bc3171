"""Make the recorded machines of this folder: `python -m tests.machines.make [FOLDER]`.

None of them was recorded on hardware: each is put together, layer by layer, from what the kernel, Ubuntu and the
vendors' drivers are known to write. A test compares the committed folders with what this script makes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from tests.machines import devices, engines, nvidia
from tests.machines.devices import FIRST, FIRST_AMD, IN_PROCESSOR, INTEL_SLOT, SECOND_AMD, amdgpu, nouveau, pci
from tests.machines.recording_folder import OURS, Recording
from tests.machines.ubuntu import (
    GA_6_8,
    HWE,
    HWE_6_14,
    HWE_6_17,
    HWE_7_0,
    HWE_7_0_28,
    Hardware,
    ubuntu,
)

GAMING = Hardware("AMD Ryzen 9 5950X 16-Core Processor", 32, 64, "ASUSTeK COMPUTER INC.", "ROG STRIX X570-E GAMING")
AM5 = Hardware(
    "AMD Ryzen 7 7800X3D 8-Core Processor", 16, 32, "Micro-Star International Co., Ltd.", "MAG B650 TOMAHAWK"
)
INTEL_PC = Hardware("13th Gen Intel(R) Core(TM) i7-13700F", 24, 64, "ASRock", "Z790 Pro RS")
WORKSTATION = Hardware("AMD Ryzen Threadripper PRO 5975WX 32-Cores", 64, 128, "Dell Inc.", "0X5GHK", "Dell Inc.")
XEON = Hardware("Intel(R) Xeon(R) w5-2465X", 32, 128, "ASUSTeK COMPUTER INC.", "Pro WS W790-ACE")
MINI_PC = Hardware("Intel(R) N100", 4, 16, "AZW", "EQ12", "AMI")


def rtx3090ti_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.3", kernels=(HWE_6_14,), hardware=GAMING, secure_boot=True)
    nouveau(machine, devices.RTX_3090_TI, FIRST)


def rtx6000ada_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.5", kernels=(HWE_7_0,), hardware=WORKSTATION, secure_boot=True, encrypted=True)
    nouveau(machine, devices.RTX_6000_ADA, FIRST)


def rx7900xt_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=AM5, secure_boot=False)
    amdgpu(machine, devices.RX_7900_XT, FIRST_AMD, 1, 110000, cap=265)
    amdgpu(machine, devices.RAPHAEL, IN_PROCESSOR, 2, 100306, boot=False, connected=())


def w7900_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.1", kernels=(GA_6_8,), hardware=XEON, secure_boot=True)
    amdgpu(machine, devices.W7900, FIRST_AMD, 1, 110000, cap=241)


def rtx3090_healthy(machine: Recording) -> None:
    driver = nvidia.Driver("595.84")
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=INTEL_PC, secure_boot=True, groups=("docker",))
    nvidia.packages(machine, driver, (HWE_6_17,), HWE)
    nvidia.loaded(machine, driver, (devices.RTX_3090._replace(bar=32768), FIRST))
    nvidia.answer(machine, driver, nvidia.gpu(FIRST, "NVIDIA GeForce RTX 3090", 24576, 350.0))
    engines.docker(machine, ("nvidia",), ("nvidia.com/gpu=0", "nvidia.com/gpu=all"))
    engines.nvidia_toolkit(machine, driver.version)
    engines.build_tools(machine)


def rx7900xtx_healthy(machine: Recording) -> None:
    reached = ("render", "video", "docker")
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=INTEL_PC, secure_boot=True, groups=reached)
    amdgpu(machine, devices.RX_7900_XTX, FIRST_AMD, 1, 110000, cap=303)
    engines.docker(machine)
    engines.build_tools(machine)


def no_gpu(machine: Recording) -> None:
    ubuntu(machine, point="24.04.1", kernels=(GA_6_8,), hardware=MINI_PC, secure_boot=True, desktop=False, cmdline="")
    pci(machine, devices.INTEL_N100, INTEL_SLOT, "i915", connected=())
    machine.modules.append("i915")


def two_vendors(machine: Recording) -> None:
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=GAMING, secure_boot=False)
    nouveau(machine, devices.RTX_3090, FIRST)
    amdgpu(machine, devices.RX_7900_XT, SECOND_AMD, 1, 110000, cap=265, boot=False, connected=())


def rtx5090_proprietary_module(machine: Recording) -> None:
    driver = nvidia.Driver("580.173.02", open=False)
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=AM5, secure_boot=False)
    nvidia.packages(machine, driver, (HWE_6_17,), HWE)
    nvidia.loaded(machine, driver, (devices.RTX_5090, FIRST), connected=())
    at = FIRST.address
    machine.log += [
        f"NVRM: The NVIDIA GPU {at} (PCI ID: 10de:2b85)",
        "NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
        f"NVRM: GPU {at}: RmInitAdapter failed! (0x22:0x56:884)",
        f"NVRM: GPU {at}: rm_init_adapter failed, device minor number 0",
    ]
    nvidia.answer(machine, driver)


def rtx3090_secureboot_dkms_rejected(machine: Recording) -> None:
    driver = nvidia.Driver("610.43.02", dkms=True)
    ubuntu(machine, point="24.04.5", kernels=(HWE_7_0,), hardware=GAMING, secure_boot=True)
    nvidia.packages(machine, driver, (HWE_7_0,), HWE)
    pci(machine, devices.RTX_3090, FIRST, None)
    machine.log += ["Loading of module with unavailable key is rejected"] * 3
    key = "/var/lib/shim-signed/mok/MOK.der"
    machine.node(key, "file", 0o644, size=977)
    machine.node("/var/lib/shim-signed/mok/MOK.priv", "file", 0o600, size=1704)
    machine.run(("mokutil", "--test-key", key), f"{key} is not enrolled\n")
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def rtx3090_library_mismatch(machine: Recording) -> None:
    driver = nvidia.Driver("595.84", loaded="595.71.05")
    ubuntu(machine, point="24.04.4", kernels=(HWE_6_17,), hardware=INTEL_PC, secure_boot=False)
    nvidia.packages(machine, driver, (HWE_6_17,), HWE)
    nvidia.loaded(machine, driver, (devices.RTX_3090, FIRST))
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
    driver = nvidia.Driver("595.84")
    ubuntu(machine, point="24.04.5", kernels=(HWE_7_0_28, HWE_7_0), hardware=INTEL_PC, secure_boot=False)
    nvidia.packages(machine, driver, (HWE_7_0_28,), HWE)
    pci(machine, devices.RTX_3090, FIRST, None)
    nvidia.answer(machine, driver, problem="not-loaded", detail="9: Driver Not Loaded")


def rx9070xt_old_kernel(machine: Recording) -> None:
    ubuntu(machine, point="24.04.1", kernels=(GA_6_8,), hardware=XEON, secure_boot=False)
    devices.amdgpu_gives_up(machine, devices.RX_9070_XT, FIRST_AMD)


# name → what it shows
MACHINES: dict[str, tuple[Callable[[Recording], None], str]] = {
    "rtx3090ti-fresh": (rtx3090ti_fresh, "RTX 3090 Ti, Ubuntu Desktop 24.04.3 as installed, Secure Boot on"),
    "rtx6000ada-fresh": (rtx6000ada_fresh, "RTX 6000 Ada, Ubuntu Desktop 24.04.5 as installed, encrypted disk"),
    "rx7900xt-fresh": (rx7900xt_fresh, "RX 7900 XT beside a Ryzen's own graphics, 24.04.4 as installed"),
    "w7900-fresh": (w7900_fresh, "Radeon PRO W7900, Ubuntu Desktop 24.04.1 as installed, GA kernel"),
    "rtx3090-healthy": (rtx3090_healthy, "RTX 3090 with the archive's 595-open, docker.io and the container toolkit"),
    "rx7900xtx-healthy": (rx7900xtx_healthy, "RX 7900 XTX with the in-tree driver, person in render and video"),
    "no-gpu": (no_gpu, "mini PC with Intel graphics only, Ubuntu Server"),
    "two-vendors": (two_vendors, "RTX 3090 and RX 7900 XT in one machine, 24.04.4 as installed"),
    "rtx5090-proprietary-module": (rtx5090_proprietary_module, "RTX 5090 with the proprietary module: no devices"),
    "rtx3090-secureboot-dkms-rejected": (rtx3090_secureboot_dkms_rejected, "DKMS module whose key is not enrolled"),
    "rtx3090-library-mismatch": (rtx3090_library_mismatch, "libraries upgraded under a running module"),
    "rtx3090-modules-lag": (rtx3090_modules_lag, "the running kernel has no prebuilt NVIDIA module yet"),
    "rx9070xt-old-kernel": (rx9070xt_old_kernel, "RX 9070 XT on kernel 6.8, which cannot drive it"),
}


def make(folder: Path) -> None:
    """Write every machine under `folder`; a machine that is there is replaced, all but its expect.json."""
    for name, (build, note) in MACHINES.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for old in place.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name != OURS:
                old.unlink()
        machine = Recording(name, note)
        build(machine)
        machine.write(place)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
