"""The slot: does the whole way from the processor to the card have its lanes and its generation?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import Seen, hardware, info, warning

# GT/s of PCI Express generations 1 to 6
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
# a card that is this busy has left its idle state
_BUSY = 50


def _sysfs(slot: str, file: str) -> str:
    return f"/sys/bus/pci/devices/{slot}/{file}"


def _widths(host: Host, card: PciCard) -> list[tuple[str, int]]:
    """Lanes in use at each step of the way. A virtual machine's ports are make-believe, so there only the card's."""
    way = [(card.slot, card.link), *((port.slot, port.link) for port in card.bridges or ())]
    if host.os.virtualisation != "none":
        way = way[:1]
    return [(slot, link.width) for slot, link in way if link is not None and link.width]


@check(
    "gpu.link-width",
    "The card has all its PCI Express lanes",
    about="A x16 card in a slot with four lanes, on a poor riser or with dirty contacts loads data and offloads "
    "slowly. Width does not drop when the card idles, so it can be judged at rest; speed does, so it is not "
    "judged. The narrowest step up to the processor counts: AMD cards bring a switch of their own and always look "
    "full behind it. A quarter of the lanes or less is a warning, half of them a note (usual with two cards).",
    by_hand="Look into the board's manual for the slot's lanes, put the card into the first slot, reseat it, leave "
    "out the riser, and check bifurcation in the BIOS.",
    needs=(needs.CARD,),
)
def link_width(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    fine = []
    for card in ours:
        row, steps = cards.known(card, catalogue), _widths(host, card)
        if card.link is None or not card.link.max_width or not steps:
            continue
        slot, width = min(steps, key=lambda step: step[1])
        able = min(card.link.max_width, _lanes(row.pcie if row else None) or card.link.max_width)
        if width >= able:
            fine.append(f"{cards.subject(card, catalogue)}: x{width}")
            continue
        findings.append(
            (warning if width * 4 <= able else info)(
                cards.subject(card, catalogue),
                f"The card runs on {width} of {able} PCI Express lanes.",
                "Loading the model, offloading and work on several cards are slower by that much; training on one card "
                "hardly is.",
                [
                    (_sysfs(slot, "current_link_width"), width),
                    (_sysfs(card.slot, "max_link_width"), card.link.max_width),
                ],
                hardware(
                    "Use the slot with all lanes (first one on most boards), reseat the card, leave out the riser."
                ),
            )
        )
    if findings:
        return tuple(findings)
    return Ok("; ".join(fine) + ".") if fine else Unknown("/sys shows no link width for the card (asleep, or virtual).")


def _lanes(pcie: str | None) -> int | None:
    """`4.0 x8` is 8."""
    lanes = (pcie or "").rpartition("x")[2].strip()
    return int(lanes) if lanes.isdecimal() else None


@check(
    "gpu.link-speed",
    "The slot is of the card's PCI Express generation",
    about="An older slot, a riser or a BIOS setting holds the link to a lower generation. Idle cards lower their "
    "link by themselves, so the speed counts only while the card is busy; at rest the slot's own limit is compared "
    "with the card's, and only said. From /sys, for the ports between processor and card, and NVML's load.",
    by_hand="Set the slot to Auto or the card's generation in the BIOS, leave out the riser, reseat the card. Look "
    "again during a run: `cat /sys/bus/pci/devices/SLOT/current_link_speed`.",
    needs=(needs.CARD,),
)
def link_speed(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.os.virtualisation != "none":
        return Skip("A virtual machine's or container's ports do not tell what the real slot can.")
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
            ("slowest step's max_link_speed", f"{able} GT/s; the card's {card.link.max_speed} GT/s"),
        ]
        if load >= _BUSY and card.link.speed and card.link.speed * 2 <= able and card.link.speed <= 5:
            findings.append(
                warning(
                    cards.subject(card, catalogue),
                    f"The card is busy, and its link runs at {_named(card.link.speed)} of {_named(able)}.",
                    "The link does not come up to speed: loading, offloading and several cards suffer.",
                    [*seen, ("NVML utilisation", f"{load} %")],
                    hardware("Reseat the card, leave out the riser, set the slot's generation in the BIOS, update it."),
                )
            )
        elif able < card.link.max_speed:
            findings.append(
                info(
                    cards.subject(card, catalogue),
                    f"The slot is {_named(able)}, the card {_named(card.link.max_speed)}.",
                    "Loading and offloading are that much slower; training on one card hardly is.",
                    seen,
                    hardware("Use a slot of the card's generation if the board has one, or leave it."),
                )
            )
        else:
            fine.append(_named(able))
    if findings:
        return tuple(findings)
    return (
        Ok(f"The way to the card is {', '.join(fine)}.") if fine else Skip("/sys does not show the ports to the card.")
    )


def _named(speed: float) -> str:
    return f"PCIe {_GENERATIONS[speed]}.0" if speed in _GENERATIONS else f"{speed} GT/s"
