"""Runs: which one is reused, which inputs make another, and what is marked when a run was cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from harness.atomic_files import write_atomic
from harness.pipeline import Job, find_finished_run, inputs_digest
from harness.recipe.loader import SAMPLES, Traits, load_recipe
from harness.training.examination import held_out_file
from harness.training.launch import LOCK, mark_interrupted, new_run_folder, read_run
from machine.errors import BadUsage, OutsideFailed
from tests.harness.examples import ENVIRONMENT, job, ready, run_folder, run_of

RECIPE = load_recipe("tiny")


def digest(chosen: Job, base_model: str = "/models/tiny") -> str:
    return inputs_digest(chosen, ENVIRONMENT, base_model)


def test_a_finished_run_with_the_same_inputs_is_reused_the_newest_first(tmp_path: Path) -> None:
    run_folder(tmp_path / "20261124-100000-tiny", run_of(RECIPE))
    newest = run_folder(tmp_path / "20261124-110000-tiny", run_of(RECIPE))
    run_folder(tmp_path / "20261124-120000-tiny", run_of(RECIPE, inputs="others"))
    assert find_finished_run(ready(), tmp_path) == newest


@pytest.mark.parametrize("facts", [{"status": "running"}, {"status": "failed"}, {"status": "interrupted"}])
def test_a_run_that_did_not_finish_is_not_reused(tmp_path: Path, facts: dict[str, str]) -> None:
    run_folder(tmp_path / "1", run_of(RECIPE, **facts))
    assert find_finished_run(ready(), tmp_path) is None


def test_a_run_whose_adapter_is_gone_is_not_reused(tmp_path: Path) -> None:
    (run_folder(tmp_path / "1", run_of(RECIPE)) / "adapter").rmdir()
    assert find_finished_run(ready(), tmp_path) is None


def test_no_runs_at_all_and_folders_that_are_none(tmp_path: Path) -> None:
    assert find_finished_run(ready(), tmp_path / "absent") is None
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "file").write_text("")
    assert find_finished_run(ready(), tmp_path) is None


def test_the_same_job_has_the_same_inputs() -> None:
    assert digest(job()) == digest(job())


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str, str], Job]:
    """A job on a recipe of one's own beside its data: `own(more_yaml, rows)`."""

    def make(more: str, rows: str) -> Job:
        (tmp_path / "mine.json").write_text(rows)
        (tmp_path / "mine.yaml").write_text(RECIPE.text.replace("house-style.json", "mine.json") + more)
        return msgspec.structs.replace(job(), recipe=load_recipe(str(tmp_path / "mine.yaml")))

    return make


def test_whatever_decides_the_run_changes_the_inputs(tmp_path: Path, own: Callable[[str, str], Job]) -> None:
    data = tmp_path / "data.json"
    data.write_text("[1]")
    with_data = digest(job(data=data))
    data.write_text("[2]")
    seen = [
        digest(job()),
        digest(job("smollm2-135m-qlora")),
        digest(job(overrides={"seed": 7})),
        digest(job(overrides={"seed": 8})),
        digest(job(), base_model="/models/other"),
        with_data,
        digest(job(data=data)),
        digest(own("", "[1]")),
        digest(own("", "[2]")),
        digest(own("# a word\n", "[2]")),
        inputs_digest(job(), msgspec.structs.replace(ENVIRONMENT, lock_digest="other"), "/models/tiny"),
        inputs_digest(job(), msgspec.structs.replace(ENVIRONMENT, torch="2.12.0"), "/models/tiny"),
    ]
    assert len(set(seen)) == len(seen)


def test_folders_are_named_by_time_and_recipe_and_never_shared(tmp_path: Path) -> None:
    made = {new_run_folder(tmp_path / "runs", RECIPE) for _ in range(3)}
    assert len(made) == 3
    assert all("-tiny" in folder.name for folder in made)


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(OutsideFailed) as caught:
        new_run_folder(Path("/proc/nowhere"), RECIPE)
    assert caught.value.code == "run.unwritable"
    assert "GPU_SETUP_HOME" in caught.value.next
    with pytest.raises(OutsideFailed) as caught:
        write_atomic(Path("/proc/nowhere/run.json"), "{}")
    assert caught.value.code == "disk.unwritable"


def test_a_run_that_was_killed_is_marked_when_its_lock_is_free(tmp_path: Path) -> None:
    killed = run_folder(tmp_path / "1", run_of(RECIPE, status="running"))
    alive = run_folder(tmp_path / "2", run_of(RECIPE, status="running"))
    done = run_folder(tmp_path / "3", run_of(RECIPE))
    with FileLock(alive / LOCK):
        mark_interrupted(tmp_path)
    assert [read_run(folder).status for folder in (killed, alive, done)] == ["interrupted", "running", "done"]


@pytest.mark.parametrize("content", [None, "", "[]", '{"recipe": "tiny"}'])
def test_what_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadUsage) as caught:
        read_run(tmp_path)
    assert caught.value.code == "run.none"


def test_which_rows_were_held_out(tmp_path: Path) -> None:
    own, split = Traits(title="x", held_out="held-out.json"), Traits(title="x")
    assert held_out_file(own, tmp_path, own_data=False) == SAMPLES / "held-out.json"
    assert held_out_file(own, tmp_path, own_data=True) is None
    assert held_out_file(split, tmp_path, own_data=False) is None
    saved = tmp_path / "held-out-tokens.json"
    saved.write_text("[]")
    assert held_out_file(split, tmp_path, own_data=False) == saved
    assert held_out_file(own, tmp_path, own_data=True) == saved
