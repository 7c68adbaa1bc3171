"""The card's PCI Express link: address space, errors, and whether the card still responds."""

from __future__ import annotations

from collections.abc import Iterator

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import error, firmware, hardware, info, reboot, warning

# size of the memory window while Resizable BAR is off
SMALL_BAR = 256 << 20
# a good link has almost no errors to correct; a few after a wake-up are normal
MANY_CORRECTED = 100
_PLACE = r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}"


def _sysfs(slot: str, file: str) -> str:
    return f"/sys/bus/pci/devices/{slot}/{file}"


@check(
    "gpu.rebar",
    "Resizable BAR is on",
    about="With Resizable BAR the CPU can access all of the card's memory instead of 256 MiB. It makes loading "
    "slightly faster and has no other effect, so it is informational only.",
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
                    firmware(
                        "Enable Above 4G Decoding and Resizable BAR in the BIOS; have the disk's recovery key ready."
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
                    firmware("Enable Above 4G Decoding in the BIOS."),
                )
            )
    return tuple(findings) or Ok("The kernel has mapped all of the card's memory.")


@check(
    "gpu.aer",
    "The PCI Express link works without errors",
    about="The link corrects bit errors by sending again, and counts them in aer_dev_correctable of the card and of "
    "the port it is attached to. A few errors after a wake-up are normal. A hundred or more point to a bad riser, slot "
    "or cable; such a card can fall off the bus later.",
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
    if not counted:
        return Skip("The kernel counts no PCI Express errors for the card (AER is off or handled by the firmware).")
    findings = [
        warning(
            cards.subject(card, catalogue),
            f"The card's PCI Express link has corrected {count} errors since boot"
            + (f" (counted by its port {slot})." if slot != card.slot else "."),
            "Each error causes a retransmission; cards with such a link can fall off the bus.",
            [(_sysfs(slot, "aer_dev_correctable"), count)],
            hardware("Reseat the card, remove the riser, or set a lower PCIe generation for the slot in the BIOS."),
        )
        for card, slot, count in counted
        if count >= MANY_CORRECTED
    ]
    return tuple(findings) or Ok(f"{sum(count for *_, count in counted)} corrected errors since boot.")


@check(
    "gpu.fell-off-bus",
    "The card has not fallen off the PCI bus",
    about="A card that stops responding returns only ones: Xid 79, `GPU has fallen off the bus`, PCI revision ff, "
    "NVML's `GPU is lost`. Usual causes are power, riser, heat or the mainboard, rarely software. Decided from the "
    "kernel log, the PCI configuration and NVML.",
    by_hand="Power the machine off and on (a reboot may not be enough). If it happens again: a separate power cable "
    "from the supply for each plug, no riser, `sudo nvidia-smi -lgc 300,1500` as a test, a lower PCIe generation in "
    "the BIOS.",
)
def fell_off_bus(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    lost: dict[str, list[tuple[str, object]]] = {}
    for place, line in _lost_lines(host.kernel.log or ()):
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
                hardware("Power the machine off and on; then check the card's power cables, riser and slot."),
            )
            for slot, seen in lost.items()
        )
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the card has fallen off the bus since boot")
    return Ok("No card has fallen off the bus since boot.")


def _lost_lines(log: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Address and line of each report. Drivers from 570 on use several lines: the address is in the first."""
    address = ""
    for line, match in kernel_log.matching_lines(
        log, "nvrm", rf"Xid \((?:PCI:)?({_PLACE}\S*)\): 79\b|(?:GPU (?:at )?(?:PCI:)?({_PLACE}))|(fallen off the bus)"
    ):
        if match[1]:
            yield cards.bus_address(match[1].rstrip(")")), line
            continue
        address = cards.bus_address(match[2]) if match[2] else address
        if address and "fallen off the bus" in line:
            yield address, line
    for line, match in kernel_log.matching_lines(log, "device lost", rf"amdgpu ({_PLACE})\S* .*device lost from bus"):
        yield cards.bus_address(match[1]), line


@check(
    "gpu.power-state",
    "The card wakes up from sleep (D3cold)",
    about="Idle cards sleep in power state D3cold. Some do not wake up again: the kernel then logs `Unable to change "
    "power state from D3cold to D0, device inaccessible`. A card that is only asleep is no problem, and this check "
    "does not wake it.",
    by_hand="`echo on | sudo tee /sys/bus/pci/devices/SLOT/power/control` keeps it awake until the next boot; `options "
    "nvidia NVreg_DynamicPowerManagement=0x00` in /etc/modprobe.d does so permanently. Update the BIOS.",
    needs=(needs.CARD,),
)
def power_state(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the card woke up each time")
    # kernels before 6.0 write `can't`; in D3hot the slot's power stays on
    sleep = r"(?:Unable to|can't) change power state from D3(?:cold|hot) to D0"
    pattern = rf"([0-9a-f]{{4}}:[0-9a-f]{{2}}:[0-9a-f]{{2}}\.[0-7]): {sleep}"
    lines: dict[str, list[str]] = {}
    for line, match in kernel_log.matching_lines(host.kernel.log, "change power state", pattern):
        lines.setdefault(match[1], []).append(line)
    findings = [
        error(
            cards.subject(card, catalogue),
            "The card did not wake up from D3cold.",
            "It is inaccessible until the machine is rebooted.",
            kernel_log.quote(lines[card.slot]),
            reboot("Reboot; then keep the card awake: gpu-setup doctor --explain gpu.power-state."),
        )
        for card in ours
        if card.slot in lines
    ]
    asleep = [card.slot for card in ours if card.power_state == "D3cold"]
    return tuple(findings) or Ok(
        f"{', '.join(asleep)} is asleep; that is no problem." if asleep else "No wake-up has failed since boot."
    )
