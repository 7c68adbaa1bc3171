"""Errors that the driver has logged since boot: NVIDIA's Xid numbers, amdgpu's time-outs and resets."""

from __future__ import annotations

from checks.catalogue import Catalogue, Xid
from checks.facts.host import Host
from checks.model import Finding, Fix, Ok, Skip, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.finding import by_hand, error, hardware, info, reboot, warning
from checks.rules.installed import nvidia_driver

# `NVRM: Xid (PCI:0000:01:00): 31, pid=…`; old drivers leave out `PCI:`
_XID = r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)"
_FELL_OFF = 79
_NEEDS_CARE = ("reset-gpu", "reboot", "workflow", "watch", "contact")

# a word to search for first, amdgpu's messages (kernels 5.15 to 7.0, which differ), and our name for it
_AMDGPU = (
    ("ring", r"ring \S+ timeout", "a ring timed out"),
    (
        "mes",
        r"MES(?:\(\d+\))? failed to respon(?:d to|se) m|failed to (?:add|remove) hardware queue",
        "the MES scheduler hung",
    ),
    ("gpu re", r"GPU reset(?: begin|\(\d+\) (?:succeeded|failed))|GPU recovery disabled", "the GPU was reset"),
    ("fault", r"PROTECTION_FAULT_(?:STATUS|ADDR)|\[(?:gfxhub|mmhub)\d*\] (?:no-retry )?page fault", "page faults"),
)
_ADDRESS = r"amdgpu ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"


@check(
    "gpu.xid",
    "The NVIDIA driver has reported no card errors (Xid)",
    about="The driver logs every card error with an Xid number in the kernel log. For each number the catalogue says "
    "whether hardware, driver or program causes it: a hardware fault is a failure, a number that needs a reset is a "
    "warning, one that a program caused is informational. Xid 79 has its own check (gpu.fell-off-bus).",
    by_hand="Run `sudo journalctl -k -b | grep Xid`, then look up the number in NVIDIA's Xid catalogue "
    "(docs.nvidia.com/deploy/xid-errors). With 13, 31, 43 and 45 check the program first.",
    needs=(needs.NVIDIA_CARD,),
)
def xid(host: Host, catalogue: Catalogue) -> Verdict:
    if not nvidia_driver(host):
        return Skip("Only the NVIDIA driver reports Xid errors, and it is not installed yet.")
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether the driver reported Xid errors")
    seen: dict[tuple[str, int], list[str]] = {}
    for line, match in kernel_log.matching_lines(host.kernel.log, "xid", _XID):
        seen.setdefault((cards.bus_address(match[1]), int(match[2])), []).append(line)
    known = {row.number: row for row in catalogue.xids}
    findings = [
        _xid(cards.subject_at(slot, host, catalogue), number, known.get(number), lines)
        for (slot, number), lines in sorted(seen.items())
        if number != _FELL_OFF
    ]
    return tuple(findings) or Ok("No Xid since boot" + (" except 79." if seen else "."))


def _xid(subject: str, number: int, row: Xid | None, lines: list[str]) -> Finding:
    quoted = kernel_log.quote(lines)
    if row is None:
        text = "Look up the number in NVIDIA's Xid catalogue: docs.nvidia.com/deploy/xid-errors."
        return info(subject, f"Xid {number}, which is not in the catalogue.", text, quoted, by_hand(text))
    summary = f"Xid {number}: {row.meaning}" + (f" ({len(lines)} times since boot)." if len(lines) > 1 else ".")
    read = f" Advice: {row.reading}." if row.reading else ""
    if row.hardware:
        fix = hardware("Test the card in another machine or slot, and replace it if the same Xid appears again.")
        return error(subject, summary, f"The card reports a hardware fault; results can be wrong.{read}", quoted, fix)
    if row.action in _NEEDS_CARE:
        fix = reboot("Reboot the machine. If the same Xid appears again, update the driver: gpu-setup plan.")
        return warning(subject, summary, f"The card may not work correctly until it is reset.{read}", quoted, fix)
    fix = by_hand("Run the program again; if the same Xid appears with other programs too, check memory and clocks.")
    return info(subject, summary, f"Usually the program that was running caused it, not the card.{read}", quoted, fix)


@check(
    "gpu.amdgpu-errors",
    "amdgpu has reported no hangs, resets or page faults",
    about="amdgpu logs to the kernel log when a ring times out, the scheduler firmware (MES) does not respond, the "
    "card is reset, or a program accesses memory that it does not own. Causes are firmware, a wrong "
    "HSA_OVERRIDE_GFX_VERSION, unstable power or unstable clocks.",
    by_hand="Update linux-firmware and the kernel, unset HSA_OVERRIDE_GFX_VERSION, return to stock clocks. As a test, "
    "set the kernel parameter `amdgpu.cwsr_enable=0`. Reboot after every reset.",
    needs=(needs.AMD_CARD,),
    causes=("kernel.firmware", "rocm.override"),
)
def amdgpu_errors(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "whether amdgpu reported errors")
    logged: dict[str, dict[str, list[str]]] = {}
    about_amdgpu = [line for line in host.kernel.log if "amdgpu" in line]
    for word, pattern, kind in _AMDGPU:
        for line, _ in kernel_log.matching_lines(about_amdgpu, word, pattern):
            address = kernel_log.matching_lines([line], "amdgpu", _ADDRESS)
            card = cards.card_at(address[0][1][1], host.cards or ()) if address else None
            if card is not None and card not in ours:
                continue
            about = cards.subject(card, catalogue) if card else "amdgpu"
            logged.setdefault(about, {}).setdefault(kind, []).append(line)
    findings = []
    for about, kinds in logged.items():
        lines = [line for some in kinds.values() for line in some]
        only_faults = set(kinds) == {"page faults"}
        findings.append(
            (warning if only_faults else error)(
                about,
                f"amdgpu has reported since boot: {', '.join(kinds)}.",
                "A program accessed memory that it does not own; the driver or a wrong gfx override can be the cause."
                if only_faults
                else "The card hung; runs on it fail or never finish, and it may need a reboot to work again.",
                kernel_log.quote(lines),
                _amdgpu_fix(host),
            )
        )
    return tuple(findings) or Ok("No ring time-out, reset or page fault since boot.")


def _amdgpu_fix(host: Host) -> Fix:
    if "HSA_OVERRIDE_GFX_VERSION" in host.person.environ:
        return by_hand("Unset HSA_OVERRIDE_GFX_VERSION, reboot, and try again.")
    return reboot("Reboot; if it happens again, update kernel and linux-firmware, and return to stock clocks.")
