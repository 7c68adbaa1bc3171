"""`gpu-setup bench` as a person types it: what it refuses before anything long begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tool import Cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--quick", "--record"), "exclude each other"),
        (("--quick", "--data", "mine.json"), "--workload recipe"),
        (("--workload", "nonsense"), "exact"),
        (("--launches", "0"), "range"),
    ],
)
def test_options_that_contradict(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    ended = cli("bench", *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_file_that_is_no_baseline_is_refused_first(cli: Cli, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "last-week.json"
    if content is not None:
        file.write_text(content)
    ended = cli("bench", "--recipe", "tiny", "--baseline", str(file), "--json")
    (error,) = json.loads(ended.stdout)["errors"]
    assert (ended.returncode, error["code"]) == (2, "report.unreadable")
