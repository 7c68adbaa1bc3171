"""The card's PCI Express link: address space, errors, and whether the card still responds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from checks.catalogue import Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import error, firmware, hardware, info, reboot, warning
from checks.rules.gpu.place import fitting

# size of the memory window while Resizable BAR is off
SMALL_BAR = 256 << 20
# a good link has almost no errors to correct; a few after a wake-up are normal
MANY_CORRECTED = 100
# one or two after a wake-up are normal
MANY_LOGGED = 3
_FUNCTION = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
# drivers/pci/pcie/aer.c: each error at the device that had it, and at the root port that heard of it. A word to search
# for first, and a pattern. Kernels from 6.11 on write `AER: ` before each.
_CORRECTED = ("severity=correct", r"(?:AER: )?PCIe Bus Error: severity=Correct")
_CORRECTED_AT_ROOT = ("aer: ", r"AER: (?:Multiple )?Correct(?:ed|able) error")
_FATAL = (
    ("(fatal)", r"(?:AER: )?PCIe Bus Error: severity=Uncorrect\w+ \(Fatal\)"),
    ("(fatal)", r"AER: (?:Multiple )?Uncorrect\w+ \(Fatal\)"),
)
_UNCORRECTED = (
    ("(non-fatal)", r"(?:AER: )?PCIe Bus Error: severity=Uncorrect"),
    ("recover", r"AER: (?:device recovery failed|can't recover)"),
    ("dpc: ", r"DPC: containment event"),
    ("retraining", r"(?:broken device, retraining|retraining failed)"),
)
_BETTER_LINK = "Reseat the card, remove the riser, or set a lower PCIe generation for the slot in the BIOS."
_PLACE = r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}"


def _sysfs(slot: str, file: str) -> str:
    return f"/sys/bus/pci/devices/{slot}/{file}"


@check(
    "gpu.rebar",
    "Resizable BAR is on",
    about="With Resizable BAR the CPU can access all of the card's memory instead of 256 MiB. It makes loading "
    "slightly faster, so it is informational only; where a mapping does not fit into the window, gpu.xid says so.",
    by_hand="In the BIOS enable Above 4G Decoding and Resizable BAR (Smart Access Memory). If the disk is encrypted "
    "with a key in the TPM, have the recovery key ready: after a firmware change you may be asked for it.",
    needs=(needs.CARD,),
)
def rebar(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    findings: list[Finding] = []
    known = 0
    for card in ours:
        amd = cards.amd_of(card, host)
        largest = max(card.bar_bytes or (), default=None)
        if amd is not None and amd.vram_visible and amd.vram_total:
            known += 1
            small = amd.vram_visible < amd.vram_total
            seen = (_sysfs(card.slot, "mem_info_vis_vram_total"), f"{amd.vram_visible / 2**20:.0f} MiB")
        elif largest is not None:
            known += 1
            small = largest <= SMALL_BAR
            seen = (_sysfs(card.slot, "resource"), f"largest region {largest / 2**20:.0f} MiB")
        else:
            continue
        if small:
            findings.append(
                info(
                    cards.subject(card, catalogue),
                    "Resizable BAR is off.",
                    "The CPU accesses the card's memory through a small window, so loading is slightly slower.",
                    [seen],
                    fitting(
                        firmware(
                            "Enable Above 4G Decoding and Resizable BAR in the BIOS; have the disk's recovery key "
                            "ready."
                        ),
                        host,
                        card,
                    ),
                )
            )
    if findings:
        return tuple(findings)
    return Ok("The CPU can access all of the card's memory.") if known else Unknown("/sys shows no BAR sizes.")


@check(
    "gpu.bar-space",
    "The card's memory (PCI BARs) is mapped",
    about="Without Above 4G Decoding the BIOS cannot map the memory windows (BARs) of a large card; the kernel logs "
    "`can't assign; no space` for the card's BAR, and the driver stops with `RmInitAdapter failed`. Decided by kernel "
    "messages with the card's own address.",
    by_hand="In the BIOS enable Above 4G Decoding. If there is no such setting, add `pci=realloc` to "
    "GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, run `sudo update-grub` and reboot.",
    needs=(needs.CARD,),
)
def bar_space(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the card's memory was mapped")
    # the kernel retries after a failure: only its last message about a window counts. I/O ports, the ROM (6) and
    # the windows of virtual functions (`VF BAR`) are not needed.
    pattern = (
        r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): BAR ([0-5])\b(?=.*\[mem).*?(no space|failed to assign|assigned)"
    )
    last: dict[tuple[str, str], tuple[str, str]] = {}
    for line, match in kernel_log.matching_lines(host.kernel.log, "bar ", pattern):
        last[match[1], match[2]] = (match[3], line)
    # NVIDIA's message about such a window
    invalid = r"NVRM: BAR([0-5]) is 0M @ 0x0 \(PCI:([0-9a-f:.]+)\)"
    for line, match in kernel_log.matching_lines(host.kernel.log, "is 0m @", invalid):
        last[match[2], match[1]] = ("invalid", line)
    findings = []
    for card in ours:
        # a size in /sys means that the window is mapped now, whatever the log says about earlier attempts
        placed = {str(number) for number, size in enumerate(card.bar_bytes or ()) if size}
        failed = {
            number: line for (slot, number), (end, line) in last.items() if slot == card.slot and end != "assigned"
        }
        lines = [line for number, line in failed.items() if number not in placed]
        if lines:
            findings.append(
                error(
                    cards.subject(card, catalogue),
                    "The kernel could not map the card's memory: no space in the PCI address range.",
                    "The driver cannot initialise the card without it.",
                    kernel_log.quote(lines),
                    fitting(firmware("Enable Above 4G Decoding in the BIOS."), host, card),
                )
            )
    return tuple(findings) or Ok("The kernel has mapped all of the card's memory.")


@check(
    "gpu.aer",
    "The PCI Express link works without errors",
    about="The link corrects bit errors by sending again, and counts them in aer_dev_correctable of the card and of "
    "the port it is attached to. A few errors after a wake-up are normal. A hundred or more point to a bad riser, slot "
    "or cable; such a card can fall off the bus later. Some boards count nothing, so the kernel log's lines about "
    "the card and its ports count as well: three corrected errors, or one that could not be corrected.",
    by_hand="Reseat the card, remove the riser, and if that does not help set the slot to a lower PCIe generation in "
    "the BIOS. Compare `cat /sys/bus/pci/devices/SLOT/aer_dev_correctable` before and after a run.",
    needs=(needs.CARD,),
)
def aer(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    counted = [
        (card, slot, count)
        for card in ours
        # the port at the other end of the link counts what it received
        for slot, count in (
            (card.slot, card.aer_correctable),
            *((port.slot, port.aer_correctable) for port in (card.bridges or ())[:1]),
        )
        if count is not None
    ]
    logged = [finding for card in ours if (finding := _logged_errors(host, catalogue, card)) is not None]
    if not counted and not logged:
        return Skip("The kernel counts no PCI Express errors for the card (AER is off or handled by the firmware).")
    in_log = {finding.subject for finding in logged}
    findings = [
        warning(
            cards.subject(card, catalogue),
            f"The card's PCI Express link has corrected {count} errors since boot"
            + (f" (counted by its port {slot})." if slot != card.slot else "."),
            "Each error causes a retransmission; cards with such a link can fall off the bus.",
            [(_sysfs(slot, "aer_dev_correctable"), count)],
            fitting(hardware(_BETTER_LINK), host, card),
        )
        for card, slot, count in counted
        if count >= MANY_CORRECTED and cards.subject(card, catalogue) not in in_log
    ]
    return (*logged, *findings) or Ok(f"{sum(count for *_, count in counted)} corrected errors since boot.")


def _logged_errors(host: Host, catalogue: Catalogue, card: PciCard) -> Finding | None:
    """What the kernel logged about the card's functions and the ports above it (drivers/pci/pcie/aer.c, dpc.c)."""
    chain = {cards.bus_address(card.slot), *(cards.bus_address(port.slot) for port in card.bridges or ())}

    def lines(*kinds: tuple[str, str]) -> list[str]:
        return [
            line
            for word, pattern in kinds
            for line, match in kernel_log.matching_lines(host.kernel.log or (), word, rf"({_FUNCTION}): {pattern}")
            if {cards.bus_address(place) for place in re.findall(_FUNCTION, line)} <= chain
        ]

    fatal, bad = lines(*_FATAL), lines(*_UNCORRECTED)
    corrected = max(lines(_CORRECTED), lines(_CORRECTED_AT_ROOT), key=len)
    if not fatal and not bad and len(corrected) < MANY_LOGGED:
        return None
    times = kernel_log.times(len(corrected))
    return (error if fatal else warning)(
        cards.subject(card, catalogue),
        "The card's PCI Express link had errors that could not be corrected."
        if fatal or bad
        else f"The kernel has logged {times} since boot that the card's PCI Express link corrected errors.",
        "Data between CPU and card were lost; the card can hang or fall off the bus."
        if fatal or bad
        else "Each error causes a retransmission; cards with such a link can fall off the bus. The counters in /sys "
        "may show 0 all the same.",
        kernel_log.quote([*fatal, *bad] or corrected),
        fitting(hardware(_BETTER_LINK), host, card),
    )


