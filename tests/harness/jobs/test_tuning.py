"""Tries as they are run and kept: resumed, out of memory, other losses, no room. The trainings are stand-ins here; real
ones: tests/lab/harness/test_tune.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checks.catalogue import catalogue
from harness.environment.build import Environment
from harness.environment.worker_process import WorkerContext
from harness.jobs import tune_run
from harness.jobs.tune_run import DOCUMENTS, TuneResult, TuneSettings, read_tries, tune
from harness.jobs.tune_search import TuneTry
from harness.pipeline import Job, TrainingSetup
from harness.process.worker_log import StartEvent, StepEvent, WorkerLog
from harness.recipe.loader import load_recipe
from harness.training.launch import RunSpec
from machine.errors import BadUsage, Interrupted, OutsideFailed
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import paths

# (config of the try) → seconds a step, or what goes wrong
Answers = Callable[[dict[str, Any]], float | Exception]


class Trainings:
    """Stands for Axolotl: twelve steps of 400 tokens at the speed that the config has, or three of a proof."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, answers: Answers) -> None:
        self.ran: list[dict[str, Any]] = []
        self._answers = answers
        self.losses: Callable[[dict[str, Any]], float] = lambda config: 4.0
        self.rows: Callable[[dict[str, Any]], int] = lambda config: 100
        monkeypatch.setattr(tune_run, "train", self._train)
        self.paths = paths({"GPU_SETUP_HOME": str(home)})

    def _train(self, spec: RunSpec, folder: Path, _worker: WorkerContext) -> WorkerLog:
        config = {**spec.recipe.config, **spec.overrides}
        self.ran.append(config)
        answer = self._answers(config)
        if isinstance(answer, Exception):
            raise answer
        proof = config.get("num_epochs") == tune_run.PROOF_STEPS and config["max_steps"] == tune_run.PROOF_STEPS
        start = StartEvent(rows=DOCUMENTS if proof else self.rows(config))
        steps = [
            StepEvent(n, answer, 1, 500, 400, 200, self.losses(config) - 0.1 * n, 0.0, documents=4)
            for n in range(1, 4 if proof else 13)
        ]
        log = WorkerLog(start=start, steps=tuple(steps))
        (folder / "worker.jsonl").write_bytes(_lines(log))
        return log

    def tune(self, minutes: float = 60.0, room: int | None = None, recipe: str = "smollm2-135m-qlora") -> TuneResult:
        environment = Environment("cpu", "/nowhere", "", "3.11", "2", "local", "unverified", "", 0.0)
        stack = catalogue().stack("cpu")
        job, ready = Job(load_recipe(recipe), stack), TrainingSetup(environment, "base", "0123456789abcdef" * 4)
        return tune(job, ready, TuneSettings(minutes, room=room), LocalMachine(), self.paths, silent)


def _lines(log: WorkerLog) -> bytes:
    import msgspec

    return b"".join(msgspec.json.encode(each) + b"\n" for each in (log.start, *log.steps))


def packed_is_faster(config: dict[str, Any]) -> float:
    return 1.0 if config.get("sample_packing") else 2.0


