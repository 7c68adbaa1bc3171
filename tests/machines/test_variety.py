"""The recorded machines are many, small, and differ in what a driver depends on: kernel, route, point release."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from checks.facts.host import Host
from checks.facts.read import read_host
from tests.recorded_machines import load, names, tree
from tests.subjects import for_each

ALIKE = 10


def route(host: Host) -> str:
    """How the card's driver came onto the machine."""
    packages = {package.name: package.version for package in host.apt.packages or () if package.state == "installed"}
    holders = {card.driver for card in host.cards or ()}
    origins = {
        file.origin
        for file in host.kernel.modules or ()
        if file.name == "nvidia" and file.kernel == host.kernel.release
    }
    if host.nvidia.runfile:
        return "runfile"
    if "nvidia" in holders and origins:
        if any(name.startswith("nvidia-linux-grid") for name in packages):
            return "grid"
        if "cuda-keyring" in packages:
            return "NVIDIA's repository" + (", pinned" if any("driver-pinning" in name for name in packages) else "")
        kind = "dkms" if "dkms" in origins else "prebuilt"
        line = "-server" if any("-server" in name for name in packages if name.startswith("libnvidia")) else ""
        return f"archive {kind}{line} {'open' if host.nvidia.open_module else 'proprietary'}"
    rocm = host.amd.rocm[0].version if host.amd.rocm else None
    if "amdgpu" in holders:
        module = f"amdgpu-dkms {host.amd.module_version}" if host.amd.module_version else "in-tree amdgpu"
        return module + (f", ROCm {rocm}" if rocm else "")
    return ", ".join(sorted(filter(None, holders))) or "none"


def traits(host: Host) -> tuple[str, str, str]:
    """Kernel, driver route, point release."""
    point = re.search(r"24\.04(?:\.\d)?", host.os.pretty or "")
    return host.kernel.release or "", route(host), point[0] if point else ""


def contents(name: str) -> dict[str, bytes | str]:
    """Every file's bytes and every link's target, by path."""
    found = tree(name)
    return {**found.files, **found.links}


@pytest.fixture(scope="module")
def hosts() -> dict[str, Host]:
    return {name: read_host(load(name)) for name in names()}


def test_forty_machines_of_which_half_are_healthy(hosts: dict[str, Host]) -> None:
    assert len(hosts) >= 40
    assert sum(name.endswith("-healthy") for name in hosts) >= 20


def test_twenty_machines_differ_in_kernel_route_release_and_ten_files(hosts: dict[str, Host]) -> None:
    kinds: dict[tuple[str, str, str], str] = {}
    for name, host in hosts.items():
        kinds.setdefault(traits(host), name)
    assert len(kinds) >= 20
    files = {name: contents(name) for name in kinds.values()}
    for one, other in combinations(files, 2):
        paths = files[one].keys() | files[other].keys()
        differing = sum(files[one].get(path) != files[other].get(path) for path in paths)
        assert differing >= ALIKE, f"{one} and {other} differ in {differing} files"


def test_every_kernel_series_point_release_and_route_is_covered(hosts: dict[str, Host]) -> None:
    found = [traits(host) for host in hosts.values()]
    series = {".".join(release.split(".")[:2]) for release, _, _ in found}
    assert series >= {"6.8", "6.11", "6.14", "6.17", "7.0"}
    assert {point for _, _, point in found} == {"24.04", *(f"24.04.{number}" for number in range(1, 6))}
    routes = {route for _, route, _ in found}
    assert routes >= {
        "archive prebuilt open",
        "archive prebuilt proprietary",
        "archive prebuilt-server open",
        "archive dkms open",
        "archive dkms-server proprietary",
        "NVIDIA's repository",
        "NVIDIA's repository, pinned",
        "runfile",
        "grid",
        "nouveau",
        "in-tree amdgpu",
    }
    rocm = {host.amd.rocm[0].version for host in hosts.values() if host.amd.rocm}
    assert rocm == {"6.4.1", "7.2.4", "7.14.0", "10.0.0", "10.1.0"}


@for_each("name", names())
def test_a_recording_stays_small(name: str) -> None:
    found = contents(name)
    assert len(found) < 140
    assert sum(map(len, found.values())) < 60_000
