"""Which checkpoint a cut run goes on from: never one that is not whole, whatever a kill or a power cut left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.training.checkpoints import is_complete, newest_complete, remove_later


def checkpoint(adapter: Path, step: int) -> Path:
    """A checkpoint as gpu_setup_worker/checkpoints.py marks it."""
    folder = adapter / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    files = {
        "adapter_model.safetensors": b"weights" * step,
        "optimizer.pt": b"moments" * step,
        "trainer_state.json": b"{}",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    listed = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in files.items()}
    (folder / "whole.json").write_text(json.dumps({"step": step, "files": listed}))
    return folder


def test_the_newest_one(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        checkpoint(tmp_path, step)
    found = newest_complete(tmp_path)
    assert found is not None and (found.step, found.folder.name) == (10, "checkpoint-10")


def test_none(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    assert newest_complete(tmp_path / "absent") is None


@pytest.mark.parametrize("what", ["cut", "changed", "gone", "unmarked", "mark cut", "mark of another"])
def test_an_incomplete_one_is_skipped(tmp_path: Path, what: str) -> None:
    checkpoint(tmp_path, 4)
    torn = checkpoint(tmp_path, 8)
    weights, mark = torn / "optimizer.pt", torn / "whole.json"
    match what:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "changed":
            # a power cut may leave a file with its length and without its content
            weights.write_bytes(bytes(len(weights.read_bytes())))
        case "gone":
            weights.unlink()
        case "unmarked":
            mark.unlink()
        case "mark cut":
            mark.write_text(mark.read_text()[:-5])
        case _:
            mark.write_text((tmp_path / "checkpoint-4" / "whole.json").read_text())
    assert not is_complete(torn)
    found = newest_complete(tmp_path)
    assert found is not None and found.step == 4


def test_from_the_last_step_the_trainer_would_go_one_too_far(tmp_path: Path) -> None:
    for step in (8, 12):
        checkpoint(tmp_path, step)
    found = newest_complete(tmp_path, before=12)
    assert found is not None and found.step == 8


def test_later_ones_are_removed_before_resuming(tmp_path: Path) -> None:
    for step in (4, 8, 12):
        checkpoint(tmp_path, step)
    (tmp_path / "adapter_config.json").write_text("{}")
    remove_later(tmp_path, 4)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["adapter_config.json", "checkpoint-4"]
