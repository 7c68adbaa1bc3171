"""AMD's own driver module and its ROCm on the host, in the layouts that followed one another."""

from __future__ import annotations

from typing import NamedTuple

from tests.machines.cards import Card, Slot
from tests.machines.hardware import Kernel
from tests.machines.nvidia import built_here
from tests.machines.synthetic import Recording

KEY = "/etc/apt/keyrings/rocm.gpg"
# address and file of the repositories of ROCm 7.14 and of 10
ROCM_7_14 = ("https://repo.amd.com/rocm/packages-multi-arch/ubuntu2404", "rocm.list")
ROCM_10 = ("https://stable.repo.amd.com/rocm/core/packages/ubuntu2404/", "amdrocm-stable.sources")


class Module(NamedTuple):
    """amdgpu-dkms: AMD's release of the driver, the module's own number, and the build in the package's version."""

    release: str
    version: str
    build: str


# ROCm 6.4.1 came with 6.12.12, 7.2 with 6.16.13 in repository 30.30 (package names in ROCm/amdgpu issues 192 and 209)
DKMS_6_12 = Module("6.4.1", "6.12.12", "2164967")
DKMS_6_16 = Module("30.30", "6.16.13", "2278356")
DKMS_7_1 = Module("31.50", "7.1.3", "2391402")


def amdgpu_dkms(machine: Recording, module: Module, kernels: tuple[Kernel, ...]) -> None:
    """The driver from repo.radeon.com, built here; to be called before the cards are bound."""
    version = f"{module.version}-{module.build}.24.04"
    for name in ("amdgpu-dkms", "amdgpu-dkms-firmware"):
        machine.package(name, f"1:{version}", arch="all")
    machine.node(KEY, "file", 0o644, size=2249)
    machine.file(
        "/etc/apt/sources.list.d/amdgpu.list",
        f"deb [arch=amd64 signed-by={KEY}] https://repo.radeon.com/amdgpu/{module.release}/ubuntu noble main\n",
    )
    built_here(machine, "amdgpu", version, ("amdgpu", "amdkcl", "amdttm", "amd-sched", "amddrm_buddy"), kernels)
    machine.file("/sys/module/amdgpu/version", f"{module.version}\n")
    machine.modules += ["amdttm", "amdkcl"]


def legacy(machine: Recording, version: str, module: Module | None = None) -> None:
    """ROCm up to 7.2: packages and repository on repo.radeon.com, a folder for each version, tools by alternatives."""
    number = "".join(f"{int(part):02}" for part in version.split(".")).lstrip("0")
    for name in ("rocm-core", "rocm-hip-runtime", "hsa-rocr", "hip-runtime-amd", "rocminfo", "amd-smi-lib"):
        machine.package(name, f"{version}.{number}-66~24.04")
    machine.file(
        "/etc/apt/sources.list.d/rocm.list",
        f"deb [arch=amd64 signed-by={KEY}] https://repo.radeon.com/rocm/apt/{version} noble main\n",
    )
    machine.node(KEY, "file", 0o644, size=2249)
    machine.file(
        "/etc/apt/preferences.d/rocm-pin-600", "Package: *\nPin: release o=repo.radeon.com\nPin-Priority: 600\n"
    )
    _tree(machine, f"/opt/rocm-{version}", version)
    machine.link("/opt/rocm", "/etc/alternatives/rocm")
    machine.link("/etc/alternatives/rocm", f"/opt/rocm-{version}")
    machine.link("/usr/bin/rocminfo", "/etc/alternatives/rocminfo")
    machine.node("/usr/bin/rocminfo", "file", 0o755, size=40 << 10)
    _smi_driver(machine, module)


def core(machine: Recording, version: str, gfx: str, uri: str, file: str, module: Module | None = None) -> None:
    """ROCm from 7.14 on: /opt/rocm/core-X.Y under a real /opt/rocm, whose bin the person puts on PATH."""
    short = ".".join(version.split(".")[:2])
    keyring = "/etc/apt/keyrings/amdrocm.gpg"
    for name in (f"amdrocm{short}-{gfx}", f"amdrocm-runtime{short}", f"amdrocm-amdsmi{short}"):
        machine.package(name, f"{version}-24.04")
    machine.node(keyring, "file", 0o644, size=2249)
    if file.endswith(".sources"):
        machine.file(
            f"/etc/apt/sources.list.d/{file}",
            f"X-Repo-Id: amdrocm-stable\nTypes: deb\nURIs: {uri}\nSuites: stable\nComponents: main\n"
            f"Architectures: amd64\nSigned-By: {keyring}\nEnabled: yes\n",
        )
    else:
        machine.file(f"/etc/apt/sources.list.d/{file}", f"deb [arch=amd64 signed-by={keyring}] {uri} stable main\n")
    _tree(machine, f"/opt/rocm/core-{short}", version)
    machine.node("/opt/rocm/bin/rocminfo", "file", 0o755, size=40 << 10)
    machine.session["environ"]["PATH"] += ":/opt/rocm/bin"
    _smi_driver(machine, module)


def _tree(machine: Recording, folder: str, version: str) -> None:
    machine.file(f"{folder}/.info/version", f"{version}\n")
    machine.listing(f"{folder}/bin", "rocminfo", "amd-smi", "hipcc")
    machine.node(f"{folder}/lib/libamd_smi.so", "file", 0o644, size=3 << 20)


def _smi_driver(machine: Recording, module: Module | None) -> None:
    machine.documents["amdsmi"] = {
        "vendor": "amd", "problem": None, "detail": "", "stub": False,
        "driver": module.version if module else None, "cuda": None, "gpus": [],
    }  # fmt: skip


def smi(machine: Recording, *places: tuple[Card, Slot]) -> None:
    """amdsmi's answer for these cards; ROCm must be on the machine."""
    machine.documents["amdsmi"]["gpus"] = [
        {"slot": slot.address, "name": None, "memory_total": card.vram, "problem": None} for card, slot in places
    ]
