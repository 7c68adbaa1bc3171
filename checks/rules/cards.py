"""Which cards the rules check, how messages name them, and how their bus addresses are compared."""

from __future__ import annotations

from collections.abc import Iterable

from checks.catalogue import Card, Catalogue, Stack
from checks.facts.host import AmdGpu, Host, NvmlGpu, PciCard

NVIDIA = "10de"
AMD = "1002"
VENDOR_NAMES = {NVIDIA: "NVIDIA", AMD: "AMD"}
# drivers that reserve a card for a virtual machine
RESERVED = ("vfio-pci", "pci-stub")


def row_of(card: PciCard, catalogue: Catalogue) -> Card | None:
    """What the card is: by its PCI id, and by what its driver reports; None: of another vendor."""
    return catalogue.card(card.vendor, card.device, card.revision, card.reported_target, card.reported_name)


def name(card: PciCard, catalogue: Catalogue) -> str:
    """`RTX 3090`, or the PCI id of a card that is not known."""
    row = row_of(card, catalogue)
    return row.name if row else f"{card.vendor}:{card.device}"


def subject(card: PciCard, catalogue: Catalogue) -> str:
    return f"{card.slot} {name(card, catalogue)}"


def training(host: Host, catalogue: Catalogue, vendor: str | None = None) -> tuple[PciCard, ...]:
    """Cards of this vendor (without one: of both) that can train: known cards that are supported and not integrated
    into a CPU, and NVIDIA cards that are newer than the tables. Cards reserved for a virtual machine are left out."""
    return tuple(
        card
        for card in host.cards or ()
        if card.vendor in VENDOR_NAMES
        and vendor in (None, card.vendor)
        and card.driver not in RESERVED
        and _could_train(card, catalogue)
    )


def _could_train(card: PciCard, catalogue: Catalogue) -> bool:
    row = row_of(card, catalogue)
    if row is None:
        return False
    # an AMD id that is not known may be a CPU's integrated graphics, so nothing is claimed about it
    return card.vendor == NVIDIA if row.unknown else row.supported and not row.integrated


def watched_amd(host: Host, catalogue: Catalogue) -> tuple[PciCard, ...]:
    """AMD cards whose hangs matter: those that can train; where no card can, also integrated graphics with amdgpu."""
    if training(host, catalogue):
        return training(host, catalogue, AMD)
    return tuple(card for card in host.cards or () if card.vendor == AMD and card.driver == "amdgpu")


def none_of(host: Host, catalogue: Catalogue, vendor: str | None = None) -> str:
    """Why checks are skipped where `training` is empty."""
    brand = VENDOR_NAMES[vendor] if vendor else "NVIDIA or AMD"
    reserved = [card for card in host.cards or () if card.vendor == vendor and card.driver in RESERVED]
    if reserved:
        return f"The {brand} card is reserved for a virtual machine ({reserved[0].driver})."
    return f"No {brand} card that can train."


def stacks(card: PciCard, catalogue: Catalogue) -> tuple[Stack, ...]:
    """The training stacks that have kernels for this card, in the catalogue's order of preference."""
    row = row_of(card, catalogue)
    return catalogue.stacks_for(row) if row else ()


def bus_address(slot: str | None) -> str:
    """A bus address in one spelling: NVML writes 00000000:01:00.0 (or upper case), the kernel's log 0000:01:00."""
    if not slot:
        return ""
    domain, _, rest = slot.lower().partition(":")
    if ":" not in rest:
        return slot.lower()
    return f"{domain[-4:]:0>4}:{rest.partition('.')[0]}"


def card_at(slot: str | None, cards: Iterable[PciCard]) -> PciCard | None:
    """The card at this address; the function number does not matter."""
    wanted = bus_address(slot)
    return next((card for card in cards if wanted and bus_address(card.slot) == wanted), None)


def subject_at(slot: str, host: Host, catalogue: Catalogue) -> str:
    """The subject for an address from a log line: with the card's name where the bus still shows it."""
    card = card_at(slot, host.cards or ())
    return subject(card, catalogue) if card else slot


def nvml_of(card: PciCard, host: Host) -> NvmlGpu | None:
    return next((gpu for gpu in host.nvidia.nvml or () if bus_address(gpu.slot) == bus_address(card.slot)), None)


def amd_of(card: PciCard, host: Host) -> AmdGpu | None:
    return next((gpu for gpu in host.amd.gpus or () if bus_address(gpu.slot) == bus_address(card.slot)), None)


def numbers(version: str | None) -> tuple[int, ...]:
    """`580.95.05` as (580, 95, 5), `6.17.0-14-generic` as (6, 17, 0): compared as integers, never as text."""
    found: list[int] = []
    for part in (version or "").replace("-", ".").split("."):
        # a damaged number may have thousands of digits, which int() refuses
        if not part.isdecimal() or len(part) > 9:
            break
        found.append(int(part))
    return tuple(found[:3])