@check(
    "gpu.fell-off-bus",
    "The card has not fallen off the PCI bus",
    about="A card that stops responding returns only ones: Xid 79, `GPU has fallen off the bus`, PCI revision ff, "
    "NVML's `GPU is lost`, or a port that reports `Card not present` under a card. Usual causes are power, riser, heat "
    "or the mainboard, rarely software. Decided from the kernel log, the PCI configuration and NVML.",
    by_hand="Power off the machine and start it again (a reboot may not be enough). If it happens again: a separate "
    "power cable from the supply for each plug, no riser, `sudo nvidia-smi -lgc 300,1500` as a test, a lower PCIe "
    "generation in the BIOS.",
)
def fell_off_bus(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    lost: dict[str, list[tuple[str, object]]] = {}
    for place, line in (*_lost_lines(host), *_gone_from_port(host)):
        # a card that is no longer on the bus counts, one that is not for training does not
        if (card_there := cards.card_at(place, host.cards or ())) is None or card_there in ours:
            lost.setdefault(place, []).append((kernel_log.SOURCE, line.strip()))
    if not ours and not lost:
        return Skip(cards.none_of(host, catalogue))
    for card in ours:
        gpu = cards.nvml_of(card, host)
        # ff is a real revision of AMD boards (RX 7700 XT), never of NVIDIA's
        if card.vendor == cards.NVIDIA and card.revision == "ff":
            lost.setdefault(cards.bus_address(card.slot), []).append((_sysfs(card.slot, "revision"), "ff"))
        if gpu is not None and gpu.problem and "lost" in gpu.problem.lower():
            lost.setdefault(cards.bus_address(card.slot), []).append(("NVML", gpu.problem))
    # a lost card has no address in NVML: it is the one that is missing from the list
    without_address = [gpu for gpu in host.nvidia.nvml or () if gpu.slot is None and "lost" in (gpu.problem or "")]
    unlisted = [card for card in ours if card.vendor == cards.NVIDIA and cards.nvml_of(card, host) is None]
    if without_address and len(unlisted) == len(without_address):
        for card in unlisted:
            lost.setdefault(cards.bus_address(card.slot), []).append(("NVML", without_address[0].problem))
    if lost:
        return tuple(
            error(
                cards.subject_at(slot, host, catalogue),
                "The card has fallen off the PCI Express bus.",
                "It no longer responds; every program that uses it hangs or fails until the machine is power-cycled.",
                seen[-4:],
                fitting(
                    hardware(
                        "Power off the machine and start it again; then check the card's power cables, riser and slot."
                    ),
                    host,
                    cards.card_at(slot, host.cards or ()),
                ),
            )
            for slot, seen in lost.items()
        )
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the card has fallen off the bus since boot")
    return Ok("No card has fallen off the bus since boot.")


def _lost_lines(host: Host) -> Iterator[tuple[str, str]]:
    """Address and line of each report. Drivers from 570 on use several lines: the address is in the first."""
    log = host.kernel.log or ()
    ours = [card for card in host.cards or () if card.vendor == cards.NVIDIA]
    address = cards.bus_address(ours[0].slot) if len(ours) == 1 else ""
    for line, match in kernel_log.matching_lines(
        log,
        "nvrm",
        rf"Xid \((?:PCI:)?({_PLACE}\S*)\): 79\b|(?:GPU (?:at )?(?:PCI:)?({_PLACE}))|"
        r"(fallen off the bus|lost from the bus)",
    ):
        if match[1]:
            yield cards.bus_address(match[1].rstrip(")")), line
            continue
        address = cards.bus_address(match[2]) if match[2] else address
        if address and "the bus" in line:
            yield address, line
    for line, match in kernel_log.matching_lines(log, "device lost", rf"amdgpu ({_PLACE})\S* .*device lost from bus"):
        yield cards.bus_address(match[1]), line


def _gone_from_port(host: Host) -> Iterator[tuple[str, str]]:
    """A port's last word is that its card is gone: of a card below it, or of one that a driver had and the bus lost.

    A port says so too while it finds a card at boot, and after a card was unplugged on purpose; then no driver of a
    GPU had the card, or it is back.
    """
    log = host.kernel.log or ()
    last: dict[str, tuple[str, str]] = {}
    pattern = rf"({_FUNCTION}): pciehp: Slot\([^)]*\): (Card not present|Link Down|Card present|Link Up)"
    for line, match in kernel_log.matching_lines(log, "pciehp", pattern):
        # `Link Down` is followed by `Card not present`, where the port can tell
        last[match[1]] = (match[2], line)
    gone = {port: line for port, (end, line) in last.items() if end in ("Card not present", "Link Down")}
    if not gone:
        return
    for card in host.cards or ():
        for port in card.bridges or ():
            if port.slot in gone and card.driver not in cards.RESERVED:
                yield cards.bus_address(card.slot), gone[port.slot]
    owned = rf"(?:NVRM: GPU at PCI:|nvidia |amdgpu |\[drm\] Initialized \S+ \S+ for )({_PLACE})"
    seen = [cards.bus_address(match[1]) for _, match in kernel_log.matching_lines(log, "", owned)]
    for place in dict.fromkeys(seen):
        if cards.card_at(place, host.cards or ()) is None:
            yield place, next(iter(gone.values()))


@check(
    "gpu.power-state",
    "The card wakes up from sleep (D3hot, D3cold)",
    about="Idle cards sleep in power state D3hot or D3cold. Some do not wake up again: the kernel then logs `Unable to "
    "change power state from D3cold to D0, device inaccessible`. A card that is only asleep is no problem, and this "
    "check does not wake it.",
    by_hand="`echo on | sudo tee /sys/bus/pci/devices/SLOT/power/control` keeps it awake until the next boot. To keep "
    "it awake permanently: on AMD add `amdgpu.runpm=0` to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub and run "
    "`sudo update-grub`; on NVIDIA put `options nvidia NVreg_DynamicPowerManagement=0x00` into /etc/modprobe.d and run "
    "`sudo update-initramfs -u`. Update the BIOS.",
    needs=(needs.CARD,),
)
def power_state(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the card woke up each time")
    # kernels before 6.0 write `can't`, before 5.4 `Refused to`; in D3hot the slot's power stays on
    sleep = r"(?:Unable to|can't|Refused to) change power state(?: from|, currently in) (D3cold|D3hot|D3)\b"
    pattern = rf"([0-9a-f]{{4}}:[0-9a-f]{{2}}:[0-9a-f]{{2}}\.[0-7]): {sleep}"
    lines: dict[str, list[tuple[str, str]]] = {}
    for line, match in kernel_log.matching_lines(host.kernel.log, "change power state", pattern):
        lines.setdefault(match[1], []).append((match[2], line))
    findings = [
        _not_awake(host, catalogue, card, lines)
        for card in ours
        if any(slot in lines for slot in (card.slot, *(port.slot for port in card.bridges or ())))
    ]
    asleep = [card.slot for card in ours if card.power_state == "D3cold"]
    return tuple(findings) or Ok(
        f"{', '.join(asleep)} is asleep; that is no problem." if asleep else "No wake-up has failed since boot."
    )


def _not_awake(host: Host, catalogue: Catalogue, card: PciCard, lines: dict[str, list[tuple[str, str]]]) -> Finding:
    above = [port.slot for port in (card.bridges or ())[::-1]]
    own = lines.get(card.slot, [])
    states = dict.fromkeys(state for state, _ in own or [each for slot in above for each in lines.get(slot, [])])
    ports = [line for slot in above for _, line in lines.get(slot, [])[:1]]
    lasting = (
        "add amdgpu.runpm=0 to the kernel command line (/etc/default/grub, then sudo update-grub)"
        if card.vendor == cards.AMD
        else "put `options nvidia NVreg_DynamicPowerManagement=0x00` into /etc/modprobe.d/nvidia-power.conf and run "
        "sudo update-initramfs -u"
    )
    return error(
        cards.subject(card, catalogue),
        f"The card did not wake up from {' and '.join(states)}.",
        "It is inaccessible until the machine is rebooted, and the same can happen at the next idle time.",
        kernel_log.quote([*ports[:2], *(line for _, line in own)], 4),
        reboot(
            f"Reboot. To keep the card awake from then on, {lasting}; or until the next boot: echo on | sudo tee "
            f"/sys/bus/pci/devices/{card.slot}/power/control"
        ),
    )
