"""Errors that the GPU drivers have logged since boot: NVIDIA's Xid numbers, and every other line that states one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue, Xid
from checks.facts.host import Host, PciCard
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards, driver_log, kernel_log, needs
from checks.rules.driver_log import Said
from checks.rules.finding import Seen, by_hand, error, firmware, hardware, info, reboot, warning
from checks.rules.gpu.link import SMALL_BAR
from checks.rules.gpu.place import LARGER_WINDOW, external, fitting, in_guest
from checks.rules.installed import nvidia_driver

# `NVRM: Xid (PCI:0000:01:00): 31, pid=…`; old drivers leave out `PCI:`
_XID = r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)"
_FELL_OFF, _ACTION_CHANGED, _PAGE_FAULT = 79, 154, 31
_GSP = (119, 120)
# `154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)`: the driver's own word
_ACTION = r"recovery action changed from .{0,40} to \S{1,12} \(([^)]{1,60})\)"
_NO_ACTION, _PEERS = "none", "drain p2p"
_NEEDS_RESET, _NEEDS_CARE = ("reset-gpu", "reboot"), ("workflow", "contact")
# the module was loaded again: that resets the card
_LOADED = r"NVRM: loading NVIDIA UNIX"
_NAME = r"\bname=([^,]{1,40}),"
# kernel/resource.c, when a mapping of the driver's is larger than the card's window
_PAST_BUS, _PAST_MAP = r"spans more than PCI Bus", r"mapping multiple BARs|Failed to map NvKmsKapiMemory"
_CATALOGUE = "Look up the number in NVIDIA's Xid catalogue: docs.nvidia.com/deploy/xid-errors."


class Event(NamedTuple):
    number: int
    line: str
    after_suspend: bool


@check(
    "gpu.xid",
    "The NVIDIA driver has reported no card errors (Xid)",
    about="The driver logs every card error with an Xid number in the kernel log. For each number the catalogue says "
    "whether hardware, driver or program causes it: a hardware fault is a failure, a number that a program causes is "
    "informational (unless several programs cause it, or it follows a suspend), every other number is a warning. Xid "
    "154 states what the driver asks for, such as a reboot, about the Xid before it. Xid 79 has its own check "
    "(gpu.fell-off-bus).",
    by_hand="Run `sudo journalctl -k -b | grep Xid`, then look up the number in NVIDIA's Xid catalogue "
    "(docs.nvidia.com/deploy/xid-errors). With 13, 31, 43 and 45 check the program first.",
    needs=(needs.NVIDIA_CARD,),
    causes=("gpu.fell-off-bus",),
)
def xid(host: Host, catalogue: Catalogue) -> Verdict:
    if not nvidia_driver(host):
        return Skip("Only the NVIDIA driver reports Xid errors, and it is not installed yet.")
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the driver reported Xid errors")
    loaded = [line for line, _ in kernel_log.matching_lines(host.kernel.log, "loading", _LOADED)]
    log = host.kernel.log[_place(host.kernel.log, loaded[-1:]) :]
    suspends = kernel_log.matching_lines(log, "pm: suspend", r"PM: suspend exit")
    # lines are in the order of time; without a suspend none is after it
    awake = _place(log, [suspends[0][0]]) if suspends else len(log)
    seen: dict[str, list[Event]] = {}
    for later, part in ((False, log[:awake]), (True, log[awake:])):
        for line, match in kernel_log.matching_lines(part, "xid", _XID):
            seen.setdefault(cards.bus_address(match[1]), []).append(Event(int(match[2]), line, later))
    known = {row.number: row for row in catalogue.xids}
    findings = [
        finding for slot, events in sorted(seen.items()) for finding in _of_card(host, catalogue, slot, events, known)
    ]
    if findings:
        return tuple(findings)
    numbers = sorted({event.number for events in seen.values() for event in events})
    return Ok(f"No Xid since boot except {', '.join(map(str, numbers))}." if numbers else "No Xid since boot.")


def _place(log: tuple[str, ...], found: list[str]) -> int:
    """Where the last of these lines is; 0 without any."""
    return max((number for number, line in enumerate(log) if line[: kernel_log.QUOTED] in found), default=0)


def _of_card(
    host: Host, catalogue: Catalogue, slot: str, events: list[Event], known: dict[int, Xid]
) -> Iterable[Finding]:
    """The findings about one card: first what the driver asks for, with the Xid that it is about."""
    subject, card = cards.subject_at(slot, host, catalogue), cards.card_at(slot, host.cards or ())
    past = _past_the_window(host, card)
    actions = [
        (number, match[1])
        for number, event in enumerate(events)
        if event.number == _ACTION_CHANGED
        for _, match in kernel_log.matching_lines([event.line], "recovery action", _ACTION)
    ]
    tied: int | None = None
    if actions and actions[-1][1].lower() == _NO_ACTION:
        # nothing is left to do about what came before, except for bad hardware
        over = events[: actions[-1][0]]
        events = [one for one in events if one not in over or ((row := known.get(one.number)) and row.hardware)]
    elif actions:
        place, action = actions[-1]
        before = [event for event in events[:place] if event.number != _ACTION_CHANGED]
        tied = before[-1].number if before else None
        row = known.get(tied) if tied else None
        yield _asked_for(host, subject, card, action, [*before[-1:], events[place]], row, past)
    for number in sorted({event.number for event in events} - {_FELL_OFF, _ACTION_CHANGED, tied}):
        same = [event for event in events if event.number == number]
        finding = _xid(subject, number, known.get(number), same)
        if number == _PAGE_FAULT and past:
            finding = _too_small(host, subject, card, finding.summary, same, past)
        yield msgspec.structs.replace(finding, fix=fitting(finding.fix, host, card)) if finding.fix else finding


def _past_the_window(host: Host, card: PciCard | None) -> list[str]:
    """The lines about a mapping that is larger than the card's window, where Resizable BAR is off."""
    kinds = (("spans", _PAST_BUS), ("map", _PAST_MAP)) if _small(card) else ()
    return [line for kind in kinds for line, _ in kernel_log.matching_lines(host.kernel.log or (), *kind)]


