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

# checks whose finding a manual step about the kernel's module is the answer to
_MODULE_CHECKS = ("driver.bound", "driver.present", "driver.nvml")


def with_unresolved(plan: Plan, report: DoctorReport) -> Plan:
    """The plan with the doctor's errors that are a cause, not a consequence, and that no open step cures."""
    if plan.refusals:
        return plan
    left = tuple(
        Unresolved(check=finding.check, summary=finding.summary, fix=finding.fix.text if finding.fix else "")
        for finding in _causes(report)
        if not _is_cured(finding, plan)
    )
    return seal(msgspec.structs.replace(plan, unresolved=left)) if left else plan


def _causes(report: DoctorReport) -> Iterator[Finding]:
    for row in report.results:
        for finding in row.findings:
            if finding.severity is Severity.ERROR and finding.caused_by is None:
                yield finding


def _is_cured(finding: Finding, plan: Plan) -> bool:
    steps, fix = plan.open_steps(), finding.fix
    if fix is None or not steps:
        return False
    if any(isinstance(step.action, KernelModule) and step.state is State.MANUAL for step in steps):
        return finding.check in _MODULE_CHECKS
    if fix.kind is FixKind.PROVISION:
        return True
    match fix.argv:
        case ("apt-get", "install", *names):
            # an installed kernel that is new enough needs only the reboot
            booted = plan.reboots > 0 and finding.check.startswith("kernel.")
            return booted or set(names) <= {
                w.name for s in steps if isinstance(s.action, AptInstall) for w in s.action.packages
            }
        case ("apt-get", "remove", *names):
            return set(names) <= {name for step in steps for name in step.action.removed_packages()}
        case ("dpkg", "--configure", *_) | ("apt-get", "--fix-broken", *_):
            removes = any(step.action.removed_packages() for step in steps)
            return removes or any(isinstance(step.action, DpkgRepair) for step in steps)
        case ("usermod", *_):
            return any(isinstance(step.action, UserGroup) for step in steps)
        case ("systemctl", "reboot"):
            return plan.reboots > 0
        case ("dkms" | "modprobe" | "update-initramfs" | "update-grub", *_):
            return any(isinstance(step.action, AptInstall) and step.id == "nvidia-driver" for step in steps)
    return False
