"""The doctor's answer for every recorded machine, against the key "doctor" of its expect.json."""

from __future__ import annotations

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.model import DoctorReport, Status
from checks.registry import ALL
from checks.runner import exit_code, run
from tests.recorded_machines import expected, load, names
from tests.subjects import for_each

NOT_GOOD = (Status.FAIL, Status.WARN, Status.UNKNOWN)


def doctor(name: str) -> DoctorReport:
    # the recording is strict: whatever was not recorded fails the test
    return run(read_host(load(name)), catalogue(), ALL)


@for_each("name", names())
def test_a_recorded_machine_has_exactly_the_expected_findings(name: str) -> None:
    wanted = expected(name)["doctor"]
    report = doctor(name)
    found = {str(status): [row.id for row in report.results if row.status is status] for status in NOT_GOOD}
    assert found == wanted
    assert exit_code(report) == (1 if wanted["fail"] else 0)


@for_each("name", [name for name in names() if name.endswith("-healthy")])
def test_a_healthy_recording_has_no_bad_result(name: str) -> None:
    report = doctor(name)
    assert [row.id for row in report.results if row.status in NOT_GOOD] == []


@for_each("name", names())
def test_every_finding_on_a_recorded_machine_has_evidence_and_a_fix(name: str) -> None:
    for result in doctor(name).results:
        assert result.reason
        for finding in result.findings:
            assert finding.evidence
            assert finding.fix is not None and finding.fix.text and finding.fix.verify


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("rtx3090-secureboot-dkms-rejected", {"driver.bound": "secureboot.module", "driver.nvml": "secureboot.module"}),
        ("rtx3090-library-mismatch", {"driver.nvml": "driver.mismatch"}),
        ("rtx3090-modules-lag", {"driver.bound": "driver.module", "driver.nvml": "driver.module"}),
        ("rtx5090-proprietary-module", {"driver.init": "driver.flavour", "driver.nvml": "driver.flavour"}),
        ("rx9070xt-old-kernel", {"driver.bound": "kernel.amdgpu-floor", "rocm.kfd-access": "driver.bound"}),
    ],
)
def test_consequences_name_their_cause(name: str, chain: dict[str, str]) -> None:
    findings = [finding for result in doctor(name).results for finding in result.findings]
    assert {found.check: found.caused_by for found in findings if found.caused_by} == chain
