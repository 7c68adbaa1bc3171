"""Every check: on which machines it finds something, on which it must not, and where it says that it cannot see."""

from __future__ import annotations

from checks.catalogue import catalogue
from checks.model import Check, CheckResult, Severity, Status
from checks.registry import ALL
from checks.runner import judge
from tests.checks.rules import (
    cases_amd_smi,
    cases_card,
    cases_driver,
    cases_hardware,
    cases_kernel_log,
    cases_places,
    cases_software,
    cases_training,
    cases_upkeep,
)
from tests.checks.rules.case import Blind, Fault, LookAlike
from tests.checks.rules.hosts import amd_card, but, healthy_amd
from tests.subjects import for_each

TABLES = (
    cases_amd_smi,
    cases_card,
    cases_driver,
    cases_hardware,
    cases_kernel_log,
    cases_places,
    cases_software,
    cases_training,
    cases_upkeep,
)
FAULTS: list[Fault] = [case for table in TABLES for case in table.FAULTS]
LOOK_ALIKES: list[LookAlike] = [case for table in TABLES for case in table.LOOK_ALIKES]
BLIND: list[Blind] = [case for table in TABLES for case in table.BLIND]
CHECKS: dict[str, Check] = {check.id: check for check in ALL}


def ask(case: Fault | LookAlike | Blind) -> CheckResult:
    return judge(CHECKS[case.check], case.host, catalogue())


def named(case: Fault | LookAlike | Blind) -> str:
    return f"{case.check}: {case[-1]}"


@for_each("case", FAULTS, ids=named)
def test_a_fault_is_found_with_evidence_and_a_fix(case: Fault) -> None:
    result = ask(case)
    assert result.status is case.status, result.reason
    assert case.says in result.reason
    for finding in result.findings:
        assert finding.check == case.check
        assert finding.subject and finding.summary and finding.why
        assert finding.evidence and all(row.source and row.value for row in finding.evidence)
        assert finding.fix is not None
        assert finding.fix.text and finding.fix.verify
        assert not finding.fix.argv or finding.fix.argv[0] not in ("sudo", "sh", "bash", "unset", "export")


@for_each("case", LOOK_ALIKES, ids=named)
def test_a_look_alike_has_no_finding(case: LookAlike) -> None:
    result = ask(case)
    assert result.status in (Status.PASS, Status.SKIP), result.reason
    assert not result.findings


@for_each("case", BLIND, ids=named)
def test_an_unreadable_signal_is_unknown_with_a_remedy(case: Blind) -> None:
    result = ask(case)
    assert result.status is Status.UNKNOWN, result.reason
    assert case.says in result.reason


def test_every_check_has_a_fault_and_a_look_alike() -> None:
    # gpu.present only passes, skips or is unknown: a machine without a card is no faulty machine
    assert {case.check for case in FAULTS} == CHECKS.keys() - {"gpu.present"}
    assert {case.check for case in LOOK_ALIKES} == CHECKS.keys()


def test_severity_and_status_agree_in_every_example() -> None:
    worst = {Status.FAIL: Severity.ERROR, Status.WARN: Severity.WARNING, Status.PASS: Severity.INFO}
    for case in FAULTS:
        severities = {finding.severity for finding in ask(case).findings}
        assert min(severities, key=list(Severity).index) is worst[case.status], named(case)


def test_the_fix_for_a_wrong_torch_is_the_build_for_the_card() -> None:
    """AMD's index needs the architecture's name, PyTorch's does not."""
    for device, build in (("73bf", "torch==2.13.0+rocm7.2"), ("73df", "torch[device-gfx1031]==2.13.0+rocm10.0.0")):
        case = cases_training.has(but(healthy_amd(), cards=(amd_card(device=device),)), cases_training.env())
        (finding,) = judge(CHECKS["python.torch-build"], case, catalogue()).findings
        assert finding.fix is not None
        assert build in finding.fix.argv


def test_the_fix_for_a_driver_that_does_not_build_unblocks_apt() -> None:
    """`dpkg --configure -a` alone would fail again and again."""
    case = but(healthy_amd(), apt={"broken": ("amdgpu-dkms",)})
    (finding,) = judge(CHECKS["apt.dpkg"], case, catalogue()).findings
    assert finding.fix is not None
    assert "sudo apt-get remove amdgpu-dkms" in finding.fix.text
