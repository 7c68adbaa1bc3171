"""Linux under Windows (WSL): what Windows gives it of the GPU, which is on no PCI bus there."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, exists, names, word
from checks.facts.host import WINDOWS_DRIVER, NvmlGpu, PciCard, Wsl
from checks.facts.os import is_wsl, read_container
from machine.library_paths import WSL_LIBRARIES, library_folders
from machine.local import Machine


def parse_generation(osrelease: str) -> int:
    """1 or 2. WSL 1 runs no Linux kernel; it calls itself `4.4.0-22621-Microsoft`."""
    return 1 if re.fullmatch(r"4\.4\.0-[0-9]+-Microsoft", osrelease) else 2


def read_wsl(machine: Machine, gaps: Gaps) -> Wsl | None:
    """What there is of the GPU under Windows; None on every other system, of which nothing more is read."""
    osrelease = word(machine, "/proc/sys/kernel/osrelease", gaps)
    if osrelease is None or not is_wsl(osrelease):
        return None
    nodes = names(machine, "/dev", gaps)
    folders = library_folders("amd", machine.session().environ, lambda path: names(machine, path, gaps) or ())
    return Wsl(
        generation=parse_generation(osrelease),
        dxg=None if nodes is None else "dxg" in nodes,
        libraries=names(machine, WSL_LIBRARIES, gaps),
        rocdxg=any(exists(machine, f"{folder}/librocdxg.so") for folder in folders),
        container=read_container(machine, gaps),
    )


def with_windows_cards(
    cards: tuple[PciCard, ...] | None, wsl: Wsl | None, gpus: tuple[NvmlGpu, ...]
) -> tuple[PciCard, ...] | None:
    """The cards, in WSL also those that NVML reports: what trains on them needs no PCI device."""
    if cards is None or wsl is None or any(card.vendor == "10de" for card in cards):
        return cards
    return cards + tuple(
        PciCard(slot=gpu.slot or "", vendor="10de", device=gpu.device or "", driver=WINDOWS_DRIVER)
        for gpu in gpus
        if gpu.problem is None
    )
