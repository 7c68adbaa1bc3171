"""Failures of a training, each injected for real: the cause is named, what was kept is said, and the next step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.recipe.loader import SAMPLES
from tests.lab.disks import mounted
from tests.lab.training import Ended, own_recipe, runs, started, status, steps, tool, trainer, trainings, wait_for

pytestmark = pytest.mark.lab


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(json.loads((SAMPLES / "house-style.json").read_text())[:40]))
    return file


def words(data: Path, recipe: str = "tiny", count: int = 200, every: int = 4) -> tuple[str, ...]:
    return (
        "train", str(data), "--recipe", recipe, "--steps", str(count), "--save-steps", str(every), "--patience", "0",
        "--no-examine",
    )  # fmt: skip


def error_of(ended: Ended, code: str, rc: int = 4) -> dict[str, str]:
    assert (ended.rc, ended.error["code"]) == (rc, code), ended.stderr
    assert ended.error["why"] and ended.error["next"]
    return ended.error


def test_a_hung_step(own_home: Path, data: Path) -> None:
    """The training is frozen from outside, as a card that never answers freezes it."""
    with started(own_home, *words(data), "--hung-after", "25", "--json") as child:
        wait_for(lambda: runs(own_home) and len(steps(runs(own_home)[-1])) >= 6)
        os.kill(trainer(own_home), signal.SIGSTOP)
        out, said = child.communicate(timeout=60)
        assert not trainings(own_home), "it was aborted"
    assert child.returncode == 4, said
    (error,) = json.loads(out)["errors"]
    assert error["code"] == "train.hung"
    assert "the checkpoint of step 4 is kept" in error["why"]
    assert f"gpu-setup train --resume {runs(own_home)[0]}" in error["next"]
    assert "No step for" in said, "told before it was aborted"


def test_a_loss_that_is_not_finite_leaves_the_checkpoints_before_it(own_home: Path, data: Path, tmp_path: Path) -> None:
    recipe = own_recipe(
        tmp_path, ("learning_rate: 0.003", "learning_rate: 1.0e+37"), ("warmup_steps: 3", "warmup_steps: 0")
    )
    ended = tool(own_home, *words(data, str(recipe), 20, every=2))
    error = error_of(ended, "train.loss-not-finite", rc=1)
    assert "learning_rate" in error["next"]
    (run,) = runs(own_home)
    events = [json.loads(line) for line in (run / "worker.jsonl").read_text().splitlines()]
    assert not [event for event in events if event["event"] == "saved"], "weights that are not finite are not kept"
    assert [event["reason"] for event in events if event["event"] == "unsaved"] == ["not-finite"]


def test_the_out_of_memory_killer(own_home: Path, data: Path) -> None:
    """A real limit of a control group: the kernel ends the training, not the tool."""
    group = Path("/sys/fs/cgroup/memory/gpu-setup-test")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group of ours can be made: {error.strerror}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(700 << 20))
        limited = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
        ended = tool(own_home, *words(data, count=4), before=limited)
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text().split(), 30)
        group.rmdir()
    error = error_of(ended, "train.out-of-memory-host")
    # the kernel's own line told a full limit from a full machine
    assert "was reached" in error["what"] and "Killed process" in error["why"]
    assert "micro_batch_size" in error["next"]


@pytest.fixture
def small_disk(own_home: Path) -> Iterator[Path]:
    """A home whose runs lie on a disk that holds the first checkpoints and not all of them; needs root."""
    with mounted(own_home / "state", "size=64m"):
        yield own_home


def test_a_disk_that_is_full_at_a_checkpoint(small_disk: Path, data: Path) -> None:
    """Something else fills it: the checkpoint is left out, the training goes on, and the same command ends it later."""
    with started(small_disk, *words(data, count=24), "--json") as child:
        wait_for(lambda: runs(small_disk) and len(steps(runs(small_disk)[-1])) >= 5)
        free = os.statvfs(small_disk / "state")
        filler = small_disk / "state" / "filler"
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - (1 << 20))))
        out, said = child.communicate(timeout=400)
    (run,) = runs(small_disk)
    assert "the disk has no space for it" in said
    (error,) = json.loads(out)["errors"]
    assert child.returncode == 4 and error["code"] in ("train.disk-full", "disk.unwritable"), said
    assert "--resume" in error["next"], "there is a checkpoint from before"
    filler.unlink()
    again = tool(small_disk, "train", "--resume", str(run), "--no-examine")
    assert again.rc == 0, again.stderr
    assert again.data["resumed_from"] and again.data["steps"] == 24


def test_a_library_that_is_missing(own_home: Path, data: Path, tmp_path: Path) -> None:
    """An optimizer of Axolotl's whose package is not in the lock. (What is in it is looked at before each run.)"""
    recipe = own_recipe(tmp_path, ("optimizer: adamw_torch", "optimizer: came_pytorch"))
    error = error_of(tool(own_home, *words(data, str(recipe), 2)), "train.library-missing")
    assert "came_pytorch" in error["why"]
    assert "gpu-setup environment" in error["next"]


def test_a_model_that_wants_to_run_code(own_home: Path, data: Path, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, ("load_in_4bit: true", "load_in_4bit: true\ntrust_remote_code: true"))
    error = error_of(tool(own_home, *words(data, str(recipe))), "recipe.remote-code", rc=2)
    assert "trust_remote_code" in error["what"]
    assert not runs(own_home)


def test_a_folder_of_pickles_is_not_loaded(own_home: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "pickled"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    recipe = own_recipe(tmp_path, ("base_model: tiny-random-mistral", f"base_model: {model}"))
    error_of(tool(own_home, *words(data, str(recipe))), "model.no-safetensors", rc=3)


def test_two_at_once(own_home: Path, data: Path, tmp_path: Path) -> None:
    """The second one does not write into the first one's folder."""
    with started(own_home, *words(data), "--out", str(tmp_path / "mine")):
        wait_for(lambda: (tmp_path / "mine" / "run.json").exists())
        error = error_of(tool(own_home, *words(data), "--out", str(tmp_path / "mine")), "train.running", rc=3)
        assert str(tmp_path / "mine") in error["what"]
    wait_for(lambda: not trainings(own_home), 20)
    assert status(tmp_path / "mine")["status"] == "running", "nobody could say otherwise"
