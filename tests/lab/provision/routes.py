"""The routes of a fresh machine: the computer, the options, and the expected result."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from checks.catalogue import catalogue
from tests.lab.provision import rootfs, state
from tests.lab.provision.hosts import Guest, Hosts, Snapshot
from tests.lab.provision.state import State
from tests.machines import hardware


class Route(NamedTuple):
    """`packages` must be installed in the end, `absent` must never have been; `module`: what the kernel then runs.

    `layout`: the tool's data name this ROCm layout for the card, and its key (see `fresh`).
    `old_kernel`: what ran before, where the driver brings a newer kernel along.
    """

    computer: str
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    module: tuple[str, str] | None = None
    restarts: bool = True
    layout: str = ""
    old_kernel: str = ""


_CONTAINERS = ("docker.io", "docker-buildx", "nvidia-container-toolkit", "build-essential", "python3-dev")

ROUTES = {
    "rtx3090-archive": Route(
        "rtx3090",
        (),
        ("nvidia-driver-595-open", "linux-modules-nvidia-595-open-generic-hwe-24.04", *_CONTAINERS),
        ("dkms", "nvidia-dkms-595-open"),
        ("nvidia", "595.84"),
    ),
    "rtx3090-nvidia": Route(
        "rtx3090",
        ("--source", "nvidia"),
        ("nvidia-driver-pinning-595", "nvidia-open", "nvidia-dkms-open", "dkms", *_CONTAINERS),
        ("nvidia-driver-595-open",),
        ("nvidia", "595.84"),
    ),
    "rtx5090": Route(
        "rtx5090",
        (),
        ("nvidia-driver-595-open", "linux-modules-nvidia-595-open-generic-hwe-24.04", *_CONTAINERS),
        ("dkms",),
        ("nvidia", "595.84"),
    ),
    "v100": Route(
        "v100",
        (),
        ("nvidia-headless-no-dkms-580", "linux-modules-nvidia-580-generic", "nvidia-compute-utils-580", *_CONTAINERS),
        ("dkms", "nvidia-driver-580", "nvidia-driver-580-open"),
        ("nvidia", "580.159.04"),
    ),
    "rx7900xt": Route("rx7900xt", (), ("docker.io", "build-essential"), ("rocm-core", "amdgpu-dkms"), restarts=False),
    "rx7900xt-rocm": Route(
        "rx7900xt", ("--rocm", "host"), ("rocm", "rocm-core", "libatomic1"), ("amdgpu-dkms",), restarts=False
    ),
    "rx7900xt-rocm-7.14": Route(
        "rx7900xt",
        ("--rocm", "host"),
        ("amdrocm7.14-gfx1100", "libatomic1"),
        ("rocm-core", "amdgpu-dkms"),
        restarts=False,
        layout="7.14",
    ),
    "rx7900xt-rocm-10": Route(
        "rx7900xt",
        ("--rocm", "host"),
        ("amdrocm10.0-gfx1100", "libatomic1"),
        ("rocm-core", "amdgpu-dkms"),
        restarts=False,
        layout="10",
    ),
    "w7900-dkms": Route(
        "w7900",
        ("--source", "dkms"),
        ("amdgpu-dkms", "amdgpu-dkms-firmware", "dkms", "docker.io"),
        ("rocm-core",),
        ("amdgpu", "7.1.3"),
    ),
    "two-vendors-nvidia": Route(
        "two-vendors",
        ("--vendor", "nvidia"),
        ("nvidia-driver-595-open", *_CONTAINERS),
        ("dkms", "rocm-core"),
        ("nvidia", "595.84"),
        old_kernel=hardware.HWE_6_17.release,
    ),
    "two-vendors-amd": Route(
        "two-vendors", ("--vendor", "amd"), ("docker.io",), ("nvidia-driver-595-open",), restarts=False
    ),
}


def fresh(hosts: Hosts, route: Route) -> Snapshot:
    """The route's computer as installed. A layout whose key no source gave is known here, and chosen by its stack."""
    if not route.layout:
        return hosts.fresh(route.computer)
    name = f"amd.rocm.{route.layout}"
    fingerprint = hosts.shops.key(Path(catalogue().repository(name).keyring).stem).fingerprint

    def change(file: str, text: str) -> str:
        if file == "packages.toml":
            return rootfs.with_fingerprint(text, name, fingerprint)
        return (
            text.replace('runtime = "rocm 7.2"', f'runtime = "rocm {route.layout}"') if file == "stacks.toml" else text
        )

    return hosts.fresh(route.computer, route.layout, change)


class Arrived(NamedTuple):
    """A machine's state before its route, and its disk at the end: applied, restarted and resumed."""

    before: State
    disk: Snapshot


class Arrivals:
    """The ends of the routes, each made by the first test that goes there. A guest that starts from one has lost its
    power once more, which changes nothing."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._known: dict[str, Arrived] = {}

    def keep(self, name: str, before: State, guest: Guest) -> None:
        self._known[name] = Arrived(before, guest.snapshot())

    def __call__(self, name: str) -> Arrived:
        if name not in self._known:
            route = ROUTES[name]
            with self._hosts.guest(fresh(self._hosts, route)) as guest:
                before = state.of(guest)
                applied = guest.tool("apply", "--yes", *route.arguments)
                assert applied.rc == (5 if route.restarts else 0), applied.document
                if route.restarts:
                    guest.reboot()
                    assert guest.tool("resume").rc == 0
                self.keep(name, before, guest)
        return self._known[name]
