"""Reports of real runs on one 2-core machine that was busy with other things: they must stay readable.

one.json and two.json: the recipe tiny, twice; one.json was built by later code from the log of an earlier run, so it
does not know which of our code ran inside. old.json: smollm2-135m-qlora, by a version that did not note its work.
The folders in them are another person's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_setup.render.compare import ratio_words
from harness.report.baseline import compare_with_baseline
from harness.report.compare import compare
from harness.report.run_report import Report, read_report
from machine.errors import Refused

REPORTS = Path(__file__).with_name("reports")


def golden(name: str) -> Report:
    return read_report(REPORTS / f"{name}.json")


def test_two_real_runs_of_one_recipe_are_equal_within_their_intervals() -> None:
    found = compare([golden("one"), golden("two")], ())
    assert found.comparable and found.work.model.layers == 4
    ratio = found.runs[1].ratio
    assert ratio and ratio.verdict == "equal" and ratio.coarse
    assert ratio_words(ratio).startswith("no difference from A can be shown: the noise is larger than the difference")
    assert {each.key for each in found.changed} == {"attention kernels seen", "recorder's code"}
    one, two = (run.figures.last_loss.median for run in found.runs)
    assert one and two and one == pytest.approx(two, abs=1e-4), "the same work ends at the same loss"
    assert [run.figures.steps.median for run in found.runs] == [30, 30]


def test_a_real_run_against_a_real_baseline() -> None:
    found = compare_with_baseline(golden("two"), golden("one"))
    assert found.verdict == "inconclusive" and "It is not known whether it is slower" in found.sentence


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
