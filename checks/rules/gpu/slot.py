"""The slot: lanes and PCI Express generation of every link between the CPU and the card."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, hardware, info, warning
from checks.rules.gpu.place import external

# GT/s of PCI Express generations 1 to 6
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
# a card that is this busy has left its idle state
_BUSY = 50


def _sysfs(slot: str, file: str) -> str:
    return f"/sys/bus/pci/devices/{slot}/{file}"


def _widths(host: Host, card: PciCard) -> list[tuple[str, int]]:
    """Lanes in use at each link. A virtual machine's ports are emulated, so only the card's own counts there."""
    links = [(card.slot, card.link), *((port.slot, port.link) for port in card.bridges or ())]
    if host.os.virtualisation != "none":
        links = links[:1]
    return [(slot, link.width) for slot, link in links if link is not None and link.width]


@check(
    "gpu.link-width",
    "The card uses all its PCI Express lanes",
    about="An x16 card in a slot with four lanes, on a bad riser or with dirty contacts loads and offloads data "
    "slowly. An idle card lowers its link speed but not its width, so only the width is checked here. The narrowest "
    "link between CPU and card counts, because AMD cards have a switch of their own that always shows full width. A "
    "quarter of the lanes or less is a warning; half of them is informational (usual with two cards), and so is any "
    "number of an external card.",
    by_hand="Check the slot's lanes in the mainboard's manual, move the card to the first slot, reseat it, remove the "
    "riser, and check bifurcation in the BIOS.",
    needs=(needs.CARD,),
)
def link_width(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    fine = []
    for card in ours:
        row, widths = cards.row_of(card, catalogue), _widths(host, card)
        if card.link is None or not card.link.max_width or not widths:
            continue
        slot, width = min(widths, key=lambda pair: pair[1])
        able = min(card.link.max_width, _lanes(row.pcie if row else None) or card.link.max_width)
        if width >= able:
            fine.append(f"{cards.subject(card, catalogue)}: x{width}")
            continue
        outside = external(card, host)
        findings.append(
            (warning if width * 4 <= able and not outside else info)(
                cards.subject(card, catalogue),
                f"The card runs on {width} of {able} PCI Express lanes.",
                "Loading the model, offloading and multi-GPU training are slower; training on one card is hardly "
                "affected.",
                [
                    (_sysfs(slot, "current_link_width"), width),
                    (_sysfs(card.slot, "max_link_width"), card.link.max_width),
                ],
                hardware(
                    "Nothing to do: the card is external, and Thunderbolt carries four lanes at most."
                    if outside
                    else "Use a slot with all lanes (usually the first), reseat the card, remove the riser."
                ),
            )
        )
    if findings:
        return tuple(findings)
    return (
        Ok("; ".join(fine) + ".")
        if fine
        else Unknown("/sys shows no link width for the card (it is asleep or virtual).")
    )


def _lanes(pcie: str | None) -> int | None:
    """`4.0 x8` is 8."""
    lanes = (pcie or "").rpartition("x")[2].strip()
    return int(lanes) if lanes.isdecimal() else None


@check(
    "gpu.link-speed",
    "The slot supports the card's PCI Express generation",
    about="An older slot, a riser or a BIOS setting can limit the link to a lower generation. Idle cards lower their "
    "link speed, so the current speed counts only while the card is busy. When idle, the slot's maximum is compared "
    "with the card's; a difference is informational only. From /sys, for the ports between CPU and card, and the load "
    "from NVML.",
    by_hand="Set the slot to Auto or the card's generation in the BIOS, remove the riser, reseat the card. Check again "
    "during a run: `cat /sys/bus/pci/devices/SLOT/current_link_speed`.",
    needs=(needs.CARD,),
)
def link_speed(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.os.virtualisation != "none":
        return Skip("The ports of a virtual machine or container do not show the speed of the real slot.")
    findings: list[Finding] = []
    fine = []
    for card in ours:
        limits = [p.link.max_speed for p in card.bridges or () if p.link is not None and p.link.max_speed]
        if card.link is None or not card.link.max_speed or not limits:
            continue
        able = min(card.link.max_speed, *limits)
        gpu = cards.nvml_of(card, host)
        load = (gpu.utilisation if gpu else None) or 0
        seen: list[Seen] = [
            (_sysfs(card.slot, "current_link_speed"), f"{card.link.speed} GT/s"),
            ("slowest link's max_link_speed", f"{able} GT/s; the card's {card.link.max_speed} GT/s"),
        ]
        if load >= _BUSY and card.link.speed and card.link.speed * 2 <= able and card.link.speed <= 5:
            findings.append(
                warning(
                    cards.subject(card, catalogue),
                    f"The card is busy, but its link runs at {_generation(card.link.speed)} instead of "
                    f"{_generation(able)}.",
                    "The link does not reach its full speed: loading, offloading and multi-GPU training are slower.",
                    [*seen, ("NVML utilisation", f"{load} %")],
                    hardware(
                        "Reseat the card, remove the riser, set the slot's generation in the BIOS, update the BIOS."
                    ),
                )
            )
        elif able < card.link.max_speed:
            findings.append(
                info(
                    cards.subject(card, catalogue),
                    f"The slot supports {_generation(able)}, the card {_generation(card.link.max_speed)}.",
                    "Loading and offloading are slower; training on one card is hardly affected.",
                    seen,
                    hardware(
                        "Nothing to do: the card is external."
                        if external(card, host)
                        else "Use a slot of the card's generation if the mainboard has one; otherwise nothing to do."
                    ),
                )
            )
        else:
            fine.append(_generation(able))
    if findings:
        return tuple(findings)
    return (
        Ok(f"The links to the card support {', '.join(fine)}.")
        if fine
        else Skip("/sys does not show the PCI ports of the card.")
    )


def _generation(speed: float) -> str:
    return f"PCIe {_GENERATIONS[speed]}.0" if speed in _GENERATIONS else f"{speed} GT/s"
