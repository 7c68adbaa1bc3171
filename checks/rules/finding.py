"""Helpers for rules: findings by severity, evidence by source, and fixes that many rules share."""

from __future__ import annotations

from collections.abc import Iterable

from checks.facts.host import Host, PciCard
from checks.model import Evidence, Finding, Fix, FixKind, Severity, Unknown

Seen = tuple[str, object]


def error(subject: str, summary: str, why: str, seen: Iterable[Seen], fix: Fix) -> Finding:
    """Training on this subject cannot work until this is fixed."""
    return _finding(Severity.ERROR, subject, summary, why, seen, fix)


def warning(subject: str, summary: str, why: str, seen: Iterable[Seen], fix: Fix) -> Finding:
    """It works, but worse than it could, or it will stop working."""
    return _finding(Severity.WARNING, subject, summary, why, seen, fix)


def info(subject: str, summary: str, why: str, seen: Iterable[Seen], fix: Fix) -> Finding:
    """Worth knowing; nothing is wrong."""
    return _finding(Severity.INFO, subject, summary, why, seen, fix)


def _finding(severity: Severity, subject: str, summary: str, why: str, seen: Iterable[Seen], fix: Fix) -> Finding:
    evidence = tuple(Evidence(source, str(value)) for source, value in seen)
    # the check's decorator fills in the id
    return Finding("", severity, subject, summary, why, evidence, fix)


def bound_to(card: PciCard) -> Seen:
    """Evidence: the driver that the card is bound to."""
    return f"/sys/bus/pci/devices/{card.slot}/driver", card.driver or "no driver"


def provision(text: str, *, reboot: bool = False, verify: tuple[str, ...] = ()) -> Fix:
    """The plan fixes it: `gpu-setup plan` shows how, `gpu-setup apply` does it."""
    return Fix(FixKind.PROVISION, text, ("gpu-setup", "plan"), needs_reboot=reboot, verify=verify)


def command(
    text: str,
    *argv: str,
    sudo: bool = False,
    reboot: bool = False,
    relogin: bool = False,
    verify: tuple[str, ...] = (),
) -> Fix:
    """One exact command fixes it."""
    return Fix(FixKind.COMMAND, text, argv, sudo, reboot, relogin, verify)


def reboot(text: str, *, verify: tuple[str, ...] = ()) -> Fix:
    return Fix(FixKind.COMMAND, text, ("systemctl", "reboot"), needs_sudo=True, needs_reboot=True, verify=verify)


def install(text: str, *packages: str, verify: tuple[str, ...] = ()) -> Fix:
    return Fix(FixKind.COMMAND, text, ("apt-get", "install", *packages), needs_sudo=True, verify=verify)


def by_hand(text: str, *, relogin: bool = False, verify: tuple[str, ...] = ()) -> Fix:
    """No single command fixes it; the text says what to do, --explain lists the steps."""
    return Fix(FixKind.DOCS, text, needs_relogin=relogin, verify=verify)


def firmware(text: str, *, verify: tuple[str, ...] = ()) -> Fix:
    """A setting in the BIOS."""
    return Fix(FixKind.FIRMWARE, text, needs_reboot=True, verify=verify)


def hardware(text: str, *, verify: tuple[str, ...] = ()) -> Fix:
    """Work on the hardware."""
    return Fix(FixKind.HARDWARE, text, verify=verify)


def cannot_determine(host: Host, what: str, words: Iterable[str], remedy: str) -> Unknown:
    """Why `what` (a clause) is not known: a source whose name contains one of `words` was not read; and a remedy."""
    for gap in host.unread:
        if any(word in gap.source for word in words):
            return Unknown(f"Cannot determine {what}: {gap.source} could not be read ({gap.reason}). {remedy}")
    return Unknown(f"Cannot determine {what}. {remedy}")
