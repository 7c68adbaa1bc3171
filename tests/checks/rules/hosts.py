"""Small hosts for the rules: two healthy machines and one without a card, and `but` to put one fault into them."""

from __future__ import annotations

from typing import Any

import msgspec

from checks.facts.host import (
    Amd,
    AmdGpu,
    Apt,
    AptSource,
    Bridge,
    DeviceNode,
    Disk,
    DkmsBuild,
    Docker,
    Firmware,
    Host,
    Hub,
    Kernel,
    KfdNode,
    Link,
    ModuleFile,
    Nvidia,
    NvmlGpu,
    Os,
    Package,
    PciCard,
    Person,
    PythonFacts,
    Resources,
)

KERNEL = "6.17.0-35-generic"
OLDER = "6.17.0-29-generic"
NEWER = "7.0.0-34-generic"
GB = 10**9
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def but(host: Host, **parts: Any) -> Host:
    """The same host with some facts changed: `but(host, kernel={"log": ()}, cards=())`."""
    changed = {
        name: msgspec.structs.replace(getattr(host, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return msgspec.structs.replace(host, **changed)


def nvidia_card(**facts: Any) -> PciCard:
    """An RTX 3090 in the first slot."""
    defaults: dict[str, Any] = {
        "slot": "0000:01:00.0",
        "vendor": "10de",
        "device": "2204",
        "revision": "a1",
        "class_code": "030000",
        "driver": "nvidia",
        "power_state": "D0",
        "link": Link(speed=2.5, width=16, max_speed=16.0, max_width=16),
        "bridges": (port(),),
        "bar_bytes": (16 << 20, 32 << 30, 0, 32 << 20, 0, 128),
        "aer_correctable": 0,
        "iommu_group_type": "DMA-FQ",
    }
    return PciCard(**(defaults | facts))


def port(**facts: Any) -> Bridge:
    """The CPU's port of the first slot; idle like the card."""
    defaults: dict[str, Any] = {
        "slot": "0000:00:01.0",
        "link": Link(speed=2.5, width=16, max_speed=16.0, max_width=16),
        "aer_correctable": 0,
    }
    return Bridge(**(defaults | facts))


def amd_card(**facts: Any) -> PciCard:
    """An RX 7900 XTX; behind the board's own switch its link is x16 whatever the slot is."""
    defaults: dict[str, Any] = {
        "slot": "0000:03:00.0",
        "vendor": "1002",
        "device": "744c",
        "revision": "c8",
        "class_code": "030000",
        "driver": "amdgpu",
        "power_state": "D0",
        "link": Link(speed=16.0, width=16, max_speed=16.0, max_width=16),
        "bar_bytes": (32 << 30, 0, 256 << 20, 0, 256, 1 << 20),
        "aer_correctable": 0,
        "iommu_group_type": "DMA-FQ",
    }
    return PciCard(**(defaults | facts))


def raphael(**facts: Any) -> PciCard:
    """The graphics inside a Ryzen 7000."""
    return amd_card(**({"slot": "0000:0e:00.0", "device": "164e", "revision": "c1", "link": None} | facts))


def nvml(**facts: Any) -> NvmlGpu:
    """What NVML says of the RTX 3090, idle under a desktop on another card."""
    defaults: dict[str, Any] = {
        "uuid": "GPU-8f1c3a52-7d44-4c0e-9b1a-2f6d1f0c7a11",
        "slot": "0000:01:00.0",
        "name": "NVIDIA GeForce RTX 3090",
        "memory_total": 24576 << 20,
        "memory_used": 320 << 20,
        "temperature": 41,
        "power_limit": 350.0,
        "power_default": 350.0,
        "power_max": 366.0,
        "compute_mode": "default",
        "persistence": True,
        "throttle_reasons": 1,
        "processes": (),
        "compute_capability": "8.6",
    }
    return NvmlGpu(**(defaults | facts))


def amd_gpu(**facts: Any) -> AmdGpu:
    defaults: dict[str, Any] = {
        "slot": "0000:03:00.0",
        "vram_total": 25753026560,
        "vram_visible": 25753026560,
        "vram_used": 28 << 20,
        "power_cap": 303.0,
        "power_cap_default": 303.0,
        "temperature_edge": 44.0,
        "temperature_junction": 51.0,
        "temperature_memory": 58.0,
    }
    return AmdGpu(**(defaults | facts))


def kfd(**facts: Any) -> DeviceNode:
    defaults: dict[str, Any] = {"path": "/dev/kfd", "mode": 0o660, "group": 992, "group_name": "render", "usable": True}
    return DeviceNode(**(defaults | facts))


def render(**facts: Any) -> DeviceNode:
    return kfd(**({"path": "/dev/dri/renderD128", "slot": "0000:03:00.0"} | facts))


def module(name: str, kernel: str = KERNEL, origin: str = "prebuilt") -> ModuleFile:
    folder = {"prebuilt": "kernel/nvidia-595-open", "dkms": "updates/dkms", "in-tree": "kernel/drivers/gpu/drm"}[origin]
    return ModuleFile(name=name, kernel=kernel, path=f"/lib/modules/{kernel}/{folder}/{name}.ko.zst", origin=origin)


def built(name: str, version: str, kernel: str | None = KERNEL, state: str = "installed", log: str = "") -> DkmsBuild:
    return DkmsBuild(module=name, version=version, kernel=kernel, state=state, log_tail=log or None)


def package(name: str, version: str, state: str = "installed") -> Package:
    return Package(name=name, version=version, state=state)


def source(file: str, uri: str, suite: str, owner: str, signed_by: str | None = None) -> AptSource:
    return AptSource(file=f"/etc/apt/sources.list.d/{file}", uri=uri, suite=suite, signed_by=signed_by, owner=owner)


UBUNTU = source(
    *("ubuntu.sources", "http://archive.ubuntu.com/ubuntu/", "noble", "ubuntu"),
    signed_by="/usr/share/keyrings/ubuntu-archive-keyring.gpg",
)
TOOLKIT = source(
    *("nvidia-container-toolkit.list", "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)", "/"),
    owner="nvidia-toolkit",
    signed_by="/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg",
)
NVIDIA_PACKAGES = (
    package("nvidia-driver-595-open", "595.84-0ubuntu0.24.04.1"),
    package("libnvidia-compute-595", "595.84-0ubuntu0.24.04.1"),
    package("nvidia-utils-595", "595.84-0ubuntu0.24.04.1"),
    package("linux-modules-nvidia-595-open-generic-hwe-24.04", "6.17.0-35.35~24.04.1"),
    package("nvidia-container-toolkit", "1.20.0-1"),
)


def no_gpu() -> Host:
    """A mini PC with Intel's integrated graphics, Ubuntu 24.04, Secure Boot off, everything readable."""
    return Host(
        os=Os(
            id="ubuntu",
            version_id="24.04",
            codename="noble",
            pretty="Ubuntu 24.04.4 LTS",
            arch="x86_64",
            virtualisation="none",
            graphical=True,
        ),
        kernel=Kernel(
            release=KERNEL,
            cmdline=("BOOT_IMAGE=/boot/vmlinuz-6.17.0-35-generic", "ro", "quiet", "splash"),
            loaded=("i915", "drm"),
            installed=(OLDER, KERNEL),
            next_boot=KERNEL,
            headers=(KERNEL,),
            modules=(module("nouveau", origin="in-tree"), module("amdgpu", origin="in-tree")),
            dkms=(),
            blacklisted=(),
            module_options=(),
            initrds=((OLDER, 76 << 20), (KERNEL, 78 << 20)),
            version="Linux version 6.17.0-35-generic (buildd@lcy02) #35~24.04.1-Ubuntu SMP PREEMPT_DYNAMIC "
            "Thu Oct 15 12:00:00 UTC 2026",
            userns_restricted=True,
            log=("[    1.000000] pci 0000:00:02.0: [8086:46d1] type 00 class 0x030000",),
            uptime_seconds=86400.0,
        ),
        firmware=Firmware(uefi=True, secure_boot=False, shim_validation_disabled=False, lockdown="none"),
        cards=(PciCard(slot="0000:00:02.0", vendor="8086", device="46d1", driver="i915"),),
        nvidia=Nvidia(
            compat_folders=(), device_nodes=(), runfile=False, cuda_toolkits=(), cdi_specs=(), nvml_problem="absent"
        ),
        amd=Amd(loaded=False, render=(), nodes=(), gpus=(), rocm=(), rocm_on_path=False, amdsmi_problem="absent"),
        apt=Apt(
            packages=(),
            sources=(UBUNTU,),
            pins=(),
            interrupted=False,
            broken=(),
            reboot_required=False,
            reboot_packages=(),
            unattended=True,
            unattended_blocks=(),
            unattended_reboot=False,
            missing_keys=(),
            unfetched=(),
        ),
        docker=Docker(),
        python=PythonFacts(
            path="/usr/bin/python3",
            version="3.12.3",
            compiler="/usr/bin/gcc",
            headers=True,
            venv=True,
            environments=(),
        ),
        resources=Resources(
            cores=16,
            memory_total=33 * GB,
            memory_available=28 * GB,
            swap_total=8 * GB,
            swap_free=8 * GB,
            shm_total=16 * GB,
            disks=(
                Disk(purpose="home", path="/home/alex", free=700 * GB, total=983 * GB, fstype="ext4", noexec=False),
                Disk(purpose="tmp", path="/tmp", free=700 * GB, total=983 * GB, fstype="ext4", noexec=False),
                Disk(purpose="docker", path="/var/lib/docker", free=700 * GB, total=983 * GB, fstype="ext4"),
                Disk(purpose="boot", path="/boot", free=700 * GB, total=983 * GB, fstype="ext4"),
                Disk(purpose="state", path="/home/alex/.local", free=700 * GB, total=983 * GB, fstype="ext4"),
            ),
            oom_killers=("systemd-oomd.service",),
        ),
        person=Person(
            uid=1000,
            user="alex",
            groups=("adm", "alex", "sudo"),
            database_groups=("adm", "alex", "sudo"),
            environ={},
            start_files=(),
        ),
        hub=Hub(
            token=True,
            token_file="/home/alex/.cache/huggingface/token",
            readable_by_others=False,
            cache="/home/alex/.cache/huggingface/hub",
            cached=True,
        ),
        taken_at="2026-11-24T12:00:00Z",
        machine="no-gpu",
    )


def healthy_nvidia() -> Host:
    """RTX 3090, Ubuntu's 595-open with prebuilt modules, Secure Boot on, docker.io with the toolkit."""
    return but(
        no_gpu(),
        machine="healthy-nvidia",
        cards=(nvidia_card(),),
        kernel={
            "loaded": ("nvidia", "nvidia_uvm", "nvidia_drm", "drm"),
            "modules": tuple(module(name) for name in ("nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset")),
            "blacklisted": (("nouveau", "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf"),),
            "log": (
                "[    4.112233] nvidia: module license 'Dual MIT/GPL'",
                "[    4.223344] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  595.84  Release Build",
            ),
        },
        firmware={
            "secure_boot": True,
            "lockdown": "integrity",
            "mok_enrolled": ("CN=Canonical Ltd.",),
            "mok_pending": False,
        },
        nvidia=Nvidia(
            module_version="595.84",
            open_module=True,
            library_version="595.84",
            device_nodes=("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"),
            nvml=(nvml(),),
            nvml_driver="595.84",
            nvml_cuda="13.2",
            runfile=False,
            cuda_toolkits=(),
            libcuda=(f"{LIBRARIES}/libcuda.so.1",),
            libcuda_versions=((f"{LIBRARIES}/libcuda.so.1", "595.84"),),
            compat_folders=(),
            firmware=("595.84",),
            nvswitches=0,
            container_toolkit="1.20.0-1",
            cdi_specs=("/run/cdi/nvidia.yaml",),
            cdi_versions=(("/run/cdi/nvidia.yaml", "595.84"),),
        ),
        apt={"packages": NVIDIA_PACKAGES, "sources": (UBUNTU, TOOLKIT)},
        docker=Docker(
            kind="docker.io",
            path="/usr/bin/docker",
            version="28.2.2",
            answers=True,
            runtimes=("io.containerd.runc.v2", "nvidia", "runc"),
            cdi_dirs=("/etc/cdi", "/run/cdi"),
            rootless=False,
            cgroup_driver="systemd",
            root_dir="/var/lib/docker",
            daemon_json_valid=True,
        ),
    )


def healthy_amd() -> Host:
    """RX 7900 XTX on the kernel's own amdgpu, the person in render and video."""
    groups = ("adm", "alex", "render", "sudo", "video")
    return but(
        no_gpu(),
        machine="healthy-amd",
        cards=(amd_card(),),
        kernel={
            "loaded": ("amdgpu", "drm"),
            "log": (
                "[    3.000000] [drm] amdgpu kernel modesetting enabled.",
                "[    4.000000] amdgpu 0000:03:00.0: amdgpu: SMU is initialized successfully!",
                "[    4.100000] kfd kfd: amdgpu: added device 1002:744c",
            ),
        },
        amd=Amd(
            loaded=True,
            kfd=kfd(),
            render=(render(),),
            nodes=(KfdNode(index=1, gfx="gfx1100", slot="0000:03:00.0"),),
            gpus=(amd_gpu(),),
            rocm=(),
            rocm_on_path=False,
            amdsmi_problem="absent",
        ),
        person={"groups": groups, "database_groups": groups},
    )


def two_vendors() -> Host:
    """Both healthy machines in one."""
    one, other = healthy_nvidia(), healthy_amd()
    return but(
        one,
        machine="two-vendors",
        cards=(*(one.cards or ()), *(other.cards or ())),
        kernel={
            "loaded": (*(one.kernel.loaded or ()), *(other.kernel.loaded or ())),
            "modules": (*(one.kernel.modules or ()), *(other.kernel.modules or ())),
        },
        amd=other.amd,
        person={"groups": other.person.groups, "database_groups": other.person.database_groups},
    )