def _small(card: PciCard | None) -> bool:
    return 0 < max((card.bar_bytes if card else None) or (), default=0) <= SMALL_BAR


def _too_small(
    host: Host, subject: str, card: PciCard | None, summary: str, events: list[Event], past: list[str]
) -> Finding:
    return warning(
        subject,
        f"{summary.rstrip('.')}, after memory was mapped past the card's window.",
        "Resizable BAR is off, so the window (BAR1) has only 256 MiB. It is not the program's fault.",
        [*kernel_log.quote(past, 2), *kernel_log.quote([event.line for event in events], 1)],
        firmware("Enable Above 4G Decoding and Resizable BAR in the BIOS; have the disk's recovery key ready."),
    )


def _asked_for(
    host: Host,
    subject: str,
    card: PciCard | None,
    action: str,
    events: list[Event],
    row: Xid | None,
    past: list[str],
) -> Finding:
    """The driver's own word (Xid 154), the Xid before it, and what makes the window too small for a mapping."""
    cause = events[0].number if len(events) > 1 else None
    too_small = past if cause in (_PAGE_FAULT, None) else []
    why = "This is the driver's own word (Xid 154), whatever ran on the card; until then programs fail or hang."
    then = ""
    if too_small:
        why += " Resizable BAR is off: memory was mapped past the card's window of 256 MiB (BAR1)."
        then = " Then enable Above 4G Decoding and Resizable BAR in the BIOS, or it happens again."
    elif cause in _GSP:
        why += " The firmware on the card (GSP) had stopped responding: the card hung."
        then = " If it happens again, update the driver: gpu-setup plan."
    if external(card, host):
        why += f" The card is external (Thunderbolt){', with a small memory window (256 MiB)' * _small(card)}."
        then = (
            " If it happens again: try another Thunderbolt port and a short cable, update the firmware of enclosure "
            f"and computer and the driver; {LARGER_WINDOW}."
        )
    quoted = [*kernel_log.quote(too_small, 2), *kernel_log.quote([event.line for event in events], 2)]
    if _small(card) and card is not None:
        quoted.append((f"/sys/bus/pci/devices/{card.slot}/resource", "largest region 256 MiB"))
    after = f", after Xid {cause}{f': {row.meaning}' if row else ''}" if cause else ""
    summary = f"The driver asks for: {action} (Xid 154){after}."
    if action.lower() == _PEERS:
        text = "Stop the programs that use several cards together, then start them again."
        return warning(subject, summary, why, quoted, by_hand(text))
    guest = " This is a virtual machine: if that does not help, its host must reset the card." if in_guest(host) else ""
    now = "Reboot now." if "reboot" in action.lower() else "Stop all programs on the card, then reboot or reset it."
    return error(subject, summary, why, quoted, reboot(now + then + guest))


