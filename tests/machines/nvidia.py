"""NVIDIA's driver in its states: packages, modules for each kernel, libraries, device nodes, NVML's answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.machines.devices import Card, Slot, pci
from tests.machines.recording_folder import Recording
from tests.machines.ubuntu import Kernel

MODULES = ("nvidia", "nvidia-drm", "nvidia-modeset", "nvidia-peermem", "nvidia-uvm")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


class Driver(NamedTuple):
    """`version` is what the packages hold; `loaded` what the running module says (None: no module)."""

    version: str
    open: bool = True
    dkms: bool = False
    loaded: str | None = None

    @property
    def branch(self) -> str:
        return self.version.partition(".")[0]

    @property
    def flavour(self) -> str:
        return f"{self.branch}-open" if self.open else self.branch


def packages(machine: Recording, driver: Driver, kernels: tuple[Kernel, ...], meta: str) -> None:
    """The archive's driver; prebuilt modules for `kernels`, or DKMS, which builds for them."""
    version = f"{driver.version}-0ubuntu0.24.04.1"
    for name in ("libnvidia-compute", "libnvidia-gl", "nvidia-utils", "nvidia-compute-utils", "nvidia-kernel-common"):
        machine.package(f"{name}-{driver.branch}", version)
    machine.package(f"nvidia-driver-{driver.flavour}", version)
    machine.package(f"nvidia-firmware-{driver.branch}-{driver.version}", version)
    machine.listing(f"/lib/firmware/nvidia/{driver.version}", "gsp_ga10x.bin", "gsp_tu10x.bin")
    if driver.dkms:
        machine.package(f"nvidia-dkms-{driver.flavour}", version)
        machine.package(f"nvidia-kernel-source-{driver.flavour}", version)
        machine.package("dkms", "3.0.11-1ubuntu13")
        machine.listing("/usr/src", f"nvidia-{driver.version}")
    else:
        machine.package(f"linux-modules-nvidia-{driver.flavour}-{meta}", kernels[-1].version)
    for kernel in kernels:
        folder = f"/lib/modules/{kernel.release}"
        if driver.dkms:
            machine.listing(f"{folder}/updates/dkms", *(f"{name}.ko.zst" for name in MODULES))
            built = f"{driver.version}/{kernel.release}/x86_64"
            machine.listing(f"/var/lib/dkms/nvidia/{built}/module", "nvidia.ko.zst")
            machine.link(f"/var/lib/dkms/nvidia/kernel-{kernel.release}-x86_64", built)
        else:
            machine.package(f"linux-modules-nvidia-{driver.flavour}-{kernel.release}", f"{kernel.version}+3")
            machine.listing(f"{folder}/kernel/nvidia-{driver.flavour}", *(f"{name}.ko" for name in MODULES))
    machine.file(
        "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf",
        "# This file was installed by nvidia-kernel-common\n"
        "blacklist nouveau\nblacklist lbm-nouveau\nalias nouveau off\n",
    )
    for library in ("libcuda", "libnvidia-ml"):
        machine.link(f"{LIBRARIES}/{library}.so.1", f"{library}.so.{driver.version}")
        machine.node(f"{LIBRARIES}/{library}.so.{driver.version}", "file", 0o644, size=2 << 20)
    machine.commands[:] = [entry for entry in machine.commands if entry["argv"] != ["ldconfig", "-p"]]
    found = "".join(
        f"\t{name}.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/{name}.so.1\n" for name in ("libnvidia-ml", "libcuda")
    )
    machine.run(("ldconfig", "-p"), "2 libs found in cache `/etc/ld.so.cache'\n" + found)
    machine.node("/usr/bin/nvidia-smi", "file", 0o755, size=1 << 20)


def loaded(machine: Recording, driver: Driver, *places: tuple[Card, Slot], **more: Any) -> None:
    """The module runs and owns these cards."""
    version = driver.loaded or driver.version
    kind = "Open Kernel Module for x86_64" if driver.open else "x86_64 Kernel Module"
    build = "Release Build  (dvs-builder@U22-I3-G08-03-1)  Fri Apr 24 06:42:30 UTC 2026"
    machine.log.append(f"NVRM: loading NVIDIA UNIX {kind}  {version}  {build}")
    for card, slot in places:
        pci(machine, card, slot, "nvidia", **more)
    machine.file(
        "/proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX {kind}  {version}  {build}\n"
        "GCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n",
    )
    machine.file("/sys/module/nvidia/version", version + "\n")
    machine.modules += ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"]
    nodes = [
        "nvidiactl",
        "nvidia-modeset",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        *(f"nvidia{n}" for n in range(len(places))),
    ]
    for name in nodes:
        machine.node(f"/dev/{name}", "char", 0o666)
    machine.listing("/run/systemd/units", "invocation:nvidia-persistenced.service")


def answer(
    machine: Recording, driver: Driver, *gpus: dict[str, Any], problem: str | None = None, detail: str = ""
) -> None:
    """What the bindings' child prints: NVML's document."""
    version = None if problem else driver.version
    machine.documents["nvml"] = {
        "vendor": "nvidia", "problem": problem, "detail": detail, "stub": False,
        "driver": version, "cuda": "13.2" if version else None, "gpus": list(gpus),
    }  # fmt: skip


def gpu(slot: Slot, name: str, memory: int, watts: float, capability: str = "8.6") -> dict[str, Any]:
    """A healthy card at rest; memory in MiB."""
    return {
        "uuid": "GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e413", "slot": slot.address, "name": name,
        "memory_total": memory << 20, "memory_used": 412 << 20, "memory_reserved": 320 << 20, "temperature": 38,
        "power": 21.4, "power_limit": watts, "power_enforced": watts, "power_default": watts, "power_max": watts + 40,
        "energy": 812345.6, "clock_sm": 210, "clock_memory": 405, "utilisation": 0, "throttle_reasons": 1,
        "compute_mode": "default", "mig": None, "mig_instances": None, "persistence": True,
        "compute_capability": capability, "processes": [[2217, "Xorg"], [2405, "gnome-shell"]], "problem": None,
    }  # fmt: skip
