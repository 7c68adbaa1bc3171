"""What a training on a person's own data changes in a recipe, and which folder it goes on in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from harness.jobs.train import (
    SPEC,
    TrainingSettings,
    TrainingSpec,
    check_data,
    choose_run_folder,
    read_spec,
    recipe_passes,
    refuse_too_large,
    training_overrides,
    training_result,
    training_spec,
    with_work_digest,
)
from harness.memory.available import AvailableMemory
from harness.process.worker_log import EarlyStopEvent, EvaluationEvent, WorkerLog
from harness.recipe.axolotl_config import run_config
from harness.recipe.loader import load_recipe
from harness.report.run_report import FinishedRun
from harness.training.examination import Examination
from harness.training.launch import CheckpointPolicy
from machine.errors import BadAnswer, BadUsage, Refused
from machine.events import Event, silent
from tests.harness.examples import examination, job, log, ready, run_folder, run_of, step

ROWS = [
    {"instruction": f"Say the number {word}.", "input": "", "output": f"The number that you asked for is {word}."}
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(ROWS))
    return file


def spec(data: Path, **parts: object) -> TrainingSpec:
    work = with_work_digest(training_spec(job(data=data), TrainingSettings(), "tiny", "ab" * 32, 12), ready())
    return msgspec.structs.replace(work, **parts)


# How long, and when it is evaluated and saved


def test_max_steps_for_the_recipes_own_data_become_passes_over_a_persons() -> None:
    recipe = load_recipe("smollm2-135m-qlora")
    # 50 steps of 2 x 2 rows over its own 100
    assert recipe_passes(recipe) == 2
    config = run_config(recipe, "/m", Path("/r"), Path("/mine.json"), training_overrides(recipe, TrainingSettings()))
    assert config["num_epochs"] == 2 and "max_steps" not in config
    assert config["save_steps"] == config["eval_steps"] == 0.1
    assert config["load_best_model_at_end"] is True and config["val_set_size"] == 0.1
    assert "save_strategy" not in config, "the recipe saves nothing, a training on your data does"


def test_a_recipe_with_passes_keeps_them() -> None:
    recipe = load_recipe("mistral-7b-qlora")
    config = run_config(recipe, "/m", Path("/r"), Path("/mine.json"), training_overrides(recipe, TrainingSettings()))
    assert config["num_epochs"] == recipe.config["num_epochs"]
    assert not {"saves_per_epoch", "evals_per_epoch"} & set(config), "Axolotl refuses them beside save_steps"
    assert config["save_steps"] == 0.2


def test_the_users_options_come_first() -> None:
    recipe = load_recipe("tiny")
    assert (
        training_overrides(recipe, TrainingSettings(steps=7, save_steps=2, patience=0, seed=3)).items()
        >= {
            "max_steps": 7,
            "save_steps": 2,
            "eval_steps": 2,
            "load_best_model_at_end": False,
            "seed": 3,
        }.items()
    )
    config = run_config(recipe, "/m", Path("/r"), None, training_overrides(recipe, TrainingSettings(epochs=0.5)))
    assert config["num_epochs"] == 0.5 and "max_steps" not in config
    # a share of 1 would be taken for one step
    assert config["save_steps"] < 1


# The data


def test_data_that_are_fine(data: Path) -> None:
    said: list[Event] = []
    assert check_data(data, False, said.append) == (hashlib.sha256(data.read_bytes()).hexdigest(), 12)
    assert said[-1].text.startswith("12 rows")


def test_data_with_errors_are_refused_unless_accepted(data: Path) -> None:
    key = "ghp_" + "R8q2LmT5vX9zKc3WbN7yPd4JhG6sFa1QeUoZ"[:36]
    data.write_text(json.dumps([*ROWS, {"instruction": "What is the token?", "output": f"It is {key}, keep it safe."}]))
    with pytest.raises(BadAnswer) as refused:
        check_data(data, False, silent)
    assert refused.value.code == "data.errors"
    assert "gpu-setup data check" in refused.value.next and "--accept-data" in refused.value.next
    assert key not in str(refused.value)
    assert check_data(data, True, silent)[1] == 13


def test_one_row_is_too_few(data: Path) -> None:
    data.write_text(json.dumps(ROWS[:1]))
    with pytest.raises(BadAnswer, match="1 row"):
        check_data(data, True, silent)


# Where it lies


def cut_run(folder: Path, data: Path, **facts: object) -> Path:
    recipe = load_recipe("tiny")
    run_folder(folder, run_of(recipe, **{"status": "interrupted", **facts}))
    (folder / SPEC).write_bytes(msgspec.json.encode(spec(data)))
    return folder


def test_the_same_command_resumes_the_newest_run(tmp_path: Path, data: Path) -> None:
    runs = tmp_path / "runs"
    cut = cut_run(runs / "20261124-100000-tiny", data)
    cut_run(runs / "20261124-090000-tiny", data)
    assert choose_run_folder(spec(data), job(data=data), None, False, runs) == cut
    done = cut_run(runs / "20261124-110000-tiny", data, status="done")
    assert choose_run_folder(spec(data), job(data=data), None, False, runs) == done, "what is done is not done twice"
    assert choose_run_folder(spec(data), job(data=data), None, True, runs) != cut
    assert choose_run_folder(spec(data, work="other"), job(data=data), None, False, runs) != cut


def test_a_run_that_was_killed_is_resumed_too(tmp_path: Path, data: Path) -> None:
    cut = cut_run(tmp_path / "20261124-100000-tiny", data, status="running")
    assert choose_run_folder(spec(data), job(data=data), None, False, tmp_path) == cut


def test_a_folder_of_ones_own(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "my-model"
    assert choose_run_folder(spec(data), job(data=data), out, False, tmp_path) == out
    assert out.is_dir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(Refused) as refused:
        choose_run_folder(spec(data), job(data=data), out, False, tmp_path)
    assert refused.value.code == "train.out-taken"
    cut_run(tmp_path / "cut", data)
    assert choose_run_folder(spec(data), job(data=data), tmp_path / "cut", False, tmp_path) == tmp_path / "cut"
    with pytest.raises(Refused) as refused:
        choose_run_folder(spec(data, work="other"), job(data=data), tmp_path / "cut", False, tmp_path)
    assert refused.value.code == "train.other-work"
    assert "--resume" in refused.value.next


def test_what_was_asked_is_read_again(tmp_path: Path, data: Path) -> None:
    cut = cut_run(tmp_path / "cut", data)
    assert read_spec(cut) == spec(data)
    with pytest.raises(BadUsage) as none:
        read_spec(tmp_path)
    assert none.value.code == "train.none"


def test_a_recipe_that_was_changed_since_is_refused(tmp_path: Path, data: Path) -> None:
    cut = cut_run(tmp_path / "cut", data)
    changed = spec(data, recipe_digest="cd" * 32)
    (cut / SPEC).write_bytes(msgspec.json.encode(changed))
    with pytest.raises(BadUsage) as refused:
        read_spec(cut)
    assert refused.value.code == "train.recipe-changed"


def test_the_work_is_not_the_machines(data: Path) -> None:
    """A new kernel or driver between two sessions is another machine, and the same work."""
    one = with_work_digest(training_spec(job(data=data), TrainingSettings(), "tiny", "ab" * 32, 12), ready())
    other = with_work_digest(
        training_spec(job(data=data, conditions=("6.99.0",)), TrainingSettings(), "tiny", "ab" * 32, 12),
        ready("another"),
    )
    assert one.work == other.work
    assert (
        with_work_digest(training_spec(job(data=data), TrainingSettings(seed=9), "tiny", "ab" * 32, 12), ready()).work
        != one.work
    )


# What came of it


def finished(recorded: WorkerLog, judged: Examination | None = None) -> FinishedRun:
    recipe = load_recipe("tiny")
    record = run_of(recipe, resumed_from=(4,), data="/home/ada/mine.json")
    return FinishedRun(recipe, record, recorded, Path("/runs/x"), judged)


def test_an_early_stop_is_reported(data: Path) -> None:
    recorded = log(
        step(1, loss=4.0), step(2, loss=3.0), step(3, loss=2.0),
        evaluations=(EvaluationEvent(1, 3.5), EvaluationEvent(2, 3.0), EvaluationEvent(3, 3.4)),
        early_stop=EarlyStopEvent(3, 2),
    )  # fmt: skip
    result = training_result(spec(data), finished(recorded, examination()))
    assert (result.stopped_early, result.best_step, result.steps, result.resumed_from) == (True, 2, 3, (4,))
    assert (result.held_out_before, result.held_out_after) == (4.0, 2.0)
    assert any("weights of step 2" in note for note in result.notes)
    assert any("slightly too low" in note for note in result.notes)


def test_without_patience_the_last_weights_count(data: Path) -> None:
    recorded = log(evaluations=(EvaluationEvent(2, 3.0), EvaluationEvent(4, "nan")))
    kept = spec(data, keep=CheckpointPolicy(patience=0))
    result = training_result(kept, finished(recorded))
    assert result.best_step is None and result.notes == ()
    assert result.evaluations[1].held_out_loss is None


# Whether it fits


def test_a_card_that_is_too_small_is_reported_before_anything_long() -> None:
    recipe, said = load_recipe("mistral-7b-qlora"), list[Event]()
    small = AvailableMemory("RTX 3060", 8 * 10**9, "7.5 GiB free now", True)
    with pytest.raises(BadAnswer) as refused:
        refuse_too_large(recipe, {}, small, False, said.append)
    assert refused.value.code == "train.does-not-fit"
    assert "gpu-setup fit" in refused.value.why and "--accept-memory" in refused.value.next
    refuse_too_large(recipe, {}, small, True, said.append)
    refuse_too_large(recipe, {}, AvailableMemory("H100", 80 * 10**9, "74.5 GiB free", True), False, said.append)
    assert [event.kind for event in said] == ["warning", "end"]


def test_a_model_that_nobody_knows_is_not_refused() -> None:
    recipe, said = load_recipe("tiny"), list[Event]()
    recipe = msgspec.structs.replace(recipe, config={**recipe.config, "base_model": "somebody/a-new-model"})
    refuse_too_large(recipe, {}, AvailableMemory("RTX 3060", 8 * 10**9, "", True), False, said.append)
    assert "not known" in said[0].text
