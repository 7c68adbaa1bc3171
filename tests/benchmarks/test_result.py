"""What a benchmark prints while it runs: progress on stderr, each figure on stdout at once."""

from __future__ import annotations

import re

import pytest

from benchmarks.result import Figure, progress, report


def test_progress_and_figures_go_to_their_streams(capsys: pytest.CaptureFixture[str]) -> None:
    progress("round 1 of 5")
    figures = report(Figure("check, 1,000 rows", 0.5, "s", at_most=1.0))
    printed = capsys.readouterr()
    assert re.fullmatch(r"\[ *\d+ s\] round 1 of 5\n", printed.err)
    assert printed.out == "check, 1,000 rows: 0.5 s (target ≤ 1 s: met)\n"
    assert [figure.name for figure in figures] == ["check, 1,000 rows"]
