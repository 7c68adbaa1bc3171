"""Where the card is: in this machine, in an enclosure outside of it, or in a host of which this is a guest."""

from __future__ import annotations

import msgspec

from checks.facts.host import Host, PciCard
from checks.model import Fix, FixKind
from checks.rules import cards
from checks.rules.session import in_container

# what a kernel reserves for a port that devices are plugged into (Documentation/admin-guide/kernel-parameters.txt)
LARGER_WINDOW = "for a larger window add `pci=realloc,hpmmioprefsize=32G` to the kernel command line"
_ENCLOSURE = (
    "Power the enclosure off and on; try another Thunderbolt port and a short certified cable, and update the firmware "
    "of enclosure and computer"
)
# the card's port, and the two ports of an enclosure's switch; AMD's cards have a switch of their own
_EXTERNAL_PORTS, _AMD_SWITCH = 3, 2


def in_guest(host: Host) -> bool:
    """In a virtual machine: the slot, its power and its BIOS are the host's."""
    return host.os.virtualisation not in (None, "none", "wsl") and not in_container(host)


def external(card: PciCard | None, host: Host) -> bool:
    """Behind Thunderbolt or USB4: as the firmware says; or behind a switch in a machine with a screen of its own."""
    if card is None or card.external is not None:
        return card is not None and bool(card.external)
    laptop = any(
        name.startswith(("eDP", "LVDS")) for one in host.cards or () for name in one.connectors_connected or ()
    )
    ports = _EXTERNAL_PORTS + (_AMD_SWITCH if card.vendor == cards.AMD else 0)
    return laptop and len(card.bridges or ()) >= ports


def fitting(fix: Fix, host: Host, card: PciCard | None = None) -> Fix:
    """The fix for where the card is: a guest has no slot and no BIOS, an external card no slot in the machine."""
    if fix.kind not in (FixKind.HARDWARE, FixKind.FIRMWARE):
        return fix
    if in_guest(host):
        text = f"This is a virtual machine. On its host: {fix.text[:1].lower()}{fix.text[1:]}"
        return msgspec.structs.replace(fix, kind=FixKind.DOCS, text=text, needs_reboot=False)
    if external(card, host):
        text = f"{_ENCLOSURE}." if fix.kind is FixKind.HARDWARE else f"The card is external: {LARGER_WINDOW}."
        return msgspec.structs.replace(fix, kind=FixKind.HARDWARE, text=text, needs_reboot=False)
    return fix
