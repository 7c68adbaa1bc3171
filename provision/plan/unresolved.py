"""What stops training and no step of the plan cures: a plan never says "nothing to do" on a machine that is broken."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from checks.model import DoctorReport, Finding, FixKind, Severity
from provision.model import (
    AptInstall,
    DpkgRepair,
    KernelModule,
    Plan,
    State,
    Unresolved,
    UserGroup,
    seal,
)

# errors that do not stop training: a smaller model fits
_NO_STOP = ("gpu.vram",)
# checks whose finding a manual step about the kernel's module is the answer to
_MODULE_CHECKS = ("driver.bound", "driver.present", "driver.nvml", "gpu.present")
# a plan reboots only where the next boot gives the card to a driver that fits
_AT_NEXT_BOOT = (*_MODULE_CHECKS, "driver.module", "driver.dkms", "driver.mismatch", "secureboot.module")


def with_unresolved(plan: Plan, report: DoctorReport) -> Plan:
    """The plan with the doctor's errors that are a cause, not a consequence, and that no open step cures."""
    if plan.refusals:
        return plan
    left = tuple(
        Unresolved(check=finding.check, summary=finding.summary, fix=finding.fix.text if finding.fix else "")
        for finding in causes(report)
        if not _is_cured(finding, plan)
    )
    return seal(msgspec.structs.replace(plan, unresolved=left)) if left else plan


def causes(report: DoctorReport) -> Iterator[Finding]:
    """The errors that stop training and that no other finding explains."""
    for row in report.results:
        for finding in row.findings:
            if finding.severity is Severity.ERROR and finding.caused_by is None and finding.check not in _NO_STOP:
                yield finding


def _is_cured(finding: Finding, plan: Plan) -> bool:
    steps, fix = plan.open_steps(), finding.fix
    if fix is None or not steps:
        return False
    by_hand = any(isinstance(step.action, KernelModule) and step.state is State.MANUAL for step in steps)
    if by_hand and finding.check in _MODULE_CHECKS:
        return True
    if fix.kind is FixKind.PROVISION or (plan.reboots and finding.check in _AT_NEXT_BOOT):
        return True
    removed = {name for step in steps for name in step.action.removed_packages()}
    named = {w.name for step in steps if isinstance(step.action, AptInstall) for w in step.action.packages}
    match fix.argv:
        case ("apt-get", "install", *names):
            # an installed kernel that is new enough needs only the reboot; NAME- is removed
            booted = plan.reboots > 0 and finding.check.startswith("kernel.")
            return booted or {name.removesuffix("-") for name in names} <= named | removed
        case ("apt-get", "remove", *names) | ("dpkg", "--remove", *names):
            return {name for name in names if not name.startswith("-")} <= removed
        case ("dpkg", "--configure", *_) | ("apt-get", "--fix-broken", *_):
            return bool(removed) or any(isinstance(step.action, DpkgRepair) for step in steps)
        case ("usermod", *_):
            return any(isinstance(step.action, UserGroup) for step in steps)
        case ("systemctl", "reboot"):
            return plan.reboots > 0
    return False
