"""Small, whole examples of what the harness works on: a log, an environment, an examination, a run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from checks.catalogue import Stack, catalogue
from harness.environment.build import Environment
from harness.pipeline import Job, TrainingSetup
from harness.process.worker_log import BeginEvent, EndEvent, StartEvent, StepEvent, WorkerLog
from harness.recipe.loader import Recipe, load_recipe
from harness.report.run_report import HostSummary
from harness.training.examination import AnswerPair, Examination, HeldOutLosses
from harness.training.launch import DOCUMENT, RunRecord

HOST = HostSummary(
    os="Ubuntu 24.04.3 LTS",
    kernel="6.17.0-35-generic",
    cpu="AMD Ryzen 9 7950X",
    cores=16,
    memory_bytes=64 << 30,
    cards=(),
    driver=None,
)
ENVIRONMENT = Environment(
    stack="cpu",
    folder="/home/ada/.local/share/gpu-setup/env/cpu-0123456789ab-py3.12",
    lock_digest="ab" * 32,
    python_version="3.12",
    torch="2.13.0+cpu",
    torch_from="index",
    torch_verified="unverified",
    built_at="2026-11-24T10:00:00Z",
    seconds=200.0,
)


def step(number: int, **facts: Any) -> StepEvent:
    """One second, 100 slots, 80 of them real, 40 of them trained on."""
    usual: dict[str, Any] = {
        "step": number,
        "seconds": 1.0,
        "micro_batches": 1,
        "processed": 100,
        "non_padding": 80,
        "trainable": 40,
        "loss": 4.0,
        "own_seconds": 0.001,
        "rss_bytes": 1 << 30,
    }
    return StepEvent(**{**usual, **facts})


def log(*steps: StepEvent, **parts: Any) -> WorkerLog:
    """A log that ended well, of the steps given (ten usual ones without any)."""
    kept = steps or tuple(step(number, loss=5.0 - 0.2 * number) for number in range(1, 11))
    whole: dict[str, Any] = {
        "start": StartEvent(device="x86_64", device_type="cpu", torch="2.13.0+cpu", axolotl="0.19.0"),
        "begin": BeginEvent(planned_steps=len(kept)),
        "steps": kept,
        "end": EndEvent(steps=len(kept), rss_bytes=2 << 30),
    }
    return WorkerLog(**{**whole, **parts})


def examination(**parts: Any) -> Examination:
    """Held-out loss halved, pairing kept, one answer in the house style."""
    whole: dict[str, Any] = {
        "rows": 12,
        "before": HeldOutLosses(held_out_loss=4.0, mismatched_loss=4.4),
        "after": HeldOutLosses(held_out_loss=2.0, mismatched_loss=2.5),
        "answers": (AnswerPair("How do I make tea?", "Boil water.", "Ahoy from the workbench, friend! Boil water."),),
    }
    return Examination(**{**whole, **parts})


def cpu_stack() -> Stack:
    return catalogue().stack("cpu")


def job(name: str = "tiny", **parts: Any) -> Job:
    return Job(load_recipe(name), cpu_stack(), **parts)


def run_of(recipe: Recipe, **facts: Any) -> RunRecord:
    usual: dict[str, Any] = {
        "recipe": recipe.name,
        "traits": recipe.traits,
        "recipe_digest": recipe.digest,
        "status": "done",
        "started_at": "2026-11-24T10:00:00Z",
        "base_model": "/models/tiny",
        "stack": "cpu",
        "lock_digest": ENVIRONMENT.lock_digest,
        "torch": ENVIRONMENT.torch,
        "inputs": "inputs",
        "seconds": 30.0,
    }
    return RunRecord(**{**usual, **facts})


def ready(inputs: str = "inputs") -> TrainingSetup:
    return TrainingSetup(ENVIRONMENT, "/models/tiny", inputs)


def run_folder(folder: Path, run: RunRecord, recorded: WorkerLog | None = None) -> Path:
    """The folder of a run as `train` leaves it, adapter included."""
    (folder / "adapter").mkdir(parents=True)
    (folder / DOCUMENT).write_bytes(msgspec.json.encode(run))
    recorded = recorded or log()
    events = [recorded.start, recorded.begin, *recorded.steps, recorded.end]
    lines = [msgspec.json.encode(event) for event in events if event is not None]
    (folder / "worker.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, list)
    return found
