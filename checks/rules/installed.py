"""What is installed according to dpkg and the module folders; shared by several rules."""

from __future__ import annotations

from checks.facts.host import Host, ModuleFile, Package

# names of packages with NVIDIA's kernel driver, from Ubuntu's archive and from NVIDIA's repository
_DRIVER = (
    "nvidia-driver",
    "nvidia-headless",
    "nvidia-dkms",
    "nvidia-kernel-source",
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


def nvidia_packages(host: Host) -> tuple[Package, ...]:
    return tuple(row for row in packages(host, *_DRIVER) if not row.name.startswith(_NOT_DRIVER))


def nvidia_driver(host: Host) -> bool | None:
    """Is NVIDIA's kernel driver on the machine, loaded or not? None: dpkg and the module folders cannot be read."""
    if host.nvidia.module_version or nvidia_packages(host) or modules(host, "nvidia"):
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
