"""NVIDIA's driver by the routes that it takes onto a machine, in its states, and NVML's answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.machines.cards import A100, COMPUTE, H100, Card, Slot
from tests.machines.devices import pci
from tests.machines.hardware import Kernel
from tests.machines.synthetic import Recording

MODULES = ("nvidia", "nvidia-drm", "nvidia-modeset", "nvidia-peermem", "nvidia-uvm")
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
MOK = "/var/lib/shim-signed/mok/MOK.der"
CUDA_REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/"
# branch → the CUDA that it can run (docs.nvidia.com/deploy/cuda-compatibility, release notes of the toolkit)
CUDA = {"535": "12.2", "550": "12.4", "570": "12.8", "580": "13.0", "595": "13.2", "610": "13.3"}


class Driver(NamedTuple):
    """`version` is what the packages hold; `loaded` what the running module says (None: no module)."""

    version: str
    open: bool = True
    dkms: bool = False
    loaded: str | None = None
    server: bool = False

    @property
    def branch(self) -> str:
        return self.version.partition(".")[0]

    @property
    def line(self) -> str:
        """What Ubuntu's archive calls it: 580 or 580-server."""
        return f"{self.branch}-server" if self.server else self.branch

    @property
    def flavour(self) -> str:
        return f"{self.line}-open" if self.open else self.line

    @property
    def folder(self) -> str:
        """Where the prebuilt modules lie under /lib/modules/RELEASE/kernel."""
        return f"nvidia-{self.branch}{'srv' if self.server else ''}{'-open' if self.open else ''}"


def archive(machine: Recording, driver: Driver, kernels: tuple[Kernel, ...], *, headless: bool = False) -> None:
    """Ubuntu's archive: prebuilt modules that Canonical signed for `kernels`, or DKMS, which builds for them."""
    version, line = f"{driver.version}-0ubuntu0.24.04.1", driver.line
    names = [f"libnvidia-compute-{line}", f"nvidia-utils-{line}", f"nvidia-compute-utils-{line}"]
    names += [f"nvidia-kernel-common-{line}", f"nvidia-firmware-{line}-{driver.version}"]
    dkms = "" if driver.dkms else "-no-dkms"
    names += (
        [f"nvidia-headless{dkms}-{driver.flavour}"]
        if headless
        else [f"libnvidia-gl-{line}", f"nvidia-driver-{driver.flavour}"]
    )
    for name in names:
        machine.package(name, version)
    if driver.dkms:
        machine.package(f"nvidia-dkms-{driver.flavour}", version)
        machine.package(f"nvidia-kernel-source-{driver.flavour}", version)
        built_here(machine, "nvidia", driver.version, MODULES, kernels)
    else:
        machine.package(f"linux-modules-nvidia-{driver.flavour}-{kernels[-1].meta}", kernels[-1].version)
        for kernel in kernels:
            machine.package(f"linux-modules-nvidia-{driver.flavour}-{kernel.release}", f"{kernel.version}+3")
            machine.listing(
                f"/lib/modules/{kernel.release}/kernel/{driver.folder}", *(f"{name}.ko" for name in MODULES)
            )
    libraries(machine, driver)


def repository(machine: Recording, driver: Driver, kernels: tuple[Kernel, ...], *, pinned: bool = False) -> None:
    """NVIDIA's CUDA repository, which builds by DKMS; its package names lost the branch with 590."""
    version, branch = f"{driver.version}-1ubuntu1", "" if int(driver.branch) >= 590 else f"-{driver.branch}"
    kind = "-open" if driver.open else ""
    for name in (
        f"libnvidia-compute{branch}",
        f"libnvidia-gl{branch}",
        f"nvidia-dkms{branch}{kind}",
        f"nvidia-kernel-common{branch}",
        f"nvidia-firmware{branch}",
        f"nvidia-driver{branch}{kind}",
        f"nvidia-open{branch}" if driver.open else f"cuda-drivers{branch}",
        "nvidia-persistenced",
    ):
        machine.package(name, version)
    if pinned:
        machine.package(f"nvidia-driver-pinning-{driver.branch}", f"{driver.branch}-2ubuntu1", arch="all")
    keyring(machine)
    built_here(machine, "nvidia", driver.version, MODULES, kernels)
    libraries(machine, driver)


def keyring(machine: Recording) -> None:
    """What NVIDIA's cuda-keyring package leaves: the repository, its key and its pin."""
    key = "/usr/share/keyrings/cuda-archive-keyring.gpg"
    machine.package("cuda-keyring", "1.1-1", arch="all")
    machine.node(key, "file", 0o644, size=2211)
    machine.file("/etc/apt/sources.list.d/cuda-ubuntu2404-x86_64.list", f"deb [signed-by={key}] {CUDA_REPOSITORY} /\n")
    machine.file(
        "/etc/apt/preferences.d/cuda-repository-pin-600",
        "Package: nsight-compute\nPin: origin *ubuntu.com*\nPin-Priority: -1\n\n"
        "Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n",
    )


def runfile(machine: Recording, driver: Driver, kernels: tuple[Kernel, ...]) -> None:
    """NVIDIA's .run installer: no packages, modules among the kernel's own."""
    machine.node("/usr/bin/nvidia-uninstall", "file", 0o755, size=51 << 10)
    machine.node("/usr/bin/nvidia-installer", "file", 0o755, size=51 << 10)
    for kernel in kernels:
        folder = f"/lib/modules/{kernel.release}/kernel/drivers/video"
        machine.listing(folder, *(f"{name}.ko" for name in MODULES))
    libraries(machine, driver)
    machine.file(
        "/usr/lib/modprobe.d/nvidia-installer-disable-nouveau.conf",
        "# generated by nvidia-installer\nblacklist nouveau\noptions nouveau modeset=0\n",
    )


