"""What a report says of the data: rows that were left out, and no verdict by limits measured with other data."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from harness.pipeline import count_rows, loss_band, recipe_for_verdict
from harness.process.worker_log import StartEvent
from harness.recipe.loader import load_recipe
from harness.report.run_report import FinishedRun, build_report
from harness.training.launch import read_run
from tests.harness.examples import ENVIRONMENT, HOST, cpu_stack, examination, job, log, run_of

RUN = Path("/runs/1")


def mine(tmp_path: Path, count: int = 4) -> Path:
    file = tmp_path / "mine.json"
    file.write_text(
        json.dumps([{"instruction": f"Say {number}.", "input": "", "output": "x"} for number in range(count)])
    )
    return file


def test_dropped_rows_are_reported() -> None:
    recipe = load_recipe("smollm2-135m-qlora")
    recorded = log(start=StartEvent(rows=85, held_out_rows=10))
    found = build_report(FinishedRun(recipe, run_of(recipe), recorded, RUN), ENVIRONMENT, HOST, given=100)
    assert found.rows and (found.rows.given, found.rows.trained, found.rows.held_out) == (100, 85, 10)
    assert found.rows.dropped == 5
    assert found.notes[0].startswith("5 of 100 rows were not trained on")
    assert "256 tokens" in found.notes[0]


def test_nothing_left_out_says_nothing() -> None:
    recipe = load_recipe("smollm2-135m-qlora")
    found = build_report(
        FinishedRun(recipe, run_of(recipe), log(start=StartEvent(rows=100, held_out_rows=0)), RUN),
        ENVIRONMENT,
        HOST,
        given=100,
    )
    assert found.rows and found.rows.dropped == 0
    assert not any("not trained on" in note for note in found.notes)


def test_what_is_not_known_is_not_guessed() -> None:
    recipe = load_recipe("mistral-7b-qlora")
    found = build_report(FinishedRun(recipe, run_of(recipe), log(start=StartEvent(rows=85)), RUN), ENVIRONMENT, HOST)
    assert found.rows and (found.rows.given, found.rows.dropped) == (None, None)
    assert build_report(FinishedRun(recipe, run_of(recipe), log(start=None), RUN), ENVIRONMENT, HOST, given=9).rows


def test_rows_are_counted_where_they_lie(tmp_path: Path) -> None:
    assert count_rows(job("smollm2-135m-qlora")) == 100
    assert count_rows(job("smollm2-135m-qlora", data=mine(tmp_path))) == 4
    assert count_rows(job("mistral-7b-qlora")) is None


def test_own_data_are_not_judged_by_the_samples_limits(tmp_path: Path) -> None:
    own = job("smollm2-135m-qlora", data=mine(tmp_path))
    traits = recipe_for_verdict(own).traits
    assert (traits.keeps_pairing, traits.marker, traits.must_fall) == (None, None, 0.02)
    run = FinishedRun(recipe_for_verdict(own), run_of(own.recipe), log(), RUN, examination())
    found = build_report(run, ENVIRONMENT, HOST)
    assert (
        found.smoke and {criterion.id: criterion.passed for criterion in found.smoke.criteria}["keeps-pairing"] is None
    )
    assert found.smoke.marked_after is None
    assert recipe_for_verdict(job("smollm2-135m-qlora")).traits.keeps_pairing == 0.9


def test_the_loss_band_holds_for_the_recipe_as_it_is_written(tmp_path: Path) -> None:
    band = load_recipe("smollm2-135m-qlora").traits.loss_band
    assert band and band.low < band.high
    assert loss_band(job("smollm2-135m-qlora")) == loss_band(job("smollm2-135m-qlora", overrides={"seed": 7})) == band
    assert loss_band(job("smollm2-135m-qlora", overrides={"max_steps": 12})) is None
    assert loss_band(job("smollm2-135m-qlora", data=mine(tmp_path))) is None
    assert loss_band(job("tiny")) is None


def test_random_weights_are_marked() -> None:
    recipe = load_recipe("mistral-7b-qlora-synthetic")
    found = build_report(FinishedRun(recipe, run_of(recipe), log(), RUN), ENVIRONMENT, HOST)
    assert found.notes[0].startswith("Throughput only")
    assert found.verdict == "pass"


def test_traits_survive_the_runs_document(tmp_path: Path) -> None:
    run = run_of(load_recipe("smollm2-135m-qlora"))
    (tmp_path / "run.json").write_bytes(msgspec.json.encode(run))
    assert read_run(tmp_path).traits == run.traits
    assert cpu_stack().name == run.stack
