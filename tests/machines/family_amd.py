"""Machines with an AMD card: the kernel's own driver or AMD's, ROCm on the host in each of its layouts."""

from __future__ import annotations

from typing import Any

from tests.machines import cards, engines, hardware, rocm
from tests.machines.cards import FIRST_AMD, IN_PROCESSOR, SERVER_AMD, SERVER_AMD_2
from tests.machines.devices import amdgpu, amdgpu_gives_up
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import ubuntu

REACHED = ("render", "video")
WITH_DOCKER = (*REACHED, "docker")


# --- as the installer leaves them


def rx7900xt_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.4", kernels=(hardware.HWE_6_17,), hardware=hardware.AM5, secure_boot=False)
    amdgpu(machine, cards.RX_7900_XT, FIRST_AMD, 1)
    amdgpu(machine, cards.RAPHAEL, IN_PROCESSOR, 2, boot=False, connected=())


def w7900_fresh(machine: Recording) -> None:
    ubuntu(machine, point="24.04.1", kernels=(hardware.GA_6_8,), hardware=hardware.XEON, secure_boot=True)
    amdgpu(machine, cards.W7900, FIRST_AMD, 1)


# --- at work with the kernel's own driver


def rx7900xtx_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.HWE_6_17,), WITH_DOCKER
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=True, groups=groups)
    amdgpu(machine, cards.RX_7900_XTX, FIRST_AMD, 1)
    engines.docker(machine)
    engines.build_tools(machine)


def rx7900xt_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.HWE_6_14,), WITH_DOCKER
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.AM5, secure_boot=False, groups=groups)
    amdgpu(machine, cards.RX_7900_XT._replace(bar=32768), FIRST_AMD, 1)
    amdgpu(machine, cards.RAPHAEL, IN_PROCESSOR, 2, boot=False, connected=())
    engines.docker_ce(machine)
    engines.build_tools(machine)


def rx7800xt_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.GA_6_8_60,), REACHED
    ubuntu(machine, point="24.04.2", kernels=kernels, hardware=hardware.OLD_PC, secure_boot=None, groups=groups)
    amdgpu(machine, cards.RX_7800_XT, FIRST_AMD, 1)
    engines.build_tools(machine)


def rx6900xt_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.HWE_6_17_14,), WITH_DOCKER
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=hardware.GAMING, secure_boot=True, groups=groups)
    amdgpu(machine, cards.RX_6900_XT, FIRST_AMD, 1)
    engines.docker(machine)
    engines.build_tools(machine)


def rx9070xt_healthy(machine: Recording) -> None:
    """The kernel's driver with ROCm 10.1 for programs outside of the training environment."""
    kernels, groups = (hardware.HWE_7_0,), WITH_DOCKER
    ubuntu(machine, point="24.04.5", kernels=kernels, hardware=hardware.AM5_16, secure_boot=True, groups=groups)
    amdgpu(machine, cards.RX_9070_XT, FIRST_AMD, 1)
    rocm.core(machine, "10.1.0", "gfx1201", *rocm.ROCM_10)
    rocm.smi(machine, (cards.RX_9070_XT, FIRST_AMD))
    engines.docker(machine)
    engines.build_tools(machine)


# --- at work with AMD's driver


def w7900_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.HWE_6_11,), REACHED
    ubuntu(machine, point="24.04.2", kernels=kernels, hardware=hardware.XEON, secure_boot=False, groups=groups)
    rocm.amdgpu_dkms(machine, rocm.DKMS_6_12, kernels)
    amdgpu(machine, cards.W7900, FIRST_AMD, 1)
    rocm.legacy(machine, "6.4.1", rocm.DKMS_6_12)
    rocm.smi(machine, (cards.W7900, FIRST_AMD))
    engines.build_tools(machine)


def rx7900gre_healthy(machine: Recording) -> None:
    kernels, groups = (hardware.HWE_6_14_24,), WITH_DOCKER
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.AM5_16, secure_boot=False, groups=groups)
    rocm.amdgpu_dkms(machine, rocm.DKMS_6_16, kernels)
    amdgpu(machine, cards.RX_7900_GRE, FIRST_AMD, 1)
    rocm.legacy(machine, "7.2.4", rocm.DKMS_6_16)
    rocm.smi(machine, (cards.RX_7900_GRE, FIRST_AMD))
    engines.docker_ce(machine)
    engines.build_tools(machine)


def mi210_server_healthy(machine: Recording) -> None:
    kernels, server = (hardware.GA_6_8_117,), hardware.EPYC
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=server, secure_boot=False, desktop=False, groups=REACHED)
    rocm.amdgpu_dkms(machine, rocm.DKMS_6_16, kernels)
    amdgpu(machine, cards.MI210, SERVER_AMD, 1)
    rocm.core(machine, "7.14.0", "gfx90a", *rocm.ROCM_7_14, rocm.DKMS_6_16)
    rocm.smi(machine, (cards.MI210, SERVER_AMD))
    engines.build_tools(machine)


