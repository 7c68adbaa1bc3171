"""Reports for the comparison's tests, built by the real code from logs that are synthetic: no card was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from harness.process.worker_log import EndEvent, StartEvent, StepEvent, WorkerLog
from harness.recipe.loader import Recipe, load_recipe
from harness.report.run_report import FinishedRun, HostSummary, Report, build_report
from tests.harness.examples import ENVIRONMENT, HOST, log, run_of, step

RECIPE = load_recipe("smollm2-135m-qlora")
MISTRAL = load_recipe("mistral-7b-qlora")
SYNTHETIC = load_recipe("mistral-7b-qlora-synthetic")
LENGTH = 2048
# what a benchmark's exact-length documents change in a recipe (harness/measure/workload.py)
EXACT: dict[str, Any] = {
    "datasets": [{"path": "/home/ada/.cache/gpu-setup/workloads/exact-2048-1.jsonl", "ds_type": "json", "type": None}],
    "sequence_len": LENGTH,
    "sample_packing": False,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "max_steps": 20,
    "lora_dropout": 0,
    "val_set_size": 0,
}


def steps(seconds: float, number: int = 20, spread: float = 0.01, **facts: Any) -> tuple[StepEvent, ...]:
    """Steps whose times lie around `seconds`, the same each time."""
    return tuple(
        step(each, seconds=seconds * (1 + spread * ((each * 7) % 11 - 5) / 5), loss=5.0 - 0.05 * each, **facts)
        for each in range(1, number + 1)
    )


def small(seconds: float = 1.0, started_at: str = "2026-11-24T10:00:00Z", **parts: Any) -> Report:
    """A run of the small recipe on a processor. `recipe`, `host`, `steps`, `log`, `start` and `run` take others."""
    recipe: Recipe = parts.pop("recipe", RECIPE)
    start = StartEvent(**{**usual_start(), **parts.pop("start", {})})
    usual = log(*parts.pop("steps", steps(seconds)), start=start)
    recorded: WorkerLog = parts.pop("log", usual)
    run = run_of(recipe, started_at=started_at, **parts.pop("run", {}))
    host: HostSummary = msgspec.structs.replace(HOST, **parts.pop("host", {}))
    assert not parts, parts
    return build_report(FinishedRun(recipe, run, recorded, Path("/home/ada/runs") / started_at), ENVIRONMENT, host)


def usual_start() -> dict[str, Any]:
    return {
        "device": "x86_64",
        "device_type": "cpu",
        "torch": "2.13.0+cpu",
        "axolotl": "0.19.0",
        "attention": "sdpa",
        "trainable_parameters": 9_768_960,
        "precision": "fp32",
    }


def card(
    name: str = "RTX 3090",
    tokens_per_second: float = 1000.0,
    started_at: str = "2026-11-24T10:00:00Z",
    recipe: Recipe = SYNTHETIC,
    **parts: Any,
) -> Report:
    """A run of Mistral 7B on documents of 2048 tokens on a card. Synthetic: its figures are made up."""
    amd = name.startswith("Radeon")
    start = {
        **usual_start(),
        "device": f"AMD {name}" if amd else f"NVIDIA GeForce {name}",
        "device_type": "gpu",
        "precision": "bf16",
        "checkpointing": True,
        "trainable_parameters": 83_886_080,
        "cuda": None if amd else "13.0",
        "hip": "7.2.0" if amd else None,
        **parts.pop("start", {}),
    }
    tokens = LENGTH * 8
    facts = {
        "processed": tokens,
        "non_padding": tokens,
        "trainable": tokens,
        "documents": 8,
        "squares": LENGTH**2 * 8,
        "micro_batches": 4,
        "device_allocated_bytes": 14 << 30,
    }
    taken = steps(tokens / tokens_per_second, spread=parts.pop("spread", 0.004), **facts)
    recorded = log(*taken, start=StartEvent(**start), end=EndEvent(len(taken), 2 << 30, 14 << 30, 15 << 30))
    host = {"cards": (name,), "driver": "580.95.05", "power_limit_watts": 350.0, **parts.pop("host", {})}
    overrides = {**EXACT, **parts.pop("overrides", {})}
    return small(recipe=recipe, log=recorded, host=host, started_at=started_at, run={"overrides": overrides}, **parts)
