"""Axolotl plugin for the benchmark alone: writes every micro-batch that the model sees to BENCHMARK_BATCHES, as JSON.

[{"input_ids": [[…]], "attention_mask": [[…]], "labels": [[…]]}]: what the bare loop then trains on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

KEYS = ("input_ids", "attention_mask", "labels")


class RecordBatches(BasePlugin):
    """Named in the run's config as `record_batches.RecordBatches`."""

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[TrainerCallback]:
        batches: list[dict[str, list[list[int]]]] = []
        inner = trainer.training_step

        def training_step(model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            batches.append({key: inputs[key].tolist() for key in KEYS if key in inputs})
            return inner(model, inputs, num_items_in_batch)

        class Writer(TrainerCallback):
            def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                Path(os.environ["BENCHMARK_BATCHES"]).write_text(json.dumps(batches), encoding="utf-8")

        trainer.training_step = training_step
        return [Writer()]
