"""How much memory a card has for a training job: free on this machine's card, as the tables know it, or as given."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

from checks.catalogue import Card, Catalogue
from checks.devices import named_devices
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


def available_memory(
    name: str | None, host: Host, catalogue: Catalogue, size: float | None = None
) -> AvailableMemory | None:
    """The memory of the card `name`, as measured where this machine has it. Without a name: of this machine's card with
    the most free memory; None: this machine has no card. `size`: the memory of that card in GiB, as the user gives it.

    Raises BadUsage for an unknown name, and for one that fits several cards with different memory or of unknown memory.
    """
    if size is not None:
        known = find_card(name, catalogue, size).name if name else "a card"
        return _known_size(known, size, f"{size:g} GiB given", here=False)
    ours = [(card, _from_driver(card, host, catalogue)) for card in cards.training(host, catalogue)]
    if name is None:
        found = [room for _, room in ours if room is not None]
        return max(found, key=lambda room: room.bytes, default=None)
    row = find_card(name, catalogue)
    for card, room in ours:
        if room is not None and cards.name(card, catalogue) == row.name:
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
            "It uses the computer's main memory."
            if row.integrated
            else "Boards of that name differ, or no table here has it.",
            f"gpu-setup fit --card '{row.name}' --vram GIB",
        )
    return _known_size(row.name, row.vram_gb, f"{row.vram_gb:g} GiB in the catalogue", here)


def _known_size(name: str, size: float, words: str, here: bool) -> AvailableMemory:
    reserve = constants().reserve
    return AvailableMemory(name, round(size * GIB) - reserve, f"{words}, minus {_gib(reserve)} kept free", here)


def find_card(name: str, catalogue: Catalogue, size: float | None = None) -> Card:
    """A card by name, upper or lower case, with or without brand words; the shortest name that has all the words.

    `size`: its memory in GiB, where the name alone fits cards with different memory.
    """
    holding = _named(_words(name), _words, catalogue) or _named(_parts(name), _parts, catalogue)
    fewest = min((len(words) for words in holding.values()), default=0)
    found = [row for row, words in holding.items() if len(words) == fewest]
    if not any(row.vram_gb for row in found):
        # a name that is also the beginning of those with a size, as H100
        found = [row for row in holding if row.vram_gb] or found
    if not found:
        raise _unknown_name(name, catalogue)
    if size is None and len({row.vram_gb for row in found}) > 1:
        listed = ", ".join(row.name for row in found)
        raise BadUsage(
            "fit.card",
            f"“{name}” fits several cards with different memory: {listed}.",
            "",
            f"gpu-setup fit --card '{found[0].name}'",
        )
    return found[0]


def _named(
    wanted: frozenset[str], words_of: Callable[[str], frozenset[str]], catalogue: Catalogue
) -> dict[Card, frozenset[str]]:
    """The cards whose names have these words, and the words of their names; each name once."""
    if not wanted:
        return {}
    listed = [row for row in catalogue.cards if wanted <= words_of(row.name)]
    others = (catalogue.card(*key) for key, known in named_devices() if wanted <= words_of(known))
    found = {row.name: row for row in reversed([*listed, *(row for row in others if row)])}
    return {row: words for row in reversed(found.values()) if wanted <= (words := words_of(row.name))}


def _unknown_name(name: str, catalogue: Catalogue) -> BadUsage:
    names = (*(row.name for row in catalogue.cards), *(each for _, each in named_devices()))
    known = {_plain(each): each for each in names}
    near = [known[each] for each in difflib.get_close_matches(_plain(name), known, n=3)] if name.strip() else []
    return BadUsage(
        "fit.card",
        f"No card is called “{name}”." + (f" Did you mean {' or '.join(near)}?" if near else ""),
        "Cards are called as in the PCI id database, such as RTX 4070, RTX 3090, RX 7900 XT and PRO W7900.",
        f"gpu-setup fit --card '{near[0] if near else 'RTX 3090'}'",
    )


def _words(name: str) -> frozenset[str]:
    parts = name.lower().replace("-", " ").replace("(", " ").replace(")", " ").replace("/", " ").split()
    return frozenset(part for part in parts if part not in _FILLER_WORDS) or frozenset(parts)


def _parts(name: str) -> frozenset[str]:
    """The words without regard to spaces between letters and figures: 6700xt, RTX4070."""
    return _words(re.sub(r"(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[a-z])", " ", name.lower()))


def _plain(name: str) -> str:
    return " ".join(word for word in name.lower().replace("-", " ").split() if word not in _FILLER_WORDS)


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
