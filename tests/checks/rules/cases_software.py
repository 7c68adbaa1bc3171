"""ROCm, variables, containers, Python, apt, disk and memory, the system itself."""

from __future__ import annotations

from checks.facts.host import AptPreference, Disk, Docker, Host, RocmInstall, Unread
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.cases_card import UNREADABLE_LOG, said
from tests.checks.rules.hosts import (
    GB,
    NVIDIA_PACKAGES,
    UBUNTU,
    amd_card,
    but,
    healthy_amd,
    healthy_nvidia,
    kfd,
    no_gpu,
    nvidia_card,
    nvml,
    package,
    render,
    source,
)

N, A, NONE = healthy_nvidia(), healthy_amd(), no_gpu()

OUTSIDER = ("adm", "alex", "sudo")
MEMBER = ("adm", "alex", "render", "sudo", "video")
# the person is in no group of the card's
DENIED = but(
    A,
    amd={"kfd": kfd(usable=False), "render": (render(usable=False),)},
    person={"groups": OUTSIDER, "database_groups": OUTSIDER},
)
# usermod has run, the session is older
OLD_SESSION = but(DENIED, person={"database_groups": MEMBER})
ROCM_72, ROCM_100 = (
    RocmInstall(path="/opt/rocm-7.2.4", version="7.2.4"),
    RocmInstall(path="/opt/rocm/core-10.0", version="10.0.0"),
)
TWO_RADEONS = but(A, cards=(amd_card(), amd_card(slot="0000:08:00.0")))
CUDA_REPO = source(
    *(
        "cuda-ubuntu2404-x86_64.list",
        "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/",
        "/",
    ),
    owner="nvidia",
    signed_by="/usr/share/keyrings/cuda-archive-keyring.gpg",
)


def environ(host: Host, **variables: str) -> Host:
    return but(host, person={"environ": variables})


def disk(host: Host, purpose: str, **facts: object) -> Host:
    """The host whose disk for this purpose differs."""
    rows = tuple(
        Disk(**({name: getattr(row, name) for name in row.__struct_fields__} | facts))
        if row.purpose == purpose
        else row
        for row in host.resources.disks or ()
    )
    return but(host, resources={"disks": rows})


def small(host: Host, free: int) -> Host:
    """All on one disk with this much free."""
    rows = tuple(
        Disk(purpose=row.purpose, path=row.path, free=free, total=100 * GB, fstype="ext4")
        for row in host.resources.disks or ()
    )
    return but(host, resources={"disks": rows})


