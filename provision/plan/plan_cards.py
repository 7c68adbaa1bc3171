"""Which cards a plan is for: known and supported ones, and an integrated GPU only where there is no other."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import Card, Catalogue
from checks.facts.host import Host, PciCard
from provision.target import PlanVendor

VENDOR_IDS = {"10de": PlanVendor.NVIDIA, "1002": PlanVendor.AMD}
RESERVED = "vfio-pci"


class PlannedCard(NamedTuple):
    """A card of this machine and its row in the catalogue."""

    pci: PciCard
    card: Card

    @property
    def vendor(self) -> PlanVendor:
        return VENDOR_IDS[self.pci.vendor]

    @property
    def is_reserved(self) -> bool:
        return self.pci.driver == RESERVED

    def __str__(self) -> str:
        return f"{self.card.name} ({self.pci.slot})"


def supported_cards(host: Host, catalogue: Catalogue) -> tuple[PlannedCard, ...]:
    """Cards that training can use, reserved ones included; an integrated GPU only where there is no other."""
    rows = (
        PlannedCard(pci, row)
        for pci in host.cards or ()
        if pci.vendor in VENDOR_IDS and (row := catalogue.card(pci.vendor, pci.device, pci.revision)) is not None
    )
    found = tuple(seen for seen in rows if seen.card.supported)
    discrete = tuple(seen for seen in found if not seen.card.integrated)
    return discrete or found


def unplanned_cards(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    """A sentence for each card of a known vendor that is not part of the plan."""
    chosen = {seen.pci.slot for seen in supported_cards(host, catalogue)}
    notes = []
    for pci in host.cards or ():
        if pci.vendor not in VENDOR_IDS or pci.slot in chosen:
            continue
        row = catalogue.card(pci.vendor, pci.device, pci.revision)
        if row is None:
            notes.append(f"{pci.slot} ({pci.vendor}:{pci.device}) is not in the catalogue: nothing is planned for it.")
        elif row.integrated:
            notes.append(f"{pci.slot} {row.name} is an integrated GPU: it is not changed.")
        else:
            because = f" ({row.note})" if row.note else ""
            notes.append(f"{pci.slot} {row.name} has no training stack{because}: nothing is planned for it.")
    return tuple(notes)


def card_list(cards: tuple[PlannedCard, ...]) -> str:
    return ", ".join(str(seen) for seen in cards)
