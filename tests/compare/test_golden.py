"""Reports of real runs, kept as they were written (only the folders are another person's): they must stay readable.

one.json and two.json: `gpu-setup bench --recipe tiny` twice on one 2-core machine. old.json: a run of smollm2-135m-qlora by
a version that did not note its work, on a machine that was busy with other things.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compare import against_baseline, compare
from harness.report import Report, read_report
from machine.errors import Refused

REPORTS = Path(__file__).with_name("reports")


def golden(name: str) -> Report:
    return read_report(REPORTS / f"{name}.json")


def test_two_real_runs_of_one_recipe() -> None:
    found = compare([golden("one"), golden("two")], ())
    assert found.comparable and found.work.model.layers == 4
    assert found.runs[1].ratio and found.runs[1].ratio.low and found.runs[1].ratio.high
    assert found.changed == (), "the same machine, the same setting"
    assert found.runs[0].digest == found.runs[1].digest


def test_a_real_run_against_a_real_baseline() -> None:
    found = against_baseline(golden("two"), golden("one"))
    assert found.changed == () and found.sentence


@pytest.mark.parametrize("order", [("old", "one"), ("one", "old")])
def test_a_report_of_an_older_version_is_read_and_refused(order: tuple[str, str]) -> None:
    reports = [golden(name) for name in order]
    with pytest.raises(Refused) as caught:
        compare(reports, ())
    assert caught.value.code == "compare.no-work" and "2026-11-24" in caught.value.why


@pytest.mark.parametrize("name", ["one", "two", "old"])
def test_no_golden_report_names_a_real_machine(name: str) -> None:
    text = (REPORTS / f"{name}.json").read_text(encoding="utf-8")
    assert "/tmp/" not in text and "/root" not in text