def mi300x_server_healthy(machine: Recording) -> None:
    kernels, server, line = (hardware.GA_6_8,), hardware.GENOA, "amd_iommu=on iommu=pt"
    more: dict[str, Any] = {"desktop": False, "groups": WITH_DOCKER, "cmdline": line}
    ubuntu(machine, point="24.04.4", kernels=kernels, hardware=server, secure_boot=False, **more)
    rocm.amdgpu_dkms(machine, rocm.DKMS_7_1, kernels)
    amdgpu(machine, cards.MI300X, SERVER_AMD, 2)
    amdgpu(machine, cards.MI300X, SERVER_AMD_2, 3)
    rocm.core(machine, "10.0.0", "gfx942", *rocm.ROCM_10, rocm.DKMS_7_1)
    rocm.smi(machine, (cards.MI300X, SERVER_AMD), (cards.MI300X, SERVER_AMD_2))
    engines.docker_ce(machine)
    engines.build_tools(machine)


# --- broken, or with something that should be known


def radeon_vii(machine: Recording) -> None:
    kernels, groups = (hardware.GA_6_8_31,), REACHED
    ubuntu(machine, point="24.04", kernels=kernels, hardware=hardware.GAMING, secure_boot=False, groups=groups)
    amdgpu(machine, cards.RADEON_VII, FIRST_AMD, 1)
    engines.build_tools(machine)


def rx9070xt_old_kernel(machine: Recording) -> None:
    ubuntu(machine, point="24.04.1", kernels=(hardware.GA_6_8,), hardware=hardware.XEON, secure_boot=False)
    amdgpu_gives_up(machine, cards.RX_9070_XT, FIRST_AMD)


def rx7900gre_dkms_failed(machine: Recording) -> None:
    """amdgpu-dkms did not build for the HWE kernel (ROCm/amdgpu#192); the kernel's own driver stepped in."""
    kernels = (hardware.GA_6_8_88, hardware.HWE_6_14_24)
    ubuntu(machine, point="24.04.3", kernels=kernels, hardware=hardware.INTEL_PC, secure_boot=False, groups=REACHED)
    rocm.amdgpu_dkms(machine, rocm.DKMS_6_12, kernels[:1])
    del machine.files["/sys/module/amdgpu/version"]
    machine.modules.clear()
    amdgpu(machine, cards.RX_7900_GRE, FIRST_AMD, 1)
    version = "6.12.12-2164967.24.04"
    machine.packages[:] = [stanza for stanza in machine.packages if not stanza.startswith("Package: amdgpu-dkms\n")]
    machine.package("amdgpu-dkms", f"1:{version}", status="install ok half-configured", arch="all")
    machine.file(
        f"/var/lib/dkms/amdgpu/{version}/build/make.log",
        f"DKMS make.log for amdgpu-{version} for kernel 6.14.0-24-generic (x86_64)\nThu Jul 17 09:26:34 UTC 2026\n"
        "make: Entering directory '/usr/src/linux-headers-6.14.0-24-generic'\n"
        "/tmp/amd.Z35UpKSZ/Makefile:52: *** dma_resv->seq is missing. exit....  Stop.\n"
        "make: *** [/usr/src/linux-hwe-6.14-headers-6.14.0-24/Makefile:1938: /tmp/amd.Z35UpKSZ] Error 2\n",
    )
    engines.build_tools(machine)


# name → what it shows
MACHINES = {
    "rx7900xt-fresh": (rx7900xt_fresh, "RX 7900 XT beside a Ryzen's own graphics, 24.04.4 as installed"),
    "w7900-fresh": (w7900_fresh, "Radeon PRO W7900, Ubuntu Desktop 24.04.1 as installed, GA kernel"),
    "rx7900xtx-healthy": (rx7900xtx_healthy, "RX 7900 XTX with the in-tree driver, person in render and video"),
    "rx7900xt-healthy": (rx7900xt_healthy, "RX 7900 XT beside a Ryzen's own graphics, which KFD lists after it"),
    "rx7800xt-healthy": (rx7800xt_healthy, "RX 7800 XT on kernel 6.8, started by a BIOS, no container engine"),
    "rx6900xt-healthy": (rx6900xt_healthy, "RX 6900 XT with the in-tree driver of 6.17, Secure Boot on"),
    "rx9070xt-healthy": (rx9070xt_healthy, "RX 9070 XT with the in-tree driver of 7.0 and ROCm 10.1 on the host"),
    "w7900-healthy": (w7900_healthy, "Radeon PRO W7900 with amdgpu-dkms and ROCm 6.4.1, kernel 6.11"),
    "rx7900gre-healthy": (rx7900gre_healthy, "RX 7900 GRE with amdgpu-dkms and ROCm 7.2.4"),
    "mi210-server-healthy": (mi210_server_healthy, "MI210 in a server, amdgpu-dkms and ROCm 7.14"),
    "mi300x-server-healthy": (mi300x_server_healthy, "two MI300X, amdgpu-dkms 31.50, ROCm 10.0, iommu=pt"),
    "radeonvii": (radeon_vii, "Radeon VII on the first kernel of 24.04: no published stack for gfx906"),
    "rx9070xt-old-kernel": (rx9070xt_old_kernel, "RX 9070 XT on kernel 6.8, which cannot drive it"),
    "rx7900gre-dkms-failed": (rx7900gre_dkms_failed, "amdgpu-dkms did not build for the HWE kernel"),
}
