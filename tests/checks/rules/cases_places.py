"""Where a card is not on the machine's own bus or not in its own groups: WSL, containers, and engines that differ.

Each row is rebuilt from the public report that stands above it.
"""

from __future__ import annotations

from typing import Any

from checks.facts.host import (
    WINDOWS_DRIVER,
    Docker,
    Host,
    PciCard,
    RocmInstall,
    TrainingEnvironment,
    Wsl,
)
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.hosts import but, healthy_amd, healthy_nvidia, kfd, no_gpu, nvml, package, render

N, A = healthy_nvidia(), healthy_amd()
LIBRARIES = "/usr/lib/wsl/lib"
NVIDIA = ("libcuda.so.1", "libdxcore.so", "libnvidia-ml.so.1", "nvidia-smi")
BLOCKED = "GPU access blocked by the operating system"


def wsl(problem: str | None = "absent", libraries: tuple[str, ...] = NVIDIA, **facts: Any) -> Host:
    """Ubuntu in WSL 2; `facts` are of WSL."""
    return but(
        no_gpu(),
        os={"virtualisation": "wsl"},
        kernel={"release": "6.6.87.2-microsoft-standard-WSL2"},
        cards=(),
        nvidia={"nvml_problem": problem},
        wsl=Wsl(**({"generation": 2, "dxg": True, "libraries": libraries} | facts)),
    )


def working(name: str = "NVIDIA GeForce RTX 3080", driver: str = "581.57") -> Host:
    """WSL with a card, as NVML reports it through Windows' driver."""
    gpu = nvml(name=name, slot="0000:0a:00.0", device="2206")
    card = PciCard(
        slot="0000:0a:00.0",
        vendor="10de",
        device="2206",
        driver=WINDOWS_DRIVER,
        reported_target="8.6",
        reported_name=name,
    )
    return but(wsl(None), cards=(card,), nvidia={"nvml": (gpu,), "nvml_driver": driver, "nvml_cuda": "13.0"})


def rocm(version: str = "7.2.1", environ: dict[str, str] | None = None, **facts: Any) -> Host:
    return but(
        wsl(libraries=("libd3d12.so", "libdxcore.so"), **facts),
        amd={"rocm": (RocmInstall(path=f"/opt/rocm-{version}", version=version),)},
        person={"environ": environ or {}},
    )


DETECTION = {"HSA_ENABLE_DXG_DETECTION": "1"}


def podman(version: str, schema: str, path: str = "/run/cdi/nvidia.yaml") -> Host:
    return but(
        N,
        docker=Docker(kind="podman", path="/usr/bin/podman", version=version, installed=("podman",)),
        nvidia={"cdi_specs": (path,), "cdi_versions": ((path, "595.84"),), "cdi_schemas": ((path, schema),)},
    )


def both(**docker: Any) -> Host:
    """docker-ce and the snap on one machine."""
    return but(N, docker={"kind": "docker-ce", "installed": ("docker-ce", "snap"), "running": ("docker-ce",)} | docker)


def inside(virtualisation: str, group: int, name: str | None, groups: tuple[str, ...] = ("root",)) -> Host:
    """A container with a Radeon whose device files this user may not open."""
    person = {"uid": 0, "user": "root", "groups": groups, "database_groups": groups}
    node, card = kfd(group=group, group_name=name, usable=False), render(group=group, group_name=name, usable=False)
    return but(A, os={"virtualisation": virtualisation}, amd={"kfd": node, "render": (card,)}, person=person)


def without_nodes(kind: str) -> Host:
    """A container on a machine with an RTX 3090, whose bus it sees, and nothing else of the card."""
    return but(N, os={"virtualisation": kind}, nvidia={"device_nodes": (), "nvml": None, "nvml_problem": "absent"})


SNAP = {"kind": "snap", "root_dir": "/var/snap/docker/common/var-lib-docker", "running": ("docker-ce", "snap")}
TORCH = TrainingEnvironment(path="/home/alex/venv", owner="active", torch="2.9.1+rocm7.2", torch_hip="7.2.1")

