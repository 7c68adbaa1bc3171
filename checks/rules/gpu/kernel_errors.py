"""What the driver said about its card since boot: NVIDIA's Xid numbers, amdgpu's time-outs and resets."""

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

# a word to look for first, amdgpu's own words (kernels 5.15 to 7.0, which differ), and ours
_AMDGPU = (
    ("ring", r"ring \S+ timeout", "a ring timed out"),
    ("mes", r"MES(?:\(\d+\))? failed to respon(?:d to|se) m|failed to (?:add|remove) hardware queue", "MES hangs"),
    ("gpu re", r"GPU reset(?: begin|\(\d+\) (?:succeeded|failed))|GPU recovery disabled", "the GPU was reset"),
    ("fault", r"PROTECTION_FAULT_(?:STATUS|ADDR)|\[(?:gfxhub|mmhub)\d*\] (?:no-retry )?page fault", "page faults"),
)
_ADDRESS = r"amdgpu ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"


@check(
    "gpu.xid",
    "The NVIDIA driver has reported no card errors",
    about="The driver writes every error of the card as an Xid number into the kernel log. The catalogue says for "
    "each whether the hardware, the driver or the program is at fault: hardware is a failure, a number that needs "
    "a reset a warning, one that a program caused a note. Xid 79 has a check of its own.",
    by_hand="`sudo journalctl -k -b | grep Xid`, then look the number up in NVIDIA's Xid catalogue "
    "(docs.nvidia.com/deploy/xid-errors). For 13, 31, 43 and 45 suspect the program first.",
    needs=(needs.NVIDIA_CARD,),
)
def xid(host: Host, catalogue: Catalogue) -> Verdict:
    if not nvidia_driver(host):
        return Skip("Only NVIDIA's driver reports Xid errors, and none is installed yet.")
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "Whether the driver reported Xid errors")
    seen: dict[tuple[str, int], list[str]] = {}
    for line, match in kernel_log.matching(host.kernel.log, "xid", _XID):
        seen.setdefault((cards.place(match[1]), int(match[2])), []).append(line)
    known = {row.number: row for row in catalogue.xids}
    findings = [
        _xid(cards.named(slot, host, catalogue), number, known.get(number), lines)
        for (slot, number), lines in sorted(seen.items())
        if number != _FELL_OFF
    ]
    return tuple(findings) or Ok("No Xid since boot" + (" but 79." if seen else "."))


def _xid(subject: str, number: int, row: Xid | None, lines: list[str]) -> Finding:
    quoted = kernel_log.quote(lines)
    if row is None:
        text = "Look the number up in NVIDIA's Xid catalogue: docs.nvidia.com/deploy/xid-errors."
        return info(subject, f"Xid {number}, which the catalogue does not know.", text, quoted, by_hand(text))
    summary = f"Xid {number}: {row.meaning}" + (f" ({len(lines)} times since boot)." if len(lines) > 1 else ".")
    read = f" Read it as: {row.reading}." if row.reading else ""
    if row.hardware:
        fix = hardware("Test the card in another machine or slot, and have it replaced if the number comes back.")
        return error(
            subject, summary, f"The card's own hardware reports a fault; results can be wrong.{read}", quoted, fix
        )
    if row.action in _NEEDS_CARE:
        fix = reboot("Restart the machine. If the number comes back, update the driver: gpu-setup plan.")
        return warning(subject, summary, f"The card may not work rightly until it is reset.{read}", quoted, fix)
    fix = by_hand(
        "Start the program again; if the number comes back with other programs too, suspect memory and clocks."
    )
    return info(subject, summary, f"Usually the program that ran then is at fault, not the card.{read}", quoted, fix)


@check(
    "gpu.amdgpu-errors",
    "amdgpu has reported no hangs, resets or page faults",
    about="amdgpu writes into the kernel log when a ring times out, the scheduler firmware (MES) does not answer, "
    "the card is reset or a program touches memory that is not its own. Behind it are firmware, a wrong "
    "HSA_OVERRIDE_GFX_VERSION, unstable power or clocks.",
    by_hand="Update linux-firmware and the kernel, unset HSA_OVERRIDE_GFX_VERSION, go back to stock clocks. As a "
    "test: kernel parameter `amdgpu.cwsr_enable=0`. Restart after every reset.",
    needs=(needs.AMD_CARD,),
    causes=("kernel.firmware", "rocm.override"),
)
def amdgpu_errors(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.AMD)
    if host.kernel.log is None:
        return kernel_log.cannot_read(host, "Whether amdgpu reported errors")
    said: dict[str, dict[str, list[str]]] = {}
    about_amdgpu = [line for line in host.kernel.log if "amdgpu" in line]
    for word, pattern, kind in _AMDGPU:
        for line, _ in kernel_log.matching(about_amdgpu, word, pattern):
            address = kernel_log.matching([line], "amdgpu", _ADDRESS)
            card = cards.at(address[0][1][1], host.cards or ()) if address else None
            if card is not None and card not in ours:
                continue
            about = cards.subject(card, catalogue) if card else "amdgpu"
            said.setdefault(about, {}).setdefault(kind, []).append(line)
    findings = []
    for about, kinds in said.items():
        lines = [line for some in kinds.values() for line in some]
        only_faults = set(kinds) == {"page faults"}
        findings.append(
            (warning if only_faults else error)(
                about,
                f"amdgpu reports since boot: {', '.join(kinds)}.",
                "A program touched memory that is not its own; the driver or a wrong gfx override can be behind it."
                if only_faults
                else "The card hung; runs on it end with errors or never, and it may need a restart to work again.",
                kernel_log.quote(lines),
                _amdgpu_fix(host),
            )
        )
    return tuple(findings) or Ok("No ring time-out, reset or page fault since boot.")


def _amdgpu_fix(host: Host) -> Fix:
    if "HSA_OVERRIDE_GFX_VERSION" in host.person.environ:
        return by_hand("Unset HSA_OVERRIDE_GFX_VERSION, restart, and try again.")
    return reboot("Restart; if it comes back, update kernel and linux-firmware and go back to stock clocks.")
