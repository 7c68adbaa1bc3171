"""`data check --recipe`: the figures of the real tokenizer, against what a real run counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.process.worker_log import read_worker_log
from harness.recipe.loader import SAMPLES
from tests.harness.dataset.corpus import clean_rows
from tests.lab.training import Ended, tool

pytestmark = pytest.mark.lab


def tokens(home: Path, path: Path, recipe: str) -> dict[str, Any]:
    return tool(home, "data", "check", str(path), "--recipe", recipe).data


def test_tokens_are_those_that_a_run_of_the_recipe_counted(own_home: Path, tiny_run: Ended) -> None:
    """The shipped set, which that run trained on: a whole pass over it has exactly these tokens."""
    data = tokens(own_home, SAMPLES / "house-style.json", "tiny")
    found = data["tokens"]
    log = read_worker_log(Path(tiny_run.data["folder"]) / "worker.jsonl")
    assert log is not None
    a_pass = [step for step in log.steps if step.step <= 25]
    assert found["total"] == sum(step.non_padding for step in a_pass)
    assert found["trainable"] == sum(step.trainable for step in a_pass)
    assert found["over_length"] == found["no_trainable"] == found["no_eos"] == 0
    measured = sum(step.non_padding for step in log.steps) / sum(step.processed for step in log.steps)
    assert found["efficiency"] == pytest.approx(measured, abs=0.05)
    # no run in this home: a speed is not made up
    assert found["steps"]["seconds"] is None and "is not known yet" in found["steps"]["because"]


def test_long_rows_are_named_and_what_axolotl_does_with_them(own_home: Path, tmp_path: Path) -> None:
    rows = clean_rows(30, 1, ("en",))
    rows[7]["output"] = " ".join(row["output"] for row in clean_rows(40, 2, ("en",)))
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    data = tokens(own_home, path, "tiny")
    over = next(each for each in data["findings"] if each["kind"] == "over-length")
    assert 7 in over["rows"] and "Axolotl drops them" in over["summary"]
    assert data["tokens"]["kept"] == 30 - len(over["rows"])
    assert data["tokens"]["lengths"]["largest"] > 1000


def test_the_time_is_a_finished_runs_speed(training: Any, tiny_run: Ended, session_folder: Path) -> None:
    data = tokens(session_folder / "tiny-run", SAMPLES / "house-style.json", "tiny")
    steps = data["tokens"]["steps"]
    assert steps["seconds"] is not None and "measured in" in steps["because"]
    # 30 steps of four rows: seconds or minutes, on any machine
    assert 0.5 < steps["seconds"] < 600
