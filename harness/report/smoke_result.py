"""The answer of `smoke`: the verdict on one short training, and where the run is."""

from __future__ import annotations

from typing import Literal

import msgspec

from harness.measure.smoke_criteria import Smoke
from harness.report.run_report import Report
from harness.training.examination import AnswerPair


class SmokeResult(msgspec.Struct, frozen=True):
    """`folder` holds the run: config, logs, adapter, report."""

    recipe: str
    verdict: Literal["pass", "fail"]
    smoke: Smoke
    folder: str
    answers: tuple[AnswerPair, ...] = ()


def smoke_result(report: Report) -> SmokeResult:
    assert report.smoke is not None
    verdict: Literal["pass", "fail"] = "pass" if report.smoke.passed else "fail"
    return SmokeResult(report.recipe.name, verdict, report.smoke, report.folder, report.answers)
