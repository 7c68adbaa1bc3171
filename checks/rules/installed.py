"""What is installed according to dpkg and the module folders; shared by several rules."""

from __future__ import annotations

import re

from checks.facts.frozen import Frozen
from checks.facts.host import Host, ModuleFile, Package

# names of packages with NVIDIA's kernel driver, from Ubuntu's archive and from NVIDIA's repository
_DRIVER = (
    "nvidia-driver",
    "nvidia-headless",
    "nvidia-dkms",
    "nvidia-kernel-source",
    "nvidia-kernel-dkms",
    "nvidia-open",
    "cuda-drivers",
    "linux-modules-nvidia-",
    "linux-objects-nvidia-",
)
_NOT_DRIVER = ("nvidia-driver-pinning", "nvidia-driver-assistant", "nvidia-driver-local-repo")
# states in which the files of a package are on the disk
_ON_DISK = ("installed", "half-configured", "unpacked", "triggers-pending", "triggers-awaited")


def packages(host: Host, *starts: str) -> tuple[Package, ...]:
    """Packages on the disk whose names start with one of these."""
    return tuple(row for row in host.apt.packages or () if row.state in _ON_DISK and row.name.startswith(starts))


def from_amd(package: Package) -> bool:
    """Whether a ROCm package is AMD's: its version ends with AMD's release and build (1.0.0.70001-42~24.04)."""
    return re.search(r"\.[0-9]{5,6}-[0-9]+", package.version) is not None


def nvidia_packages(host: Host) -> tuple[Package, ...]:
    return tuple(row for row in packages(host, *_DRIVER) if not row.name.startswith(_NOT_DRIVER))


def nvidia_driver(host: Host) -> bool | None:
    """Is NVIDIA's kernel driver on the machine (in WSL: in Windows), loaded or not? None: dpkg and the module folders
    cannot be read."""
    if host.nvidia.module_version or nvidia_packages(host) or modules(host, "nvidia"):
        return True
    if host.wsl is not None and host.nvidia.nvml:
        return True
    return None if host.apt.packages is None and host.kernel.modules is None else False


def modules(host: Host, name: str, kernel: str | None = None) -> tuple[ModuleFile, ...]:
    """Files of this kernel module, for one kernel or for all."""
    return tuple(m for m in host.kernel.modules or () if m.name == name and kernel in (None, m.kernel))


def uses_dkms(host: Host) -> bool:
    """DKMS builds a GPU driver module on this machine."""
    built = any(build.module.startswith(("nvidia", "amdgpu")) for build in host.kernel.dkms or ())
    return built or bool(packages(host, "nvidia-dkms", "amdgpu-dkms", "nvidia-kernel-source"))


def nvidia_version(host: Host) -> tuple[str | None, str]:
    """The driver's version and who says so: the loaded module first, then the libraries on the disk."""
    for version, source in (
        (host.nvidia.module_version, "/sys/module/nvidia/version"),
        (host.nvidia.nvml_driver, "NVML driver version"),
        (host.nvidia.library_version, "libnvidia-ml.so.1"),
    ):
        if version:
            return version, source
    return None, ""


class NextModule(Frozen, frozen=True):
    """NVIDIA's module for the kernel of the next boot: its version, of a prebuilt one only the branch; or neither."""

    kernel: str
    version: str | None = None
    branch: str | None = None

    def fits(self, library: str) -> bool:
        """Whether it has the version of these libraries, as far as that is known."""
        return library == self.version if self.version else library.partition(".")[0] == self.branch


def next_module(host: Host) -> NextModule | None:
    """The module that the next boot loads; None where it, or its version, is not known."""
    kernel = host.kernel.next_boot or host.kernel.release
    if kernel is None or host.kernel.modules is None:
        return None
    files = modules(host, "nvidia", kernel)
    if not files:
        return NextModule(kernel=kernel)
    # depmod prefers updates/ to the kernel's own folders (depmod.d(5), Ubuntu's `search updates ubuntu built-in`)
    file = next((file for file in files if file.origin in ("dkms", "other")), files[0])
    if file.origin == "dkms":
        builds = [row for row in host.kernel.dkms or () if row.module.startswith("nvidia") and row.kernel == kernel]
        version = next((row.version for row in builds if row.state == "installed"), None)
        return NextModule(kernel=kernel, version=version) if version else None
    branch = re.search(r"/nvidia-([0-9]+)(?:srv)?(?:-open)?/", file.path)
    return NextModule(kernel=kernel, branch=branch[1]) if branch else None


# Ubuntu writes 580.95.05-0ubuntu0.24.04.2, the PPA …~gpu24.04.1; NVIDIA 580.95.05-1ubuntu1 (before 575: -0ubuntu1), in
# Debian -1; Debian 535.183.01-1~deb12u1 and for backports -1~bpo12+1
_VERSIONS = (
    ("the graphics-drivers PPA", r"~gpu"),
    ("Debian's backports", r"~bpo\d"),
    ("Debian", r"~deb\d+u\d|-\d+\+deb\d+u\d"),
    # Pop!_OS builds the same packages from its own archive, which wins over Ubuntu's
    ("Ubuntu", r"-\d+ubuntu\d+\.\d\d\.\d\d|-\d+pop\d"),
    ("NVIDIA", r"-[01]ubuntu1$|-1$"),
)
# NVIDIA's packages for Ubuntu have no branch in the name since 590; all of Ubuntu's have one
_WITHOUT_BRANCH = (
    r"(?:libnvidia-(?:compute|cfg1|gl|decode|encode|extra|fbc1|common)|nvidia-(?:driver|dkms)(?:-open)?)(?::\w+)?"
)


def origin(package: Package, system: str | None) -> str | None:
    """The archive that an NVIDIA driver package comes from, by its version and name; None where neither shows it."""
    if package.name.startswith("linux-"):
        return "Ubuntu"
    found = next((name for name, pattern in _VERSIONS if re.search(pattern, package.version)), None)
    if system == "debian":
        # Debian's own packages end with a plain revision as well
        return found if found not in (None, "NVIDIA") else None
    if found in (None, "Ubuntu") and re.fullmatch(_WITHOUT_BRANCH, package.name):
        return "NVIDIA"
    return found


def nvidia_origins(host: Host) -> dict[str, list[Package]]:
    """The installed packages of NVIDIA's driver and libraries, by the archive that they come from."""
    found: dict[str, list[Package]] = {}
    libraries = packages(host, "libnvidia-compute", "libnvidia-gl", "libnvidia-cfg1", "nvidia-utils")
    half = tuple(
        row for row in host.apt.packages or () if row.state == "half-installed" and row.name.startswith("libnvidia-")
    )
    for package in dict.fromkeys((*nvidia_packages(host), *libraries, *half)):
        if (name := origin(package, host.os.id)) is not None:
            found.setdefault(name, []).append(package)
    return found
