"""Two real runs beside each other, and the comparison's page in a real browser."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.lab.harness.test_page import asked, browse, chromium, pixels
from tests.lab.training import Ended, Training, tool
from tests.tool import ROOT

REPORTS = ROOT / "tests" / "harness" / "report" / "reports"
__all__ = ["chromium"]
pytestmark = pytest.mark.lab


def test_a_second_run_is_held_against_the_first(tiny_again: Ended) -> None:
    assert tiny_again.rc in (0, 1), tiny_again.stderr
    baseline = tiny_again.data["baseline"]
    assert baseline["verdict"] in ("same", "better", "regression", "inconclusive") and baseline["sentence"]
    assert (tiny_again.rc == 1) == (baseline["verdict"] == "regression")


def test_two_runs_of_one_recipe_did_the_same_work(
    training: Training, tiny_run: Ended, tiny_again: Ended, tmp_path: Path
) -> None:
    first = Path(tiny_run.data["folder"])
    ended = tool(training.home(tmp_path / "home"), "compare", str(first), tiny_again.data["folder"])
    assert ended.rc == 0, ended.document
    assert ended.data["comparable"] and ended.data["differences"] == []
    one, other = ended.data["runs"]
    assert one["ratio"] is None and other["ratio"]["verdict"] in ("equal", "faster", "slower", "unknown")
    work = ended.data["work"]
    # the model that was made on the spot, by the config.json in its folder
    assert (work["model"]["layers"], work["method"], work["data"]["trained_on"]) == (4, "qlora", "answers")
    assert not re.search(r"/(home|tmp|root)/", str(ended.data))


def test_the_page_in_a_browser(chromium: str, tmp_path: Path) -> None:
    page = tmp_path / "c.html"
    reports = [str(REPORTS / f"{name}.json") for name in ("one", "two")]
    ended = tool(tmp_path / "home", "compare", *reports, "--html", str(page))
    assert ended.rc == 0, ended.document
    dom = browse(chromium, tmp_path / "one", page, "--dump-dom").stdout
    assert "<h1>2 runs of the same work</h1>" in dom
    charts = dict(re.findall(r'<figure id="chart-(\w+)">(.*?)</figure>', dom, re.DOTALL))
    assert {"speed", "memory"} <= set(charts)
    for chart in charts.values():
        assert chart.count("#54aeff") >= 2, "a bar for each run"
    for part in ("speed", "figures", "same", "work-keys"):
        assert f'id="{part}"' in dom

    shot = tmp_path / "shot.png"
    browse(chromium, tmp_path / "two", page, f"--screenshot={shot}", "--window-size=1000,1400", "--hide-scrollbars")
    width, height, rows = pixels(shot)
    assert (width, height) == (1000, 1400)
    colours = Counter(row[at : at + 3] for row in rows[::4] for at in range(0, len(row), 12))
    assert colours.most_common(1)[0][0] == b"\xff\xff\xff"
    assert any(abs(r - 0x54) < 8 and abs(g - 0xAE) < 8 and b > 240 for r, g, b in colours), "the bars' blue is seen"
    assert asked(chromium, tmp_path, page.read_text()) == []
