"""Tuning with real trainings on the processor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.recipe.loader import load_recipe
from tests.lab.training import Training, tool

pytestmark = pytest.mark.lab


@pytest.mark.full
def test_the_small_recipe_becomes_at_least_a_fifth_faster(training: Training, own_home: Path, tmp_path: Path) -> None:
    """Non-padding tokens a second, untuned and tuned in turn; the tuned recipe computes the same losses."""
    ended = tool(
        own_home, "bench", "--tune", "25", "--recipe", "smollm2-135m-qlora", "--out", str(tmp_path), timeout=3000
    )
    assert ended.rc == 0
    duel, tries = ended.data["duel"], ended.data["tries"]
    sys.stdout.write(f"{duel}\n" + "".join(f"{each['label']}: {each['tokens_per_second']}\n" for each in tries))
    assert duel["ratio"] >= 1.2
    best = tries[ended.data["best"]]
    assert len(best["proof"]) == 3 and best["proof"] == pytest.approx(tries[0]["proof"], rel=1e-3)
    tuned = load_recipe(str(tmp_path / "smollm2-135m-qlora-tuned.yaml"))
    assert tuned.config == {**load_recipe("smollm2-135m-qlora").config, **best["changes"]}


@pytest.mark.full
def test_a_minute_is_kept_and_the_next_start_resumes(training: Training, own_home: Path) -> None:
    """A minute is enough for the untuned recipe and its proof alone; the second start makes neither again."""
    first = tool(own_home, "bench", "--tune", "1", "--recipe", "tiny")
    assert first.rc == 0 and not first.data["complete"]
    assert [each["label"] for each in first.data["tries"]] == ["untuned"]
    assert len(first.data["tries"][0]["proof"]) == 3
    again = tool(own_home, "bench", "--tune", "1", "--recipe", "tiny")
    assert again.data["tries"][0] == first.data["tries"][0]
