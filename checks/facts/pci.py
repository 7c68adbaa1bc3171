"""Graphics cards and accelerators on the PCI bus, from sysfs. Sleeping cards are not woken."""

from __future__ import annotations

import re

import msgspec

from checks.facts.gaps import Gaps, exists, names, target, text, whole_number, word
from checks.facts.host import Bridge, KfdNode, Link, NvmlGpu, PciCard
from machine.local import Machine
from machine.patterns import lazy_pattern

DEVICES = "/sys/bus/pci/devices"
DRM = "/sys/class/drm"
SLOT = lazy_pattern(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# PCI base classes: display controllers (VGA 00, 3D 02, other 80) and processing accelerators
_CLASSES = ("03", "12")
# vendors whose cards can train: the ports up to the CPU are read only for these
TRAINERS = ("10de", "1002")
# sysfs' `removable` since kernel 5.13: only below ports that the firmware marks as external
_EXTERNAL = {"removable": True, "fixed": False}


def parse_hex(content: str | None, digits: int) -> str | None:
    """sysfs ids: `0x10de` → `10de`."""
    match = re.fullmatch(r"0x([0-9a-f]+)", (content or "").strip().lower())
    return match[1].rjust(digits, "0") if match and len(match[1]) <= digits else None


def parse_speed(content: str | None) -> float | None:
    """`16.0 GT/s PCIe` → 16.0; `Unknown` → None."""
    match = re.match(r"\s*([0-9]{1,4}(?:\.[0-9]+)?) GT/s", content or "")
    return float(match[1]) if match else None


def parse_bars(content: str) -> tuple[int, ...]:
    """Sizes of the six base address registers, 0 for an unused one (lines `start end flags` of sysfs `resource`)."""
    sizes = []
    for line in content.splitlines()[:6]:
        try:
            start, end, _ = (int(part, 16) for part in line.split())
        except ValueError:
            break
        sizes.append(end - start + 1 if 0 <= start < end < 1 << 64 else 0)
    return tuple(sizes)


def parse_aer(content: str) -> int | None:
    """The sum in aer_dev_correctable."""
    match = re.search(r"^TOTAL_ERR_COR ([0-9]{1,20})$", content, re.MULTILINE)
    return int(match[1]) if match else None


def read_cards(machine: Machine, gaps: Gaps) -> tuple[PciCard, ...] | None:
    """None when the bus cannot be listed; a machine without a PCI bus has no cards."""
    slots = names(machine, DEVICES, gaps)
    if slots is None:
        return None
    connected = _connectors(machine, gaps)
    cards = (_card(machine, slot, connected, gaps) for slot in slots if SLOT.fullmatch(slot))
    return tuple(card for card in cards if card is not None)


def as_reported(
    cards: tuple[PciCard, ...] | None, gpus: tuple[NvmlGpu, ...], nodes: tuple[KfdNode, ...]
) -> tuple[PciCard, ...] | None:
    """The cards with what their drivers say they are; a value of another form is damaged, and left out."""
    said = {
        _place(gpu.slot): (_form(r"[1-9][0-9]?\.[0-9]", gpu.compute_capability), gpu.name) for gpu in gpus if gpu.slot
    }
    said.update(
        {_place(node.slot): (_form(r"gfx[1-9][0-9]?[0-9a-f]{2}", node.gfx), None) for node in nodes if node.slot}
    )
    return cards and tuple(
        msgspec.structs.replace(card, reported_target=said[place][0], reported_name=said[place][1])
        if (place := _place(card.slot)) in said
        else card
        for card in cards
    )


def _form(pattern: str, value: str | None) -> str | None:
    return value if value and re.fullmatch(pattern, value) else None


def _place(slot: str) -> str:
    """Bus and device: NVML writes a domain of eight digits (00000000:01:00.0), the kernel one of four."""
    return slot.lower()[-12:].partition(".")[0]


def asleep(machine: Machine, vendor: str, gaps: Gaps) -> bool:
    """Whether the vendor has cards here and each is in D3cold: a query of their driver would wake them."""
    states = []
    for slot in names(machine, DEVICES, gaps) or ():
        at = f"{DEVICES}/{slot}"
        if (
            SLOT.fullmatch(slot)
            and (parse_hex(word(machine, f"{at}/class", gaps), 6) or "")[:2] in _CLASSES
            and parse_hex(word(machine, f"{at}/vendor", gaps), 4) == vendor
        ):
            states.append(word(machine, f"{at}/power_state", gaps))
    return bool(states) and set(states) == {"D3cold"}


def _card(machine: Machine, slot: str, connected: dict[str, tuple[str, ...]], gaps: Gaps) -> PciCard | None:
    at = f"{DEVICES}/{slot}"
    class_code = _id(machine, f"{at}/class", 6, gaps)
    if class_code is None or class_code[:2] not in _CLASSES:
        return None
    vendor, device = (_id(machine, f"{at}/{name}", 4, gaps) for name in ("vendor", "device"))
    if vendor is None or device is None:
        return None
    subsystem = [parse_hex(word(machine, f"{at}/subsystem_{name}", gaps), 4) for name in ("vendor", "device")]
    driver = target(machine, f"{at}/driver", gaps)
    power = word(machine, f"{at}/power_state", gaps)
    boot_vga = whole_number(machine, f"{at}/boot_vga", gaps)
    bars = text(machine, f"{at}/resource", gaps)
    group = (target(machine, f"{at}/iommu_group", gaps) or "").rpartition("/")[2]
    return PciCard(
        slot=slot,
        vendor=vendor,
        device=device,
        revision=parse_hex(word(machine, f"{at}/revision", gaps), 2),
        subsystem=":".join(filter(None, subsystem)) if None not in subsystem else None,
        class_code=class_code,
        driver=driver.rpartition("/")[2] if driver else None,
        boot_vga=None if boot_vga is None else boot_vga == 1,
        power_state=power,
        # the link's files read the card's configuration space, which wakes a card in D3cold (or shows ones)
        link=None if power == "D3cold" else _link(machine, at, gaps),
        bar_bytes=parse_bars(bars) if bars else None,
        aer_correctable=parse_aer(text(machine, f"{at}/aer_dev_correctable", gaps) or ""),
        connectors_connected=connected.get(slot),
        bridges=_bridges(machine, slot, gaps) if vendor in TRAINERS and power != "D3cold" else None,
        external=_EXTERNAL.get(word(machine, f"{at}/removable", gaps) or "") if vendor in TRAINERS else None,
        iommu_group_type=word(machine, f"/sys/kernel/iommu_groups/{group}/type", gaps) if group.isdigit() else None,
    )


def _id(machine: Machine, path: str, digits: int, gaps: Gaps) -> str | None:
    """A number that every PCI device has: without it a card would vanish without a word."""
    found = parse_hex(word(machine, path, gaps), digits)
    if found is None and not exists(machine, path):
        gaps.note(path, "damaged: it is missing, although every PCI device has it")
    return found


def _link(machine: Machine, at: str, gaps: Gaps) -> Link | None:
    speed, most = (parse_speed(word(machine, f"{at}/{name}_link_speed", gaps)) for name in ("current", "max"))
    width, widest = (whole_number(machine, f"{at}/{name}_link_width", gaps) for name in ("current", "max"))
    # 255 lanes is what sysfs shows for "unknown" (PCI_EXP_LNKSTA of ones)
    width, widest = (None if lanes in (0, 255) else lanes for lanes in (width, widest))
    if (speed, most, width, widest) == (None, None, None, None):
        return None
    return Link(speed=speed, width=width, max_speed=most, max_width=widest)


def parse_bridges(link: str) -> tuple[str, ...]:
    """The bridges in a device's sysfs path (`../../../devices/pci0000:00/0000:00:01.0/0000:01:00.0`), nearest first."""
    steps = [step for step in link.split("/") if SLOT.fullmatch(step)]
    return tuple(steps[-2::-1])


def _bridges(machine: Machine, slot: str, gaps: Gaps) -> tuple[Bridge, ...] | None:
    way = target(machine, f"{DEVICES}/{slot}", gaps)
    if way is None:
        return None
    return tuple(
        Bridge(
            slot=place,
            link=_link(machine, f"{DEVICES}/{place}", gaps),
            aer_correctable=parse_aer(text(machine, f"{DEVICES}/{place}/aer_dev_correctable", gaps) or ""),
        )
        for place in parse_bridges(way)
    )


def _connectors(machine: Machine, gaps: Gaps) -> dict[str, tuple[str, ...]]:
    """PCI address → connectors with a monitor; only for cards that are bound to a display driver."""
    found: dict[str, tuple[str, ...]] = {}
    entries = names(machine, DRM, gaps) or ()
    for card in entries:
        if not re.fullmatch(r"card[0-9]+", card):
            continue
        slot = slot_of(machine, card, gaps)
        if slot is None:
            continue
        plugs = [name.partition("-")[2] for name in entries if name.startswith(f"{card}-")]
        found[slot] = tuple(p for p in plugs if word(machine, f"{DRM}/{card}-{p}/status", gaps) == "connected")
    return found


def slot_of(machine: Machine, node: str, gaps: Gaps) -> str | None:
    """The PCI address behind /sys/class/drm/NODE."""
    slot = (target(machine, f"{DRM}/{node}/device", gaps) or "").rpartition("/")[2]
    return slot if SLOT.fullmatch(slot) else None
