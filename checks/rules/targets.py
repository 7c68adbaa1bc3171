"""What code a card needs: its architecture, and the one that ROCm takes it for."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host, KfdNode, PciCard
from checks.rules import cards

OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"


def target_of(card: PciCard, catalogue: Catalogue) -> str | None:
    """8.6 or gfx1100: what the driver says, else what the PCI id says; None: not known."""
    row = cards.row_of(card, catalogue)
    return (row.target or None) if row else None


def node_of(card: PciCard, host: Host) -> KfdNode | None:
    """The card's node in the KFD topology."""
    address = cards.bus_address(card.slot)
    return next((node for node in host.amd.nodes or () if cards.bus_address(node.slot) == address), None)


def override_of(card: PciCard, host: Host) -> tuple[str, str] | None:
    """The variable that overrides this card's architecture in this session, and its value.

    The one with the number of the card's KFD node comes first (libhsakmt, topology.c): nodes are counted from the
    first CPU, so that the first card's is usually 1.
    """
    node = node_of(card, host)
    for name in (f"{OVERRIDE}_{node.index}" if node else OVERRIDE, OVERRIDE):
        if name in host.person.environ:
            return name, host.person.environ[name]
    return None


def gfx_of(value: str) -> str | None:
    """`11.0.0` is gfx1100, `9.0.10` gfx90a: minor and stepping are hexadecimal digits; None: ROCm refuses the value."""
    parts = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{1,2})", value)
    if parts is None:
        return None
    major, minor, step = (int(part) for part in parts.groups())
    return f"gfx{major}{minor:x}{step:x}"
