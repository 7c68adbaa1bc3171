"""Machines for the tests of images: recorded ones, with one thing changed."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from checks.facts.host import Host, NvmlGpu, PciCard
from checks.facts.read import read_host
from tests.recorded_machines import load

CATALOGUE_VENDORS = {"nvidia": "10de", "amd": "1002"}

RX_6700_XT = ("1002", "73df", "c1")


def host(name: str) -> Host:
    return read_host(load(name))


def with_driver(machine: Host, version: str | None) -> Host:
    return replace(machine, nvidia=replace(machine.nvidia, module_version=version, nvml_driver=version))


def with_kernel(machine: Host, release: str) -> Host:
    return replace(machine, kernel=replace(machine.kernel, release=release))


def with_docker(machine: Host, **changed: Any) -> Host:
    return replace(machine, docker=replace(machine.docker, **changed))


def with_cards(machine: Host, *ids: tuple[str, str, str | None]) -> Host:
    """The machine with these cards (vendor, device, revision) in its slots."""
    cards = tuple(
        PciCard(slot=f"0000:{number:02x}:00.0", vendor=vendor, device=device, revision=revision)
        for number, (vendor, device, revision) in enumerate(ids, start=1)
    )
    return replace(machine, cards=cards)


def rx_6700_xt() -> Host:
    """A card that only AMD's own index has kernels for."""
    return with_cards(host("rx6900xt-healthy"), RX_6700_XT)


def with_gpus(machine: Host, *gpus: NvmlGpu) -> Host:
    return replace(machine, nvidia=replace(machine.nvidia, nvml=gpus))
