"""The model card of a trained model: its base, data, software and results, as README.md for the hub.

It names no file, folder, machine or person: of the data it gives only a digest and the number of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.atomic_files import write_atomic
from harness.jobs.train import TrainingResult
from harness.process.worker_log import WorkerLog
from harness.report.run_report import FinishedRun
from harness.training.launch import RunRecord
from harness.training.portable_adapter import BaseModel
from machine.plain_text import clean

CARD = "README.md"
SHOWN = (
    "adapter", "load_in_4bit", "lora_r", "lora_alpha", "lora_dropout", "sequence_len", "sample_packing",
    "micro_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler", "optimizer", "num_epochs",
    "max_steps", "seed",
)  # fmt: skip


def model_card_text(finished: FinishedRun, result: TrainingResult, base: BaseModel, tool: str, merged: bool) -> str:
    """The model card's text; `tool` is gpu-setup's version, `merged`: the card is for the merged model."""
    recipe, run, log = finished.recipe, finished.record, finished.log
    config = {**recipe.config, **{key: value for key, value in run.overrides.items() if value is not None}}
    if run.overrides.get("max_steps", 0) is None:
        config.pop("max_steps", None)
    start = log.start
    facts = [
        ("base model", base.name),
        ("base revision", base.revision or "not known"),
        ("base licence", base.licence or "not known: check it before you share the model"),
        ("data", f"{result.rows:,} rows (Alpaca), sha256 `{result.data_sha256}`; a tenth held out"),
        ("recipe", f"{recipe.name}, sha256 `{recipe.digest}`"),
        ("steps", f"{result.steps} of {result.planned_steps}" + (", stopped early" if result.stopped_early else "")),
        ("training loss", f"{_figure(result.loss_first)} → {_figure(result.loss_last)}"),
        ("held-out loss", _held_out(result)),
        ("trained at", run.started_at),
        ("trained on", start.device if start and start.device_type == "gpu" else "a CPU"),
        ("software", _software(run, log)),
        ("made with", f"gpu-setup {tool}, stack {run.stack}, lock sha256 `{run.lock_digest}`"),
    ]
    settings = [(key, config[key]) for key in SHOWN if config.get(key) is not None]
    notes = [f"- {note}" for note in result.notes]
    return "\n".join(
        [
            "---",
            *_front(base, merged),
            "---",
            "",
            f"# {base.name}, fine-tuned with {recipe.name}",
            "",
            _use(base, merged),
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in facts),
            "",
            *([*notes, ""] if notes else []),
            "## Settings",
            "",
            *(f"- `{key}: {value}`" for key, value in settings),
            "",
        ]
    )


def _front(base: BaseModel, merged: bool) -> list[str]:
    import yaml

    head: dict[str, Any] = {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["axolotl", "lora", "gpu-setup"],
    }
    if "/" in base.name:
        head |= {"base_model": base.name, "base_model_relation": "finetune" if merged else "adapter"}
    if base.licence:
        head["license"] = base.licence
    return yaml.safe_dump(head, sort_keys=False).splitlines()


def _use(base: BaseModel, merged: bool) -> str:
    if merged:
        return "A plain model folder with base and adapter merged. Any program that reads safetensors can use it."
    return "A LoRA adapter: load it with PEFT on its base, in NF4 as in training (`load_in_4bit`)."


def _software(run: RunRecord, log: WorkerLog) -> str:
    start = log.start
    names = ("axolotl", "transformers", "peft", "bitsandbytes", "accelerate")
    found = [f"{name} {getattr(start, name)}" for name in names if start and getattr(start, name)]
    return ", ".join([f"torch {run.torch}", *found])


def _held_out(result: TrainingResult) -> str:
    if result.held_out_after is not None or not result.evaluations:
        return f"{_figure(result.held_out_before)} → {_figure(result.held_out_after)}"
    kept = [each for each in result.evaluations if each.step == result.best_step] or result.evaluations[-1:]
    return f"{_figure(kept[0].held_out_loss)}, by the trainer at step {kept[0].step}"


def _figure(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def write_card(folder: Path, text: str) -> Path:
    return write_atomic(folder / CARD, clean(text))
