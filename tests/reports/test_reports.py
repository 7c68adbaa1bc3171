"""Doctor and plan answer machines that people wrote about, and not worse than the scoreboard says."""

from __future__ import annotations

import pytest

from checks.check_ids import IDS
from tests.reports.ask import ask
from tests.reports.judge import Said, Verdict, verdict
from tests.reports.scoreboard import committed, judged
from tests.reports.table import HERE, Right, looks, reports


def test_each_report_is_named_once_and_says_where_it_comes_from() -> None:
    names = [report.name for report in reports()]
    assert len(set(names)) == len(names)
    for report in reports():
        assert report.source
        assert all(source.startswith("https://") for source in report.source)
        assert report.right.calm or (report.right.cause and report.right.help)


def test_every_recording_belongs_to_a_report() -> None:
    files = {file.stem for file in (HERE / "machines").glob("*.machine")}
    assert files <= {report.machine for report in reports()}


def test_what_other_doctors_look_for_is_answered_or_no_fault_here() -> None:
    names = {report.name for report in reports()}
    for look in looks():
        assert look.reports or look.checks or look.not_
        assert set(look.reports) <= names
        assert set(look.checks) <= set(IDS)


def test_a_report_is_answered_as_a_person_reads_it() -> None:
    report = next(report for report in reports() if report.name == "nomodeset-intree")
    said = ask(report)
    assert said.doctor.startswith(" Ubuntu 24.04.4 LTS")
    assert "nomodeset" in said.doctor


def test_nine_reports_of_ten_are_answered_and_none_misleads() -> None:
    verdicts = list(committed().values())
    assert Verdict.wrong not in verdicts
    assert verdicts.count(Verdict.right) >= 0.9 * len(verdicts)


@pytest.mark.long
def test_no_answer_is_worse_than_the_scoreboard_says() -> None:
    """Every report is on the page; a better answer gets there by `python -m tests.generate`."""
    before = committed()
    worse = {
        row.report.name: (str(row.verdict), row.why)
        for row in judged()
        if row.verdict < before.get(row.report.name, Verdict.right)
    }
    assert worse == {}


DOCTOR = """machine: Ubuntu

✗ The card is lost.
  gpu.xid, 0000:01:00.0
  fix    Switch the
         machine off.
  so     ✗ NVML cannot
           reach it. (driver.nvml)

! python3-venv is not installed.
  python.venv, Python 3.12

i The card has no
  BF16. (gpu.heat)
✗ 113 checks: 2 failed, 1 warning, 54 passed.
? 3 unknown: gpu.supported, gpu.vram,
  gpu.bf16, gpu.mig (-v shows why).

Next: gpu-setup plan
"""


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        (Right(cause=(("gpu.xid",),), help=(("switch the machine off",),)), Verdict.right),
        (Right(cause=(("gpu.aer", "driver.nvml"),)), Verdict.right),
        (Right(cause=(("gpu.xid",),), help=(("reseat",),)), Verdict.partly),
        (Right(cause=(("gpu.heat",),)), Verdict.right),
        (Right(cause=(("gpu.bf16", "gpu.mig"),)), Verdict.silent),
        (Right(cause=(("gpu.aer",),), help=(("machine off",),)), Verdict.silent),
        (Right(cause=(("gpu.xid",),), never=("the card is lost",)), Verdict.wrong),
        (Right(cause=(("gpu.xid",),), never=("nothing to do",)), Verdict.wrong),
        (Right(cause=(("gpu.xid",),), plan_never=("nothing to do",)), Verdict.partly),
        (Right(cause=(("gpu.xid",),), next_never=("gpu-setup plan",)), Verdict.partly),
        (Right(cause=(("gpu.xid",),), first_never=("python3-venv",)), Verdict.right),
        (Right(cause=(("gpu.xid",),), plan=(("machine off",),)), Verdict.partly),
        (Right(calm=True), Verdict.wrong),
        (Right(calm=True, may=("gpu.xid", "driver.nvml", "python.venv")), Verdict.right),
    ],
)
def test_the_verdict(right: Right, expected: Verdict) -> None:
    assert verdict(right, Said(DOCTOR, "Nothing to do.\n")) is expected
