"""Axolotl plugin: makes a run repeatable, keeps it on the CPU if there is no GPU, and records every step."""

from __future__ import annotations

import itertools
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback, set_seed

from gpu_setup_worker.checkpoints import Keeper, training_args
from gpu_setup_worker.journal import SCHEMA, EventLog
from gpu_setup_worker.parent import end_with_parent
from gpu_setup_worker.recorder import IGNORED, Recorder
from gpu_setup_worker.sizes import base_matrices, sizes, windowed_layers


class Telemetry(BasePlugin):
    """Named in the run's config as `gpu_setup_worker.plugin.Telemetry`."""

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        # the first hook that training calls
        end_with_parent()
        if cfg.trust_remote_code:
            # the tool refuses such a recipe; if one gets here anyway, the model's own code is still not run
            raise SystemExit("remote-code: trust_remote_code is on")
        if not torch.cuda.is_available():
            # the device map is read between here and pre_model_load; LOCAL_RANK alone would name a GPU
            cfg.device_map = {"": "cpu"}

    def pre_model_load(self, cfg: Any) -> None:
        # LoRA's A is initialised before the Trainer seeds: without this, two runs with one seed differ
        set_seed(cfg.seed or 42)

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        return training_args() | ({} if torch.cuda.is_available() else {"use_cpu": True})

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[TrainerCallback]:
        journal = EventLog.from_environment()
        journal.write("start", **run_facts(trainer))
        if trainer.eval_dataset is not None:
            save_held_out(trainer.eval_dataset, Path(os.environ["GPU_SETUP_HELD_OUT"]))
        return [Recorder(trainer, journal, windowed_layers(trainer.model.config)[1]), Keeper(trainer, journal)]


def run_facts(trainer: Any) -> dict[str, Any]:
    """Device, versions, and the properties of the model as it was loaded."""
    import accelerate
    import axolotl
    import bitsandbytes
    import peft
    import transformers

    gpu = torch.cuda.is_available()
    card = torch.cuda.get_device_properties(0) if gpu else None
    args, model = trainer.args, trainer.model
    return {
        "schema": SCHEMA,
        "device": torch.cuda.get_device_name(0) if gpu else (platform.processor() or platform.machine()),
        "device_type": "gpu" if gpu else "cpu",
        "multiprocessors": card.multi_processor_count if card else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "affinity": len(os.sched_getaffinity(0)),
        "axolotl": axolotl.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "bitsandbytes": bitsandbytes.__version__,
        "accelerate": accelerate.__version__,
        "attention": getattr(model.config, "_attn_implementation", None),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "checkpointing": bool(getattr(model, "is_gradient_checkpointing", args.gradient_checkpointing)),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        # rows that are left after Axolotl has dropped those that are too long or empty
        "rows": len(trainer.train_dataset),
        "held_out_rows": len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
        "sizes": sizes(model),
        "matrices": base_matrices(model),
    }


def save_held_out(dataset: Any, path: Path, rows: int = 16) -> None:
    """Write the first rows of Axolotl's own validation split as tokens, for `examine` to judge the adapter on."""
    kept = []
    for row in itertools.islice(dataset, 4 * rows):
        labels, tokens = list(row["labels"]), list(row["input_ids"])
        start = next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))
        if 0 < start < len(tokens):
            kept.append({"prompt": tokens[:start], "answer": tokens[start:]})
    path.write_text(json.dumps(kept[:rows]), encoding="utf-8")