def _xid(subject: str, number: int, row: Xid | None, events: list[Event]) -> Finding:
    lines = [event.line for event in events]
    quoted = kernel_log.quote(lines)
    if row is None:
        why = "The driver reported an error of the card; what it means is in NVIDIA's catalogue."
        return warning(subject, f"Xid {number}, which is not in our catalogue.", why, quoted, by_hand(_CATALOGUE))
    times = f" ({kernel_log.times(len(lines))} since boot)" if len(lines) > 1 else ""
    summary = f"Xid {number}: {row.meaning}{times}."
    read = f" Advice: {row.reading}." if row.reading else ""
    if row.fix:
        return warning(subject, summary, f"The driver says: {row.reading}.", quoted, hardware(row.fix))
    if row.hardware:
        fix = hardware("Test the card in another machine or slot, and replace it if the same Xid appears again.")
        return error(subject, summary, f"The card reports a hardware fault; results can be wrong.{read}", quoted, fix)
    if row.action in (*_NEEDS_RESET, *_NEEDS_CARE):
        fix = reboot("Reboot the machine. If the same Xid appears again, update the driver: gpu-setup plan.")
        return (error if row.action in _NEEDS_RESET else warning)(
            subject, summary, f"The card may not work correctly until it is reset.{read}", quoted, fix
        )
    if row.action in ("ignore", "info"):
        return info(subject, summary, f"NVIDIA's catalogue asks for no action now.{read}", quoted, by_hand(_CATALOGUE))
    if not row.program:
        fix = by_hand(f"Run the program again. If the same Xid appears again, update the driver. {_CATALOGUE}")
        why = f"Programs seldom cause this number; the run that used the card may have failed.{read}"
        return warning(subject, summary, why, quoted, fix)
    return _of_a_program(subject, summary, read, quoted, events)


def _of_a_program(subject: str, summary: str, read: str, quoted: list[Seen], events: list[Event]) -> Finding:
    """A number that programs cause: but not if different programs do, nor after the card's memory was lost."""
    named = [match[1] for line in events for _, match in kernel_log.matching_lines([line.line], "name=", _NAME)]
    names = sorted({name for name in named if "unknown" not in name})
    if len(names) > 1:
        why = f"Programs cause this number, but here {len(names)} different ones did ({', '.join(names[:4])}).{read}"
        fix = by_hand(
            "Reboot, return to stock clocks and power limits, and update the driver (gpu-setup plan). If it goes away "
            "in another slot or machine, check riser and slot; if not, the card's memory is bad."
        )
        return warning(subject, summary, why, quoted, fix)
    if any(event.after_suspend for event in events):
        why = f"It came after a suspend, in which the driver may lose what is in the card's memory.{read}"
        fix = by_hand("Start the programs on the card again, or reboot; see: gpu-setup doctor --explain driver.suspend")
        return warning(subject, summary, why, quoted, fix)
    fix = by_hand("Run the program again; if the same Xid appears with other programs too, check memory and clocks.")
    return info(subject, summary, f"Usually the program that was running caused it, not the card.{read}", quoted, fix)