def test_the_fastest_is_written_as_a_recipe_and_every_try_is_kept(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    found = Trainings(monkeypatch, home, packed_is_faster).tune()
    assert found.complete and found.best > 0
    assert found.duel and found.duel.ratio == pytest.approx(2.0) and len(found.duel.tuned) == tune_run.PAIRS
    assert found.recipe and load_recipe(found.recipe).config["sample_packing"] is True
    assert read_tries(Path(found.folder)) == found.tries
    assert len(list((Path(found.folder) / "tries").glob("*.json"))) == len(found.tries) > 4


def test_the_duel_goes_turn_by_turn(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    trainings = Trainings(monkeypatch, home, packed_is_faster)
    trainings.tune()
    last = [bool(config.get("sample_packing")) for config in trainings.ran[-2 * tune_run.PAIRS :]]
    assert last == [False, True] * tune_run.PAIRS


def test_a_stopped_tuning_resumes_where_it_was(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    calls = 0

    def stopped(config: dict[str, Any]) -> float | Exception:
        nonlocal calls
        calls += 1
        return Interrupted("stopped", "Stopped.") if calls == 6 else packed_is_faster(config)

    with pytest.raises(Interrupted):
        Trainings(monkeypatch, home, stopped).tune()
    whole = Trainings(monkeypatch, home, packed_is_faster)
    found = whole.tune()
    assert found.complete and found.recipe
    untuned = [config for config in whole.ran if config["max_steps"] != tune_run.PROOF_STEPS]
    again = Trainings(monkeypatch, home, packed_is_faster)
    assert again.tune().tries == found.tries
    assert again.ran == [], "all was done already"
    assert len(untuned) < len(found.tries) + 2 * tune_run.PAIRS, "the tries before the stop were not made again"


def test_out_of_memory_is_a_result(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    def answers(config: dict[str, Any]) -> float | Exception:
        if config.get("chunked_cross_entropy"):
            return OutsideFailed("train.out-of-memory", "The card's memory is full.", "CUDA out of memory.")
        return 2.0

    found = Trainings(monkeypatch, home, answers).tune()
    (failed,) = [entry for entry in found.tries if entry.status == "failed"]
    assert failed.label == "loss in chunks" and "memory is full" in failed.reason
    assert found.best == 0 and found.recipe is None
    assert "No change was faster" in " ".join(found.notes)


def test_what_is_faster_and_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    trainings = Trainings(monkeypatch, home, packed_is_faster)
    trainings.losses = lambda config: 3.5 if config.get("sample_packing") else 4.0
    found = trainings.tune()
    different = [entry for entry in found.tries if entry.status == "different"]
    assert different and all("the losses 3.4" in entry.reason for entry in different)
    assert found.best == 0 and found.recipe is None


def test_the_proof_has_one_answer_so_that_no_grouping_weighs_a_row_more(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    trainings = Trainings(monkeypatch, home, packed_is_faster)
    found = trainings.tune()
    rows = json.loads((Path(found.folder) / "proof.json").read_text())
    assert len(rows) == DOCUMENTS == len({row["instruction"] for row in rows})
    assert len({row["output"] for row in rows}) == 1


def test_a_try_on_other_rows_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    trainings = Trainings(monkeypatch, home, packed_is_faster)
    trainings.rows = lambda config: 120 if config["sequence_len"] > 256 else 100
    (packed,) = [entry for entry in trainings.tune().tries if entry.group == "packing"]
    assert packed.status == "different" and packed.reason == "trains on 120 rows instead of 100"


def test_what_has_no_room_is_not_run(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    trainings = Trainings(monkeypatch, home, packed_is_faster)
    found = trainings.tune(room=10**6)
    assert {entry.status for entry in found.tries[1:]} == {"no-room"}
    assert "gpu-setup fit predicts" in found.tries[1].reason
    assert len(trainings.ran) == 2, "the untuned recipe and its proof"


def test_an_untuned_recipe_that_does_not_run_is_reported(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    trainings = Trainings(monkeypatch, home, lambda config: OutsideFailed("train.bad", "It broke."))
    with pytest.raises(OutsideFailed, match="does not run"):
        trainings.tune()
    assert not list(trainings.paths.state.glob("tune/*/tries/*.json"))


def test_the_time_is_kept(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    found = Trainings(monkeypatch, home, packed_is_faster).tune(minutes=0.0)
    assert not found.complete and len(found.tries) == 1
    assert any("time was over" in note for note in found.notes)


def test_a_broken_document_of_a_try_is_made_again(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    found = Trainings(monkeypatch, home, packed_is_faster).tune()
    (Path(found.folder) / "tries" / "02.json").write_text("{")
    assert len(read_tries(Path(found.folder))) == 2
    assert Trainings(monkeypatch, home, packed_is_faster).tune().complete


def test_a_document_says_all_that_the_next_start_needs() -> None:
    import msgspec

    entry = TuneTry(1, "packing", "packed", {"sample_packing": True}, "measured", 12.5, proof=(4.0, 3.9))
    assert msgspec.json.decode(msgspec.json.encode(entry), type=TuneTry) == entry


def test_only_the_options_that_fit_go_with_tune(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_setup.cli import run

    assert run(["bench", "--tune", "5", "--record"]) == 2
    assert "--tune measures in its own way" in capsys.readouterr().err
    with pytest.raises(BadUsage):
        load_recipe("nowhere.yaml")
