"""How much memory a card has for a training job: the free memory of this machine's card, or the catalogue's figure."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from checks.catalogue import Card, Catalogue
from checks.facts.host import Host, PciCard
from checks.rules import cards
from harness.memory.job import constants
from machine.errors import BadUsage

GIB = 2**30
# words that people write and the catalogue leaves out, or the reverse
_FILLER_WORDS = {"nvidia", "geforce", "amd", "radeon", "instinct", "quadro", "tesla", "gpu", "graphics", "card"}


class AvailableMemory(NamedTuple):
    """`bytes`: what a job may use; `source`: where that figure comes from, in words. `here`: this machine has it."""

    card: str
    bytes: int
    source: str
    here: bool


def available_memory(name: str | None, host: Host, catalogue: Catalogue) -> AvailableMemory | None:
    """The memory of the card `name`, as measured where this machine has it. Without a name: of this machine's card with
    the most free memory; None: this machine has no card.

    Raises BadUsage for an unknown name, and for one that fits several cards with different memory.
    """
    ours = [(card, _from_driver(card, host, catalogue)) for card in cards.training(host, catalogue)]
    if name is None:
        found = [room for _, room in ours if room is not None]
        return max(found, key=lambda room: room.bytes, default=None)
    row = find_card(name, catalogue)
    for card, room in ours:
        if room is not None and cards.row_of(card, catalogue) == row:
            return room
    return _from_catalogue(row)


def _from_driver(card: PciCard, host: Host, catalogue: Catalogue) -> AvailableMemory | None:
    reserve = constants().reserve
    gpu, amd, row = cards.nvml_of(card, host), cards.amd_of(card, host), cards.row_of(card, catalogue)
    name = cards.name(card, catalogue)
    seen = (gpu.memory_total, gpu.memory_used, "NVML") if gpu else (None, None, "")
    if amd and amd.vram_total is not None:
        seen = (amd.vram_total, amd.vram_used, "amdgpu")
    total, used, source = seen
    if total is not None and used is not None:
        words = f"{(total - used) / GIB:.1f} of {total / GIB:.1f} GiB free now ({source})"
        return AvailableMemory(name, max(0, total - used - reserve), f"{words}, minus {_gib(reserve)} kept free", True)
    return _from_catalogue(row, here=True) if row is not None and row.vram_gb else None


def _from_catalogue(row: Card, here: bool = False) -> AvailableMemory:
    if not row.vram_gb:
        raise BadUsage(
            "fit.memory",
            f"The memory size of {row.name} is not known.",
            "It uses the computer's main memory." if row.integrated else "The catalogue has no figure for it.",
            "Name another card.",
        )
    size, reserve = round(row.vram_gb * 2**30), constants().reserve
    return AvailableMemory(
        row.name, size - reserve, f"{row.vram_gb:g} GiB in the catalogue, minus {_gib(reserve)} kept free", here
    )


def find_card(name: str, catalogue: Catalogue) -> Card:
    """A card by name, upper or lower case, with or without brand words; the shortest name that has all the words."""
    wanted = _words(name)
    holding = [(row, _words(row.name)) for row in catalogue.cards if wanted and wanted <= _words(row.name)]
    fewest = min((len(words) for _, words in holding), default=0)
    found = [row for row, words in holding if len(words) == fewest]
    if not found:
        near = difflib.get_close_matches(_plain(name), {_plain(row.name): row.name for row in catalogue.cards}, n=3)
        names = {_plain(row.name): row.name for row in catalogue.cards}
        raise BadUsage(
            "fit.card",
            f"The catalogue has no card “{name}”."
            + (f" Did you mean {' or '.join(names[each] for each in near)}?" if near else ""),
            f"It has {len(catalogue.cards)} cards, such as RTX 3090, RTX 6000 Ada, RX 7900 XT and PRO W7900.",
            f"gpu-setup fit --card '{names[near[0]] if near else 'RTX 3090'}'",
        )
    if len({row.vram_gb for row in found}) > 1:
        listed = ", ".join(row.name for row in found)
        raise BadUsage(
            "fit.card",
            f"“{name}” fits several cards with different memory: {listed}.",
            "",
            f"gpu-setup fit --card '{found[0].name}'",
        )
    return found[0]


def _words(name: str) -> frozenset[str]:
    parts = name.lower().replace("-", " ").replace("(", " ").replace(")", " ").replace("/", " ").split()
    return frozenset(part for part in parts if part not in _FILLER_WORDS) or frozenset(parts)


def _plain(name: str) -> str:
    return " ".join(word for word in name.lower().replace("-", " ").split() if word not in _FILLER_WORDS)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
