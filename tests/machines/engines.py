"""Container engines, and how they reach a card."""

from __future__ import annotations

import json
from typing import Any

from tests.machines.synthetic import Recording
from tests.machines.ubuntu import DOCKER

VERSION = "29.1.3-0ubuntu3~24.04.2"
TOOLKIT = "1.20.0-1"


def docker(
    machine: Recording, runtimes: tuple[str, ...] = (), devices: tuple[str, ...] = (), version: str = VERSION
) -> None:
    """Ubuntu's docker.io, running; `devices` are CDI names that it has found."""
    for name, number in (
        ("docker.io", version),
        ("docker-buildx", "0.30.1-0ubuntu1~24.04.1"),
        ("containerd", "2.2.1-0ubuntu1~24.04.3"),
        ("runc", "1.3.4-0ubuntu1~24.04.1"),
    ):
        machine.package(name, number)
    _engine(machine, version.partition("-")[0], runtimes, devices)


def docker_ce(machine: Recording, runtimes: tuple[str, ...] = (), devices: tuple[str, ...] = ()) -> None:
    """Docker's own packages from Docker's repository."""
    for name, number in (
        ("docker-ce", "5:28.5.2-1~ubuntu.24.04~noble"),
        ("docker-ce-cli", "5:28.5.2-1~ubuntu.24.04~noble"),
        ("containerd.io", "1.7.28-1~ubuntu.24.04~noble"),
        ("docker-buildx-plugin", "0.29.1-1~ubuntu.24.04~noble"),
    ):
        machine.package(name, number)
    machine.node("/etc/apt/keyrings/docker.asc", "file", 0o644, size=3817)
    machine.file(
        "/etc/apt/sources.list.d/docker.sources",
        "Types: deb\nURIs: https://download.docker.com/linux/ubuntu\nSuites: noble\nComponents: stable\n"
        "Architectures: amd64\nSigned-By: /etc/apt/keyrings/docker.asc\n",
    )
    _engine(machine, "28.5.2", runtimes, devices)


def _engine(machine: Recording, version: str, runtimes: tuple[str, ...], devices: tuple[str, ...]) -> None:
    machine.node("/usr/bin/docker", "file", 0o755, size=40 << 20)
    machine.node("/run/docker.sock", "other", 0o660, DOCKER)
    machine.listing("/run/systemd/units", "invocation:docker.service", "invocation:containerd.service")
    info: dict[str, Any] = {
        "ServerVersion": version,
        "Driver": "overlayfs",
        "CgroupDriver": "systemd",
        "CgroupVersion": "2",
        "DockerRootDir": "/var/lib/docker",
        "Runtimes": {name: {"path": name} for name in ("io.containerd.runc.v2", "runc", *runtimes)},
        "DefaultRuntime": "runc",
        "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
        "DiscoveredDevices": [{"Source": "cdi", "ID": device} for device in devices],
        "LiveRestoreEnabled": False,
        "ContainersRunning": 0,
        "OperatingSystem": "Ubuntu 24.04.4 LTS",
    }
    machine.run(("docker", "info", "--format", "{{json .}}"), json.dumps(info, sort_keys=True) + "\n")


def nvidia(machine: Recording, driver: str, *, ce: bool = False) -> None:
    """An engine that hands NVIDIA's card on, and all that a training environment needs."""
    (docker_ce if ce else docker)(machine, ("nvidia",), ("nvidia.com/gpu=0", "nvidia.com/gpu=all"))
    nvidia_toolkit(machine, driver)
    build_tools(machine)


def nvidia_toolkit(machine: Recording, driver: str) -> None:
    """NVIDIA's container toolkit from its own repository, and the CDI description it keeps for this driver."""
    for name in (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    ):
        machine.package(name, TOOLKIT)
    keyring = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
    machine.node(keyring, "file", 0o644, size=2201)
    machine.file(
        "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
        f"deb [signed-by={keyring}] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n",
    )
    machine.file(
        "/etc/docker/daemon.json",
        json.dumps({"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}, indent=4) + "\n",
    )
    library = "/usr/lib/x86_64-linux-gnu"
    machine.file(
        "/run/cdi/nvidia.yaml",
        "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: all\n  containerEdits:\n    deviceNodes:\n"
        "    - path: /dev/nvidia0\n"
        "containerEdits:\n  deviceNodes:\n  - path: /dev/nvidiactl\n  - path: /dev/nvidia-uvm\n"
        f"  mounts:\n  - containerPath: {library}/libcuda.so.{driver}\n    hostPath: {library}/libcuda.so.{driver}\n",
    )


def build_tools(machine: Recording) -> None:
    """What Triton needs to compile at run time."""
    for name, version in (
        ("build-essential", "12.10ubuntu1"),
        ("gcc", "4:13.2.0-7ubuntu1"),
        ("python3-dev", "3.12.3-0ubuntu2.1"),
        ("python3-venv", "3.12.3-0ubuntu2.1"),
    ):
        machine.package(name, version)
    machine.program("/usr/bin/gcc", "gcc-13", 1 << 20)
    machine.node("/usr/include/python3.12/Python.h", "file", 0o644, size=2854)
    machine.listing("/usr/lib/python3.12/ensurepip", "__init__.py", "__main__.py")
