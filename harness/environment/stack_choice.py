"""Which training stack fits this machine, and why. A pure decision: Host + Catalogue → StackChoice."""

from __future__ import annotations

import re

import msgspec

from checks.catalogue import Catalogue, Stack
from checks.facts.host import Host
from checks.rules.cards import RESERVED, row_of


class StackChoice(msgspec.Struct, frozen=True):
    """The stack to train with, the reason, and whether a GPU will be used.

    `device`: the card's identifier for the driver (an NVIDIA UUID; None: not known). `conditions`: the cards, driver
    and kernel that a measured figure is valid for. `free`: the card's free memory in bytes (None: not known). `target`:
    its compute capability or gfx name.
    """

    stack: Stack
    because: str
    gpu: bool
    device: str | None = None
    conditions: tuple[str, ...] = ()
    free: int | None = None
    target: str | None = None


def choose_stack(host: Host, catalogue: Catalogue) -> StackChoice:
    """The first stack whose targets, driver and lock fit a working card; else the CPU stack, with the reason."""
    cpu = next(stack for stack in catalogue.stacks if stack.vendor == "cpu")
    reasons = []
    for card in host.cards or ():
        known = row_of(card, catalogue)
        if known is None or known.integrated:
            continue
        if card.driver in RESERVED:
            reasons.append(f"{known.name}: reserved for a virtual machine ({card.driver})")
            continue
        working = _why_unusable(host, card.slot, known.vendor)
        if working is not None:
            reasons.append(f"{known.name}: {working}")
            continue
        fitting = catalogue.stacks_for(known)
        if not fitting:
            reasons.append(f"{known.name}: no stack has kernels for {known.target or 'it'}")
        for stack in fitting:
            if stack.lock is None:
                reasons.append(f"{known.name}: the stack {stack.name} has no lock yet")
                continue
            if stack.driver_branch and (_branch(host) or 0) < stack.driver_branch:
                reasons.append(f"{known.name}: {stack.name} needs driver {stack.driver_branch} or newer")
                continue
            because = f"{known.name} ({known.target}) with a working driver"
            return StackChoice(
                stack.for_target(known.target), because, True, _device(host, card.slot), _conditions(host),
                _free(host, card.slot), known.target,
            )  # fmt: skip
    return StackChoice(cpu, "; ".join(dict.fromkeys(reasons)) or "no supported GPU", False, None, _conditions(host))


def _device(host: Host, slot: str) -> str | None:
    """The card's UUID, so that training does not use a second card or an integrated GPU too."""
    return next((gpu.uuid for gpu in host.nvidia.nvml or () if gpu.slot == slot), None)


def _free(host: Host, slot: str) -> int | None:
    for gpu in host.nvidia.nvml or ():
        if gpu.slot == slot and gpu.memory_total is not None and gpu.memory_used is not None:
            return gpu.memory_total - gpu.memory_used
    for amd in host.amd.gpus or ():
        if amd.slot == slot and amd.vram_total is not None and amd.vram_used is not None:
            return amd.vram_total - amd.vram_used
    return None


def _conditions(host: Host) -> tuple[str, ...]:
    cards = [f"{card.slot} {card.vendor}:{card.device}:{card.revision} {card.driver}" for card in host.cards or ()]
    drivers = (host.nvidia.module_version or host.nvidia.nvml_driver, host.amd.module_version, host.kernel.release)
    return (*cards, *(driver or "none" for driver in drivers))


def _why_unusable(host: Host, slot: str, vendor: str) -> str | None:
    """Why the card cannot compute now; None: it can."""
    if vendor == "10de":
        if host.nvidia.nvml:
            return None
        return f"NVML does not answer ({host.nvidia.nvml_problem or 'no driver'})"
    if host.amd.kfd is None or not host.amd.kfd.usable:
        return "/dev/kfd cannot be opened by this user"
    return None


def _branch(host: Host) -> int | None:
    version = host.nvidia.module_version or host.nvidia.nvml_driver or ""
    head = version.split(".")[0]
    return int(head) if re.fullmatch(r"[0-9]{1,9}", head) else None