def built_here(
    machine: Recording, name: str, version: str, modules: tuple[str, ...], kernels: tuple[Kernel, ...]
) -> None:
    """DKMS has built and installed the module for `kernels`; its recommended compiler comes with it."""
    machine.package("dkms", "3.0.11-1ubuntu13", arch="all")
    machine.package("gcc", "4:13.2.0-7ubuntu1")
    machine.program("/usr/bin/gcc", "gcc-13", 1 << 20)
    machine.listing("/usr/src", f"{name}-{version}")
    for kernel in kernels:
        built = f"{version}/{kernel.release}/x86_64"
        machine.listing(f"/lib/modules/{kernel.release}/updates/dkms", *(f"{module}.ko.zst" for module in modules))
        machine.listing(f"/var/lib/dkms/{name}/{built}/module", f"{name}.ko.zst")
        machine.link(f"/var/lib/dkms/{name}/kernel-{kernel.release}-x86_64", built)


def key(machine: Recording, enrolled: bool) -> None:
    """The machine's own key, with which DKMS signs."""
    machine.node(MOK, "file", 0o644, size=977)
    machine.node("/var/lib/shim-signed/mok/MOK.priv", "file", 0o600, size=1704)
    machine.run(("mokutil", "--test-key", MOK), f"{MOK} is {'already' if enrolled else 'not'} enrolled\n")


def libraries(machine: Recording, driver: Driver) -> None:
    """What user space and firmware the driver brings, by whatever route."""
    machine.listing(f"/lib/firmware/nvidia/{driver.version}", "gsp_ga10x.bin", "gsp_tu10x.bin")
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
    banner = module_version(machine, driver)
    machine.log.append("NVRM: loading " + banner)
    if driver.dkms:
        machine.log.append("nvidia: loading out-of-tree module taints kernel.")
    for card, slot in places:
        pci(machine, card, slot, "nvidia", **more)
    machine.modules += ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"]
    nodes(machine, len(places))
    machine.listing("/run/systemd/units", "invocation:nvidia-persistenced.service")


def module_version(machine: Recording, driver: Driver) -> str:
    """What /proc and /sys show of the loaded module, which a container sees as well."""
    version = driver.loaded or driver.version
    kind = "Open Kernel Module for x86_64" if driver.open else "x86_64 Kernel Module"
    banner = (
        f"NVIDIA UNIX {kind}  {version}  Release Build  (dvs-builder@U22-I3-G08-03-1)  Fri Apr 24 06:42:30 UTC 2026"
    )
    machine.file(
        "/proc/driver/nvidia/version",
        f"NVRM version: {banner}\nGCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n",
    )
    machine.file("/sys/module/nvidia/version", version + "\n")
    return banner


def nodes(machine: Recording, count: int) -> None:
    for name in ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools"):
        machine.node(f"/dev/{name}", "char", 0o666)
    for number in range(count):
        machine.node(f"/dev/nvidia{number}", "char", 0o666)


def answer(
    machine: Recording, driver: Driver, *gpus: dict[str, Any], problem: str | None = None, detail: str = ""
) -> None:
    """What the bindings' child prints: NVML's document."""
    version = None if problem else driver.version
    machine.documents["nvml"] = {
        "vendor": "nvidia", "problem": problem, "detail": detail, "stub": False,
        "driver": version, "cuda": CUDA[driver.branch] if version else None, "gpus": list(gpus),
    }  # fmt: skip


def gpu(card: Card, slot: Slot, *, desktop: bool = True) -> dict[str, Any]:
    """A healthy card at rest. Memory in bytes, power in watts."""
    users = [[2217, "Xorg"], [2405, "gnome-shell"]] if desktop else []
    watts = float(card.watts)
    mig = False if card in (A100, H100) else None
    return {
        "uuid": f"GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e4{slot.address[5:7]}", "slot": slot.address, "name": card.name,
        "memory_total": card.vram << 20, "memory_used": (412 if desktop else 4) << 20, "memory_reserved": 320 << 20,
        "temperature": 38, "power": 21.4, "power_limit": watts, "power_enforced": watts, "power_default": watts,
        "power_max": watts + 40, "energy": 812345.6, "clock_sm": 210, "clock_memory": 405, "utilisation": 0,
        "throttle_reasons": 1, "compute_mode": "default", "mig": mig, "mig_instances": None, "persistence": True,
        "compute_capability": card.target, "processes": users, "problem": None,
        # only cards with ECC count its errors, only those from Ampere on replace rows
        **({"ecc_uncorrected": 0} if card.class_code == COMPUTE else {}),
        **({"rows_remapped": 0, "rows_pending": False, "rows_failed": False} if card in (A100, H100) else {}),
    }  # fmt: skip


def at_work(machine: Recording, driver: Driver, *places: tuple[Card, Slot], desktop: bool = True, **more: Any) -> None:
    """Loaded, on these cards, and answering."""
    outputs = {} if desktop else {"connected": ()}
    loaded(machine, driver, *places, **outputs, **more)
    answer(machine, driver, *(gpu(card, slot, desktop=desktop) for card, slot in places))