FAULTS = (
    Fault(
        "os.supported",
        but(N, os={"id": "debian", "version_id": "12", "pretty": "Debian GNU/Linux 12"}),
        PASS,
        "supports only",
    ),
    Fault("os.supported", but(N, os={"arch": "aarch64"}), PASS, "supports only"),
    Fault("os.virtual", but(NONE, os={"virtualisation": "kvm"}), PASS, "virtual machine without a card"),
    Fault("os.virtual", but(NONE, os={"virtualisation": "docker"}), PASS, "container without a card"),
    Fault("os.virtual", but(NONE, os={"virtualisation": "wsl"}, cards=()), PASS, "Windows controls the card"),
    Fault(
        "os.virtual",
        but(NONE, os={"virtualisation": "wsl"}, cards=(), apt={"packages": NVIDIA_PACKAGES}),
        FAIL,
        "driver is installed inside WSL",
    ),
    Fault("os.vgpu", but(N, nvidia={"nvml": (nvml(name="GRID A100-10C"),)}), PASS, "slice"),
    Fault("rocm.kfd-access", DENIED, FAIL, "alex lacks permission for /dev/kfd"),
    Fault("rocm.kfd-access", but(A, amd={"kfd": None}), FAIL, "/dev/kfd is missing"),
    Fault("rocm.render-access", DENIED, FAIL, "lacks permission for /dev/dri/renderD128"),
    Fault("rocm.render-group", OLD_SESSION, FAIL, "this session is older"),
    Fault("rocm.open-to-all", but(A, amd={"kfd": kfd(mode=0o666)}), PASS, "Every local account"),
    Fault(
        "rocm.several-installs", but(A, amd={"rocm": (ROCM_72, ROCM_100), "rocm_on_path": True}), WARN, "7.2.4, 10.0.0"
    ),
    Fault(
        "rocm.ubuntu-packages",
        but(
            A,
            amd={"rocm": (ROCM_72,), "rocm_on_path": True},
            apt={"packages": (package("libamdhip64-5", "5.7.1-3"), package("hip-runtime-amd", "7.2.4.70204-93~24.04"))},
        ),
        WARN,
        "libamdhip64-5",
    ),
    Fault(
        "rocm.ubuntu-packages",
        but(
            A,
            apt={
                "packages": (package("rocminfo", "5.7.1-3build1"),),
                "sources": (source("rocm.list", "https://repo.radeon.com/rocm/apt/7.0.1", "noble", "amd-rocm"),),
            },
        ),
        WARN,
        "rocminfo 5.7.1-3build1",
    ),
    Fault(
        "rocm.ubuntu-packages",
        but(
            A,
            amd={"rocm": (ROCM_72,), "rocm_on_path": True},
            apt={"packages": (package("hipcc", "5.7.1-3"), package("rocm-cmake", "6.0.0-1"))},
        ),
        WARN,
        "hipcc 5.7.1-3, rocm-cmake 6.0.0-1",
    ),
    # in the groups, and the node is another's: usermod would change nothing
    Fault(
        "rocm.kfd-access",
        but(A, amd={"kfd": kfd(usable=False, group=0, group_name="root", mode=0o600)}),
        FAIL,
        "alex lacks permission for /dev/kfd (not in group root)",
    ),
    Fault(
        "python.venv",
        but(N, python={"venv": False}, apt={"packages": (package("python3-venv", "3.12.3-0ubuntu2"),)}),
        WARN,
        "although python3-venv is installed",
    ),
    Fault("rocm.path", but(A, amd={"rocm": (ROCM_72,)}), WARN, "not on PATH"),
    Fault("rocm.override", environ(A, HSA_OVERRIDE_GFX_VERSION="10.3.0"), WARN, "the card is gfx1100"),
    Fault(
        "rocm.override",
        environ(A, HSA_OVERRIDE_GFX_VERSION="11.0.0"),
        PASS,
        "is not needed: that is the architecture of the card itself",
    ),
    Fault("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES=""), FAIL, "hides every card"),
    Fault("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="-1"), FAIL, "hides every card"),
    Fault("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="3"), FAIL, "hides every card"),
    Fault("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="0,1"), WARN, "hides some cards"),
    Fault("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="GPU-00000000-dead"), FAIL, "hides every card"),
    Fault("runtime.visible-devices", environ(A, HIP_VISIBLE_DEVICES="1"), FAIL, "HIP_VISIBLE_DEVICES"),
    # the second of two cards for ROCm's runtime is the first one for HIP
    Fault(
        "runtime.visible-devices",
        environ(TWO_RADEONS, ROCR_VISIBLE_DEVICES="1", HIP_VISIBLE_DEVICES="1"),
        FAIL,
        "HIP_VISIBLE_DEVICES='1' hides every card",
    ),
    Fault("runtime.visible-devices", environ(A, ROCR_VISIBLE_DEVICES=""), FAIL, "ROCR_VISIBLE_DEVICES"),
    Fault("runtime.ld-library-path", environ(N, LD_LIBRARY_PATH="/usr/local/cuda-13.0/lib64/stubs"), FAIL, "stubs"),
    Fault("runtime.ld-library-path", environ(N, LD_LIBRARY_PATH="/usr/local/cuda-13.0/compat/"), FAIL, "cuda-compat"),
    Fault(
        "runtime.ld-library-path",
        environ(N, LD_LIBRARY_PATH="/usr/local/cuda/lib64:/opt/x"),
        PASS,
        "/usr/local/cuda/lib64",
    ),
    Fault("runtime.cuda-toolkit", but(N, nvidia={"cuda_toolkits": ("13.0",), "nvml_cuda": "12.8"}), PASS, "newer than"),
    Fault("container.engine", but(N, docker={"answers": False, "problem": "not-running"}), WARN, "does not respond"),
    Fault(
        "container.engine", but(N, docker={"answers": False, "problem": "permission-denied"}), PASS, "refuses this user"
    ),
    Fault("container.snap", but(N, docker={"kind": "snap", "path": "/snap/bin/docker"}), WARN, "snap"),
    Fault("container.desktop", but(A, docker=Docker(kind="desktop", answers=True)), WARN, "Docker Desktop"),
    Fault(
        "container.daemon-json",
        but(N, docker={"daemon_json_valid": False, "daemon_json_problem": "not JSON: trailing comma (byte 71)"}),
        FAIL,
        "not valid JSON",
    ),
    Fault(
        "container.toolkit",
        but(N, nvidia={"container_toolkit": None}, apt={"packages": NVIDIA_PACKAGES[:-1]}),
        WARN,
        "toolkit is not installed",
    ),
    Fault(
        "container.cdi",
        but(N, nvidia={"cdi_specs": ("/etc/cdi/nvidia.yaml", "/run/cdi/nvidia.yaml")}),
        WARN,
        "two CDI specifications",
    ),
    Fault(
        "container.cdi",
        but(N, nvidia={"cdi_versions": (("/run/cdi/nvidia.yaml", "595.71.05"),)}),
        WARN,
        "for driver 595.71.05",
    ),
    Fault("container.cgroup-driver", but(N, nvidia={"cdi_specs": (), "cdi_versions": ()}), PASS, "daemon-reload"),
    Fault("python.compiler", but(N, python={"compiler": None}), FAIL, "No C compiler"),
    Fault("python.compiler", but(N, python={"compiler": None, "missing_compiler": "gcc-11"}), FAIL, "CC names gcc-11"),
    Fault("python.headers", but(A, python={"headers": False}), FAIL, "Python.h is missing"),
    Fault("python.version", but(N, python={"version": "3.15.1"}), WARN, "no wheels for Python 3.15"),
    Fault("python.venv", but(NONE, python={"venv": False}), WARN, "python3-venv is not installed"),
    Fault("apt.dpkg", but(N, apt={"interrupted": True}), FAIL, "interrupted"),
    Fault("apt.dpkg", but(N, apt={"broken": ("nvidia-dkms-610-open",)}), FAIL, "nvidia-dkms-610-open"),
    Fault("apt.lock", but(N, apt={"lock_holder": "unattended-upgr (1234)"}), WARN, "unattended-upgr (1234)"),
    Fault(
        "apt.mixed-sources",
        but(N, apt={"packages": (*NVIDIA_PACKAGES, package("nvidia-dkms-open", "610.43.02-1ubuntu1"))}),
        WARN,
        "come from NVIDIA and Ubuntu",
    ),
    Fault(
        "apt.mixed-sources",
        but(N, apt={"packages": (*NVIDIA_PACKAGES, package("libnvidia-gl-595", "595.84-0ubuntu0~gpu24.04.1"))}),
        WARN,
        "PPA",
    ),
    Fault("apt.repo-wins", but(N, apt={"sources": (UBUNTU, CUDA_REPO)}), WARN, "replaces the driver"),
    Fault(
        "apt.signed-by-conflict",
        but(
            N,
            apt={
                "sources": (
                    source(
                        "libnvidia-container.list",
                        "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)",
                        "/",
                        "x",
                    ),
                    *(N.apt.sources or ()),
                )
            },
        ),
        FAIL,
        "different keys",
    ),
    Fault(
        "apt.amd-sources",
        but(
            A,
            apt={
                "sources": (
                    source("rocm.list", "https://repo.radeon.com/rocm/apt/7.2.4", "noble", "amd-rocm"),
                    source(
                        "amdrocm.sources",
                        "https://stable.repo.amd.com/rocm/core/packages/ubuntu2404/",
                        "stable",
                        "amd-rocm",
                    ),
                )
            },
        ),
        WARN,
        "several releases",
    ),
    Fault("apt.unattended", but(N, apt={"unattended_blocks": ("nvidia-",)}), WARN, "block a part of the driver"),
    Fault("apt.unattended", but(N, apt={"unattended_blocks": ("linux-", "nvidia-.*")}), WARN, "still upgrade driver"),
    Fault("resources.disk", small(N, 20 * GB), FAIL, "Only 20.0 GB are free"),
    Fault("resources.disk", small(N, 45 * GB), WARN, "may not be enough"),
    Fault("resources.disk", small(NONE, 2 * GB), FAIL, "Only 2.0 GB are free"),
    Fault("resources.disk", disk(N, "home", inodes_free=1200), WARN, "1200 inodes"),
    Fault("resources.disk", disk(N, "docker", free=12 * GB, total=40 * GB), WARN, "/var/lib/docker"),
    Fault("resources.memory", but(N, resources={"memory_total": 8 * GB, "swap_total": 2 * GB}), WARN, "9.3 GiB"),
    Fault("resources.memory", but(N, resources={"memory_total": 4 * GB, "swap_total": 0}), FAIL, "3.7 GiB"),
    Fault("resources.memory", but(N, resources={"cgroup_memory_max": 6 * GB}), FAIL, "5.6 GiB"),
    Fault(
        "resources.oom-killer",
        but(N, resources={"memory_total": 16 * GB, "oom_killers": ("earlyoom.service",)}),
        WARN,
        "earlyoom is running",
    ),
    Fault(
        "resources.oom-kills",
        said(N, "[ 812.1] Out of memory: Killed process 4242 (python3) total-vm:38412340kB, anon-rss:14912340kB"),
        WARN,
        "killed python3",
    ),
    Fault(
        "resources.oom-kills",
        said(NONE, "[ 812.1] Memory cgroup out of memory: Killed process 77 (axolotl) total-vm:38412340kB"),
        WARN,
        "killed axolotl",
    ),
    Fault(
        "resources.shm",
        but(N, os={"virtualisation": "docker"}, resources={"shm_total": 64 << 20}),
        WARN,
        "only 64 MiB",
    ),
    Fault("resources.noexec", disk(N, "tmp", noexec=True), WARN, "/tmp is mounted noexec"),
    Fault("resources.file-system", disk(N, "state", fstype="ntfs3"), WARN, "ntfs3"),
    Fault("resources.boot-space", disk(N, "boot", free=GB // 10, total=GB), WARN, "100 MB are free in /boot"),
)

LOOK_ALIKES = (
    LookAlike("os.supported", N, "Ubuntu 24.04"),
    LookAlike("os.virtual", but(N, os={"virtualisation": "kvm"}), "the card is passed through"),
    LookAlike("os.vgpu", N, "a whole card"),
    LookAlike("rocm.kfd-access", but(A, person={"groups": OUTSIDER}), "access works, whatever the groups say"),
    LookAlike("rocm.render-access", but(A, person={"groups": OUTSIDER}), "uaccess lets the desktop's user in"),
    LookAlike("rocm.render-group", DENIED, "the user has not the group at all: kfd-access says what to do"),
    LookAlike("rocm.open-to-all", A, "0660"),
    LookAlike("rocm.several-installs", but(A, amd={"rocm": (ROCM_72,)}), "one"),
    LookAlike(
        "rocm.several-installs",
        but(A, amd={"rocm": (ROCM_72, RocmInstall(path="/opt/rocm", version="7.2.4"))}),
        "one, under two names",
    ),
    LookAlike(
        "rocm.ubuntu-packages",
        but(A, apt={"packages": (package("libamdhip64-5", "5.7.1-3"),)}),
        "only Ubuntu's: Blender needs it, and AMD's ROCm is not installed",
    ),
    LookAlike("rocm.path", A, "no ROCm on the host"),
    LookAlike("rocm.override", environ(A, HSA_ENABLE_SDMA="0"), "another HSA variable"),
    LookAlike("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="0"), "a card that exists"),
    LookAlike("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="0,"), "a comma too many"),
    LookAlike(
        "runtime.visible-devices",
        environ(TWO_RADEONS, ROCR_VISIBLE_DEVICES="1", HIP_VISIBLE_DEVICES="0"),
        "the same one",
    ),
    LookAlike("runtime.visible-devices", environ(N, CUDA_VISIBLE_DEVICES="GPU-8f1c3a52"), "a shortened UUID"),
    LookAlike("runtime.visible-devices", environ(N, ROCR_VISIBLE_DEVICES=""), "AMD's variable, NVIDIA's card"),
    LookAlike("runtime.ld-library-path", environ(N, LD_LIBRARY_PATH="/opt/stubby/lib"), "no folder called stubs"),
    LookAlike(
        "runtime.ld-library-path",
        but(environ(N, LD_LIBRARY_PATH="/usr/local/compat"), cards=(nvidia_card(device="20b5"),)),
        "an A100 may use forward compatibility",
    ),
    LookAlike("runtime.cuda-toolkit", but(N, nvidia={"cuda_toolkits": ("13.4",)}), "a newer minor version runs"),
    LookAlike("container.engine", A, "no engine at all"),
    LookAlike(
        "container.engine",
        but(NONE, docker=Docker(kind="docker.io", answers=False, problem="not-running")),
        "without a card no image is used",
    ),
    LookAlike("container.snap", N, "docker.io"),
    LookAlike("container.desktop", N, "the system's engine"),
    LookAlike("container.daemon-json", but(N, docker={"daemon_json_valid": None}), "there is no such file"),
    LookAlike("container.toolkit", but(A, docker=Docker(kind="docker.io", answers=True)), "AMD needs no toolkit"),
    LookAlike("container.cdi", but(N, nvidia={"cdi_specs": ("/etc/cdi/nvidia.yaml",)}), "one, by hand, of this driver"),
    LookAlike("container.cgroup-driver", N, "CDI describes the card"),
    LookAlike("python.compiler", but(NONE, python={"compiler": None}), "without a card nothing is compiled"),
    LookAlike("python.headers", but(NONE, python={"headers": False}), "without a card nothing is compiled"),
    LookAlike("python.version", N, "3.12"),
    LookAlike("python.venv", N, "there"),
    LookAlike("apt.dpkg", N, "whole"),
    LookAlike("apt.lock", N, "free"),
    LookAlike(
        "apt.mixed-sources",
        but(
            N,
            apt={
                "packages": (
                    *NVIDIA_PACKAGES,
                    package("cuda-toolkit-13-0", "13.0.2-1"),
                    package("nvidia-prime", "0.8.17.2"),
                )
            },
        ),
        "the toolkit may come from NVIDIA",
    ),
    LookAlike(
        "apt.repo-wins",
        but(
            N,
            apt={
                "sources": (UBUNTU, CUDA_REPO),
                "pins": (
                    AptPreference(
                        file="/etc/apt/preferences.d/gpu-setup",
                        packages="*nvidia* libcuda1*",
                        pin="origin developer.download.nvidia.com",
                        priority=-1,
                    ),
                ),
            },
        ),
        "a pin keeps the driver",
    ),
    LookAlike("apt.repo-wins", N, "the container toolkit's repository has no driver"),
    LookAlike(
        "apt.signed-by-conflict",
        but(N, apt={"sources": (UBUNTU, UBUNTU, *(N.apt.sources or ()))}),
        "listed twice with one key is only untidy",
    ),
    LookAlike(
        "apt.amd-sources",
        but(
            A,
            apt={
                "sources": (
                    source("rocm.list", "https://repo.radeon.com/rocm/apt/7.2.4", "noble", "amd-rocm"),
                    source("amdgpu.list", "https://repo.radeon.com/amdgpu/30.30/ubuntu", "noble", "amd-graphics"),
                )
            },
        ),
        "driver and ROCm of one release",
    ),
    LookAlike("apt.unattended", N, "on, and nothing is blocked: Ubuntu's default"),
    LookAlike(
        "apt.unattended", but(N, apt={"unattended_blocks": ("linux-", "nvidia-", "libnvidia-")}), "the whole set"
    ),
    LookAlike(
        "apt.unattended", but(N, apt={"unattended_blocks": ("vim", "libc6$", "(")}), "other packages, a broken pattern"
    ),
    LookAlike("resources.disk", small(NONE, 10 * GB), "enough for the small model"),
    LookAlike(
        "resources.memory", but(N, resources={"memory_total": int(16.4 * GB), "swap_total": 0}), "a 16 GB machine"
    ),
    LookAlike("resources.memory", but(NONE, resources={"memory_total": 4 * GB, "swap_total": 0}), "without a card"),
    LookAlike("resources.oom-killer", N, "systemd-oomd, Ubuntu's default"),
    LookAlike(
        "resources.oom-kills", said(N, "[ 9.1] Out of memory: Killed process 99 (firefox) total-vm:1kB"), "a browser"
    ),
    LookAlike("resources.shm", but(N, resources={"shm_total": 64 << 20}), "not a container"),
    LookAlike("resources.noexec", disk(N, "boot", noexec=True), "nothing runs from /boot"),
    LookAlike("resources.file-system", N, "ext4"),
    LookAlike("resources.boot-space", disk(N, "boot", free=GB // 10, total=983 * GB), "it is on the system's disk"),
)

DPKG = (Unread(source="/var/lib/dpkg/status", reason="denied"),)
BLIND = (
    Blind("os.supported", but(NONE, os={"id": None}), "/etc/os-release"),
    Blind("os.virtual", but(NONE, os={"virtualisation": None}), "virtual machine"),
    Blind("rocm.kfd-access", but(A, amd={"kfd": kfd(usable=None)}), "/dev/kfd"),
    Blind(
        "rocm.render-access",
        but(A, amd={"render": None}, unread=(Unread(source="/dev/dri", reason="denied"),)),
        "denied",
    ),
    Blind("rocm.render-group", but(DENIED, person={"database_groups": None}), "/etc/group"),
    Blind("rocm.several-installs", but(A, amd={"rocm": None}), "/opt"),
    Blind("rocm.several-installs", but(A, amd={"rocm": (ROCM_72, RocmInstall(path="/opt/rocm-6"))}), "/opt/rocm-6"),
    Blind("rocm.override", but(environ(A, HSA_OVERRIDE_GFX_VERSION_0="10.3.0"), amd={"nodes": None}), "for which card"),
    Blind("rocm.ubuntu-packages", but(A, apt={"packages": None}, unread=DPKG), "denied"),
    Blind("rocm.path", but(A, amd={"rocm": (ROCM_72,), "rocm_on_path": None}), "PATH"),
    Blind("runtime.cuda-toolkit", but(N, nvidia={"cuda_toolkits": ("13.0",), "nvml_cuda": None}), "driver.nvml"),
    Blind("container.engine", but(N, docker={"answers": None}), "was not checked"),
    Blind("container.cdi", but(N, nvidia={"cdi_specs": None}), "/etc/cdi"),
    Blind(
        "container.toolkit", but(N, nvidia={"container_toolkit": None}, apt={"packages": None}, unread=DPKG), "denied"
    ),
    Blind("python.headers", but(N, python={"headers": None}), "python3"),
    Blind("python.version", but(N, python={"version": None}), "PATH"),
    Blind("python.venv", but(N, python={"venv": None}), "Cannot determine"),
    Blind("apt.dpkg", but(N, apt={"interrupted": None, "broken": None}, unread=DPKG), "denied"),
    Blind("apt.lock", but(N, unread=(Unread(source="/proc/locks", reason="denied"),)), "denied"),
    Blind("apt.mixed-sources", but(N, apt={"packages": None}, unread=DPKG), "denied"),
    Blind("apt.repo-wins", but(N, apt={"sources": None}), "/etc/apt"),
    Blind("apt.signed-by-conflict", but(N, apt={"sources": None}), "/etc/apt"),
    Blind("apt.amd-sources", but(A, apt={"sources": None}), "/etc/apt"),
    Blind("apt.unattended", but(N, apt={"unattended": None}), "/etc/apt"),
    Blind("resources.disk", but(N, resources={"disks": None}), "disk"),
    Blind("resources.memory", but(N, resources={"memory_total": None}), "/proc"),
    Blind("resources.oom-killer", but(N, resources={"oom_killers": None}), "systemd"),
    Blind("resources.oom-kills", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("resources.shm", but(N, os={"virtualisation": "docker"}, resources={"shm_total": None}), "/dev/shm"),
    Blind("resources.noexec", but(N, resources={"disks": None}), "/proc"),
    Blind("resources.file-system", but(N, resources={"disks": ()}), "home"),
    Blind("resources.boot-space", but(N, resources={"disks": ()}), "/boot"),
)