@check(
    "gpu.nvidia-errors",
    "The NVIDIA driver has logged no other errors",
    about="Every line of NVIDIA's kernel modules (NVRM, nvidia-modeset, nvidia-uvm, nvidia-drm) in the kernel log that "
    "states an error, a failure, a time-out or a reset is shown, once for each kind. Lines that working cards log too, "
    "and those that another check judges, are left out.",
    by_hand="Read the driver's messages: `sudo journalctl -k -b | grep -iE 'NVRM|nvidia'`. Search for the words in "
    "NVIDIA's forum (forums.developer.nvidia.com) and in github.com/NVIDIA/open-gpu-kernel-modules/issues.",
    needs=(needs.NVIDIA_CARD, needs.NVIDIA_DRIVER),
    causes=("gpu.fell-off-bus", "gpu.xid", "driver.bound", "driver.mismatch"),
)
def nvidia_errors(host: Host, catalogue: Catalogue) -> Verdict:
    return _errors(host, catalogue, cards.NVIDIA, "whether NVIDIA's driver logged errors")


@check(
    "gpu.amdgpu-errors",
    "amdgpu has reported no hangs, resets or page faults",
    about="amdgpu logs to the kernel log when a ring times out, the scheduler firmware (MES) or the power controller "
    "(SMU) does not respond, the card is reset, or a program accesses memory that it does not own. Every other line of "
    "amdgpu, KFD or DRM that states a failure is shown too, unless working cards log it as well. Causes are firmware, "
    "a wrong HSA_OVERRIDE_GFX_VERSION, unstable power or unstable clocks.",
    by_hand="Update linux-firmware and the kernel, unset HSA_OVERRIDE_GFX_VERSION, return to stock clocks. As a test, "
    "set the kernel parameter `amdgpu.cwsr_enable=0`. Reboot after every reset.",
    needs=(needs.AMD_CARD_OR_ONLY_GRAPHICS,),
    causes=("gpu.fell-off-bus", "gpu.power-state", "driver.bound", "kernel.firmware", "rocm.override"),
)
def amdgpu_errors(host: Host, catalogue: Catalogue) -> Verdict:
    return _errors(host, catalogue, cards.AMD, "whether amdgpu reported errors")


def _errors(host: Host, catalogue: Catalogue, vendor: str, what: str) -> Verdict:
    ours = cards.watched_amd(host, catalogue) if vendor == cards.AMD else cards.training(host, catalogue, vendor)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, what)
    driver = driver_log.DRIVERS[vendor]
    alone = [card for card in host.cards or () if card.vendor == vendor]
    logged: dict[str, list[Said]] = {}
    for one in driver_log.said(host, catalogue, driver):
        if one.row is not None and one.row.check:
            continue
        card = alone[0] if len(alone) == 1 and not one.place else cards.card_at(one.place, host.cards or ())
        if card is None or card in ours:
            logged.setdefault(cards.subject(card, catalogue) if card else one.place or driver, []).append(one)
    return tuple(_stated(host, catalogue, subject, messages, driver) for subject, messages in logged.items()) or Ok(
        "The kernel log has no such line since boot."
    )


def _stated(host: Host, catalogue: Catalogue, subject: str, messages: list[Said], driver: str) -> Finding:
    """One finding a card: what the lines mean, in the order of the catalogue (causes first), and the first's fix."""
    rows = sorted({one.row for one in messages if one.row is not None}, key=catalogue.log_lines.index)
    seen = driver_log.distinct(messages)
    if not rows:
        return warning(
            subject,
            f"{driver} has logged errors since boot that gpu-setup does not know: read the lines.",
            "They may be harmless, or the cause of what does not work.",
            seen,
            by_hand(
                f"Search for the words. Then update driver or kernel, and reboot. `gpu-setup doctor --explain "
                f"gpu.{'nvidia' if driver == driver_log.NVIDIA else 'amdgpu'}-errors` says where to ask."
            ),
        )
    override = driver == driver_log.AMDGPU and "HSA_OVERRIDE_GFX_VERSION" in host.person.environ
    fix = by_hand("Unset HSA_OVERRIDE_GFX_VERSION, reboot, and try again.") if override else driver_log.fix_of(rows[0])
    card = cards.card_at(next((one.place for one in messages if one.place), None), host.cards or ())
    return (error if any(row.severity == "error" for row in rows) else warning)(
        subject,
        f"{driver} has reported since boot: {', '.join(dict.fromkeys(row.means for row in rows))}.",
        rows[0].why,
        seen,
        fitting(fix, host, card),
    )
