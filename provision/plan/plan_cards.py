"""Which cards a plan is for: supported ones, NVIDIA's newer ones, an integrated GPU only where there is no other."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import Card, Catalogue
from checks.facts.host import Host, PciCard
from checks.rules.cards import row_of
from provision.target import PlanVendor

VENDOR_IDS = {"10de": PlanVendor.NVIDIA, "1002": PlanVendor.AMD}
RESERVED = "vfio-pci"


class PlannedCard(NamedTuple):
    """A card of this machine, and what it is."""

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
        if pci.vendor in VENDOR_IDS and (row := row_of(pci, catalogue)) is not None
    )
    # an unknown card of NVIDIA's is newer than the tables and needs the newest driver; AMD's may be part of a CPU
    found = tuple(
        seen for seen in rows if seen.card.supported or (seen.card.unknown and seen.vendor is PlanVendor.NVIDIA)
    )
    discrete = tuple(seen for seen in found if not seen.card.integrated)
    return discrete or found


def unplanned_cards(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    """A sentence for each card of a known vendor that is not part of the plan."""
    chosen = {seen.pci.slot for seen in supported_cards(host, catalogue)}
    notes = []
    for pci in host.cards or ():
        if pci.vendor not in VENDOR_IDS or pci.slot in chosen:
            continue
        row = row_of(pci, catalogue)
        if row is None or row.unknown:
            notes.append(
                f"{pci.slot} ({pci.vendor}:{pci.device}) is newer than gpu-setup's data, and amdgpu does not report "
                "what it is: nothing is planned for it. With a kernel whose amdgpu supports it, gpu-setup uses what "
                "amdgpu reports."
            )
        elif row.integrated:
            notes.append(f"{pci.slot} {row.name} is an integrated GPU: it is not changed.")
        else:
            because = f" ({row.note})" if row.note else ""
            notes.append(f"{pci.slot} {row.name} has no training stack{because}: nothing is planned for it.")
    return tuple(notes)


def card_list(cards: tuple[PlannedCard, ...]) -> str:
    return ", ".join(str(seen) for seen in cards)
