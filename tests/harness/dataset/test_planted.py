"""Recall and precision of each kind on planted defects, and how many clean rows are flagged."""

from __future__ import annotations

import json
import sys

import pytest

from harness.dataset.check import check
from harness.dataset.findings import DataReport
from tests.harness.dataset.planted import Truth, planted

pytestmark = pytest.mark.long

GOAL = 0.95
# these say something of the whole set, not of single rows
OF_THE_SET = {"repeated-opening", "recurring-name", "few-rows"}


@pytest.fixture(scope="module", params=[11, 29])
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DataReport, Truth, set[int]]:
    rows, truth, clean = planted(seed=request.param)
    path = tmp_path_factory.mktemp("planted") / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return check(path), truth, clean


def test_the_set_is_large_and_varied(measured: tuple[DataReport, Truth, set[int]]) -> None:
    report, truth, clean = measured
    assert len(truth) >= 20
    assert report.rows >= 3000 and len(clean) >= 2000
    assert {"en", "de", "fr", "es"} <= set(report.languages)


def test_recall_and_precision_of_each_kind(
    measured: tuple[DataReport, Truth, set[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    report, truth, _ = measured
    found = {finding.kind: set(finding.rows) for finding in report.findings}
    lines, bad = [f"{'kind':<22}{'planted':>8}{'found':>7}{'recall':>8}{'precision':>11}"], []
    for kind in sorted(truth):
        hit = len(truth[kind] & found.get(kind, set()))
        recall = hit / len(truth[kind])
        precision = hit / len(found[kind]) if found.get(kind) else 0.0
        lines.append(f"{kind:<22}{len(truth[kind]):>8}{len(found.get(kind, ())):>7}{recall:>8.3f}{precision:>11.3f}")
        if min(recall, precision) < GOAL:
            bad.append(kind)
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert not bad


def test_clean_rows_are_left_alone(
    measured: tuple[DataReport, Truth, set[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    report, _, clean = measured
    flagged = {row for finding in report.findings if finding.kind not in OF_THE_SET for row in finding.rows} & clean
    with capsys.disabled():
        sys.stdout.write(f"\nclean rows flagged: {len(flagged)} of {len(clean)} ({len(flagged) / len(clean):.2%})\n")
    assert len(flagged) <= 0.01 * len(clean)


def test_nothing_is_found_that_was_not_planted(measured: tuple[DataReport, Truth, set[int]]) -> None:
    report, truth, _ = measured
    assert {finding.kind for finding in report.findings} - OF_THE_SET <= set(truth)