FAULTS: list[Fault] = [
    # microsoft/WSL#14339: L40S, Windows Server 2025, Ubuntu 24.04
    Fault("wsl.gpu", wsl(BLOCKED), FAIL, BLOCKED),
    # microsoft/WSL#9938 (Windows 10), #12859 (L20), #11865 (L40S in TCC mode): NVML's words with its number
    Fault("wsl.gpu", wsl(f"17: {BLOCKED}"), FAIL, BLOCKED),
    # microsoft/WSL#9166: nvidia-utils-510 inside, the same words
    Fault(
        "wsl.gpu", but(wsl(BLOCKED), apt={"packages": (package("nvidia-utils-510", "510.108.03-0"),)}), FAIL, BLOCKED
    ),
    # microsoft/WSL#9254: a P100 in TCC mode only
    Fault("wsl.gpu", but(wsl(None), nvidia={"nvml": ()}), FAIL, "lists no card"),
    Fault("wsl.gpu", but(wsl(None), nvidia={"nvml": (nvml(problem="Unknown Error"),)}), FAIL, "Unknown Error"),
    Fault(
        "wsl.gpu",
        but(working(), nvidia={"nvml": (nvml(slot="0000:0a:00.0"), nvml(problem="Unknown Error"))}),
        FAIL,
        "for 1 of 2 cards: Unknown Error",
    ),
    # microsoft/WSL#11589: nvidia-smi shows `CUDA Version: ERR!`
    Fault("wsl.gpu", but(working(), nvidia={"nvml_cuda": None}), WARN, "reports no CUDA version"),
    # microsoft/WSL#9962: nvidia-smi works in WSL, and not in its Docker container
    Fault("wsl.gpu", wsl(BLOCKED, container="docker"), FAIL, "in this docker container in WSL"),
    Fault("wsl.gpu", wsl(dxg=False, container="docker", libraries=()), WARN, "docker container in WSL has no /dev/dxg"),
    # microsoft/WSL#6809: no /dev/dxg after an update of Windows
    Fault("wsl.gpu", wsl(dxg=False, libraries=()), WARN, "/dev/dxg is missing"),
    # microsoft/WSL#829: WSL 1
    Fault("wsl.gpu", wsl(generation=1, dxg=False, libraries=()), FAIL, "WSL 1"),
    # the driver in Windows was updated while WSL ran
    Fault("wsl.gpu", wsl("Unknown Error"), FAIL, "Unknown Error"),
    # pytorch/pytorch#84550: driver 516.94 in Windows
    Fault("driver.too-old", working("NVIDIA GeForce RTX 3080", "516.94"), FAIL, "516.94 is too old"),
    # ROCm/librocdxg#34: RX 7800 XT, ROCm 7.2.1
    Fault("wsl.rocm", rocm(rocdxg=True), FAIL, "lacks HSA_ENABLE_DXG_DETECTION=1"),
    Fault("wsl.rocm", rocm(), FAIL, "librocdxg, HSA_ENABLE_DXG_DETECTION=1"),
    # ROCm/librocdxg#35: RX 9070 XT, ROCm 7.2.3, the variable is set
    Fault("wsl.rocm", rocm("7.2.3", DETECTION), FAIL, "lacks librocdxg"),
    # ROCm/legacy-rocm-build#5106: RX 7800 XT, ROCm 6.4.2
    Fault("wsl.rocm", rocm("6.4.2", DETECTION), FAIL, "lacks ROCm 7.2 or newer, librocdxg"),
    # PyTorch's ROCm build alone
    Fault("wsl.rocm", but(rocm(), amd={"rocm": ()}, python={"environments": (TORCH,)}), FAIL, "lacks librocdxg"),
    # andweng/wsl-rocm, step 2: ROCm 7.2 beside Ubuntu's runtime 5.7
    Fault(
        "wsl.rocm",
        but(rocm("7.2.0", DETECTION, rocdxg=True), apt={"packages": (package("libhsa-runtime64-1", "5.7.1-2build1"),)}),
        FAIL,
        "libhsa-runtime64-1",
    ),
    # numba/numba#9032: libnvidia-compute-510 in WSL, PyTorch works
    Fault(
        "os.virtual",
        but(working(), apt={"packages": (package("libnvidia-compute-510", "510.108.03-0ubuntu0.22.04.1"),)}),
        WARN,
        "driver is installed inside WSL",
    ),
    # NVIDIA/cuml#6218: libcuda of a Linux driver, by no package
    Fault(
        "os.virtual",
        but(working(), nvidia={"libcuda_versions": (("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "560.35.03"),)}),
        WARN,
        "driver is installed inside WSL",
    ),
    # NVIDIA/nvidia-container-toolkit#1860, #1940 (aarch64): podman of Ubuntu 24.04
    Fault("container.cdi", podman("4.9.3+ds1-1ubuntu0.2", "0.7.0"), WARN, "podman 4.9.3"),
    # NVIDIA/nvidia-container-toolkit#1853: a description written by hand, podman 4.6.2
    Fault("container.cdi", podman("4.6.2", "0.7.0", "/etc/cdi/nvidia.yaml"), WARN, "cannot read"),
    # podman of Debian 12
    Fault("container.cdi", podman("4.3.1+ds1-8+deb12u1", "0.7.0"), WARN, "version 0.7.0"),
    # NVIDIA's release notes, 1.19.1: Docker before 26.1
    Fault(
        "container.cdi",
        but(
            N,
            docker={"version": "25.0.5", "runtimes": ("runc",)},
            nvidia={"cdi_schemas": (("/run/cdi/nvidia.yaml", "0.7.0"),)},
        ),
        WARN,
        "docker 25.0.5",
    ),
    # podman-container-tools/podman#24474: podman 3.4.4 of Ubuntu 22.04, with a description and without
    Fault(
        "container.cdi",
        podman("3.4.4+ds1-1ubuntu1.22.04.3", "0.7.0"),
        WARN,
        "podman 3.4.4+ds1-1ubuntu1.22.04.3 is older",
    ),
    Fault(
        "container.cdi",
        but(podman("3.4.4", "0.5.0"), nvidia={"cdi_specs": (), "cdi_versions": (), "cdi_schemas": ()}),
        WARN,
        "older than CDI",
    ),
    # podman-container-tools/podman#21156: podman-docker
    Fault(
        "container.engine",
        but(
            podman("4.9.3+ds1-1ubuntu0.2", "0.5.0"),
            apt={"packages": (package("podman-docker", "4.9.3+ds1-1ubuntu0.2"),)},
        ),
        PASS,
        "ignores --gpus; use --device nvidia.com/gpu=all",
    ),
    # NVIDIA/nvidia-container-toolkit#1487: rootless, toolkit 1.18, a CDI description
    Fault("container.rootless", but(N, docker={"rootless": True}), PASS, "--device nvidia.com/gpu=all"),
    # NVIDIA/nvidia-container-toolkit#885: rootless podman, driver 560.35.03, a card's node that is no more
    Fault(
        "container.cdi",
        but(N, nvidia={"cdi_missing": (("/etc/cdi/nvidia.yaml", "/dev/dri/renderD129"),)}),
        WARN,
        "names /dev/dri/renderD129",
    ),
    # Docker works, and podman was installed for something else
    Fault(
        "container.cdi",
        but(
            N,
            docker={"installed": ("docker.io", "podman")},
            apt={"packages": (package("podman", "4.9.3+ds1-1ubuntu0.2"),)},
            nvidia={"cdi_schemas": (("/run/cdi/nvidia.yaml", "0.7.0"),)},
        ),
        PASS,
        "podman 4.9.3",
    ),
    # NVIDIA/nvidia-container-toolkit#1092 and askubuntu's many: the installer's snap beside docker-ce
    Fault("container.snap", both(**SNAP), WARN, "docker-ce and a snap, and the snap answers"),
    Fault("container.snap", both(running=("docker-ce", "snap")), WARN, "docker-ce answers"),
    Fault("container.snap", both(), PASS, "and docker-ce answers"),
    # who is not in the group docker cannot ask
    Fault(
        "container.snap",
        both(answers=False, problem="permission-denied", root_dir=None, running=("docker-ce", "snap")),
        WARN,
        "which one answers could not be read",
    ),
    # NVIDIA/nvidia-container-toolkit#381: Docker 25.0.4 as root; #85: in WSL
    Fault("container.cgroup-driver", but(N, nvidia={"no_cgroups": True}), WARN, "Docker runs as root"),
    Fault(
        "container.cgroup-driver",
        but(working(), docker=N.docker, nvidia={"no_cgroups": True, "container_toolkit": "1.17.8-1"}),
        WARN,
        "no-cgroups",
    ),
    # NVIDIA/nvidia-docker#1637: only the snap
    Fault("container.snap", but(N, docker={"kind": "snap", "installed": ("snap",)}), WARN, "installed as a snap"),
    # ollama/ollama#6685: rootless podman, the node belongs to nobody
    Fault("rocm.kfd-access", inside("podman", 65534, "nogroup"), FAIL, "not mapped into this container"),
    Fault("rocm.render-access", inside("podman", 65534, None), FAIL, "not mapped into this container"),
    # an unprivileged container of Proxmox
    Fault("rocm.kfd-access", inside("lxc", 65534, "nogroup"), FAIL, "not mapped into this container"),
    # 89luca89/distrobox#1230: RX 6600, podman 4.9.3
    Fault("rocm.kfd-access", inside("podman", 65534, "nogroup", ("alex",)), FAIL, "not mapped into this container"),
    # ROCm/rocm-cli fix-10: --device=/dev/kfd alone
    Fault(
        "rocm.render-access", but(A, os={"virtualisation": "docker"}, amd={"render": ()}), FAIL, "is missing in this"
    ),
    # NVIDIA/nvidia-container-toolkit#146 and many: a container that was started without the card
    Fault("os.virtual", without_nodes("docker"), FAIL, "docker container, started without the NVIDIA card"),
    Fault("os.virtual", without_nodes("lxc"), FAIL, "lxc container, started without"),
    Fault("os.virtual", but(without_nodes("podman"), nvidia={"module_version": None}), FAIL, "has not loaded"),
    # NVIDIA/nvidia-container-toolkit#48: after `systemctl daemon-reload` on the host
    Fault(
        "os.virtual",
        but(N, os={"virtualisation": "docker"}, nvidia={"nvml": None, "nvml_problem": "Unknown Error"}),
        FAIL,
        "lost access to the card",
    ),
    # ROCm/legacy-rocm-build#6563: Docker, the host's number
    Fault("rocm.kfd-access", inside("docker", 992, None), FAIL, "lacks permission for /dev/kfd"),
]

LOOK_ALIKES: list[LookAlike] = [
    LookAlike("wsl.gpu", working(), "RTX 3080 in WSL works"),
    # pytorch/pytorch#84550: nvidia-smi 515.65.01 of the Windows driver 516.94
    LookAlike("wsl.gpu", working("NVIDIA GeForce RTX 3090", "516.94"), "an older driver in Windows works too"),
    LookAlike("wsl.gpu", N, "no WSL"),
    LookAlike("wsl.gpu", rocm("7.2.4", DETECTION, rocdxg=True), "an AMD card: Windows has no NVIDIA driver"),
    LookAlike("wsl.gpu", wsl(libraries=("libd3d12.so", "libdxcore.so")), "a laptop with Intel's graphics"),
    LookAlike("wsl.rocm", rocm("7.2.4", DETECTION, rocdxg=True), "ROCm, the library and the variable"),
    # ROCm/librocdxg#34, the maintainer's answer of 2026-06-23
    LookAlike("wsl.rocm", rocm("7.13.0", rocdxg=True), "from 7.13 on ROCm detects it by itself"),
    # ROCm/legacy-rocm-build#3734: ROCm 6.1 for WSL has no /dev/kfd and works
    LookAlike(
        "wsl.rocm",
        but(rocm("6.1.3"), apt={"packages": (package("hsa-runtime-rocr4wsl-amdgpu", "1.13.0"),)}),
        "AMD's older runtime for WSL",
    ),
    LookAlike("wsl.rocm", working(), "no ROCm"),
    LookAlike("wsl.rocm", A, "no WSL"),
    # NVIDIA's CUDA toolkit for WSL is no driver
    LookAlike(
        "container.desktop", but(working(), docker=Docker(kind="desktop", answers=True)), "Docker Desktop in WSL"
    ),
    LookAlike("container.toolkit", but(working(), docker=Docker(kind="desktop", answers=True)), "it has the toolkit"),
    # NVIDIA/nvidia-container-toolkit#1940, a comment of 2026-07-16
    LookAlike("container.cdi", podman("5.7.0", "0.7.0"), "podman 5.7 reads 0.7.0"),
    LookAlike("container.cdi", podman("5.4.2+ds1-2", "0.8.0"), "of 0.8.0 nothing is known"),
    LookAlike("container.cdi", podman("4.3.1+ds1-8+deb12u1", "0.5.0"), "podman of Debian 12"),
    LookAlike(
        "container.engine",
        but(podman("5.4.2+ds1-2", "0.5.0"), apt={"packages": (package("podman-docker", "5.4.2+ds1-2"),)}),
        "its --gpus gives NVIDIA cards",
    ),
    LookAlike("container.engine", podman("4.9.3", "0.5.0"), "nobody calls it docker"),
    LookAlike(
        "container.rootless", but(N, docker={"rootless": True, "version": "29.2.1"}), "Docker 29.2: --gpus uses CDI"
    ),
    LookAlike("container.cdi", podman("5.1.0+ds1", "0.7.0"), "the first that reads it"),
    LookAlike("container.cdi", podman("4.9.3+ds1-1ubuntu0.2", "0.5.0"), "written with the feature flag"),
    LookAlike("container.cdi", podman("4.9.4-rhel", "0.5.0"), "the toolkit before 1.19.1"),
    LookAlike(
        "container.cdi",
        but(N, docker={"version": "29.1.3"}, nvidia={"cdi_schemas": (("/run/cdi/nvidia.yaml", "0.7.0"),)}),
        "a current Docker",
    ),
    LookAlike(
        "container.cgroup-driver",
        but(N, docker={"version": "29.2.0"}, nvidia={"no_cgroups": True}),
        "Docker 29.2: --gpus uses CDI",
    ),
    LookAlike(
        "container.cgroup-driver", but(N, docker={"rootless": True}, nvidia={"no_cgroups": True}), "a rootless Docker"
    ),
    LookAlike(
        "container.cdi",
        but(N, nvidia={"nvml": None, "cdi_missing": (("/run/cdi/nvidia.yaml", "/dev/nvidia0"),)}),
        "the driver does not answer, so its files are missing",
    ),
    LookAlike("container.snap", but(N, docker={"installed": ("docker.io", "podman")}), "podman beside Docker"),
    LookAlike("rocm.kfd-access", but(A, amd={"kfd": kfd(group=65534, usable=True)}), "keep-groups is set"),
    LookAlike("os.virtual", but(N, os={"virtualisation": "docker"}), "a container with the card"),
    LookAlike("os.virtual", but(without_nodes("kvm")), "a virtual machine without a driver is no container"),
]

BLIND: list[Blind] = [
    Blind("wsl.gpu", wsl("timed-out"), "not queried to its end"),
    Blind("wsl.gpu", wsl(dxg=None), "/dev"),
]
