"""Axolotl plugin: makes a run repeatable, keeps it on the CPU where there is no GPU, and records every step.

One record an optimizer step. Times are differences between the ends of steps (perf_counter, seconds), so that data
fetch and logging are in them. Tokens are counted from the batches that the model really sees: processed = token slots,
padding included; non_padding = slots that the attention mask keeps; trainable = labels != -100.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback, set_seed

from gpu_setup_worker.journal import SCHEMA, Journal
from gpu_setup_worker.parent import end_with_parent

IGNORED = -100


def peak_memory() -> dict[str, int | None]:
    """Bytes: the process's peak resident set, and the device's allocated and reserved peaks (None without a GPU)."""
    gpu = torch.cuda.is_available()
    return {
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_allocated_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "device_reserved_bytes": torch.cuda.max_memory_reserved() if gpu else None,
    }


class Recorder(TrainerCallback):
    """Wraps the trainer's training_step to see each micro-batch, and writes one line at each step's end."""

    def __init__(self, trainer: Any, journal: Journal) -> None:
        self._journal = journal
        self._train_micro_batch = trainer.training_step
        self._pad_token = getattr(trainer.processing_class, "pad_token_id", None)
        self._own = 0.0
        self._last_end: float | None = None
        self._slots = 0
        self._interrupted = False
        # 0-d tensors, read once a step: reading each at once would stall a GPU
        self._pending: list[torch.Tensor] = []
        trainer.training_step = self._training_step

    def _training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        begin = perf_counter()
        tokens, labels, mask = inputs["input_ids"], inputs["labels"], inputs.get("attention_mask")
        if mask is None:
            mask = tokens != self._pad_token if self._pad_token is not None else torch.ones_like(tokens)
        self._slots += tokens.numel()
        # with packing the mask holds each document's number, hence != 0 instead of a sum
        self._pending += [(mask != 0).sum(), (labels != IGNORED).sum()]
        self._own += perf_counter() - begin
        loss = self._train_micro_batch(model, inputs, num_items_in_batch)
        begin = perf_counter()
        self._pending.append(loss)
        self._own += perf_counter() - begin
        return loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_end = perf_counter()
        self._journal.write("train-begin", planned_steps=state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # waiting for the device belongs to the step, what follows to us
        figures = [float(value) for value in self._pending]
        end = perf_counter()
        loss = sum(figures[2::3])
        self._journal.write(
            "step",
            step=state.global_step,
            seconds=end - (self._last_end or end),
            micro_batches=len(figures) // 3,
            processed=self._slots,
            non_padding=int(sum(figures[0::3])),
            trainable=int(sum(figures[1::3])),
            loss=loss,
            interrupted=self._interrupted,
            own_seconds=self._own,
            **peak_memory(),
        )
        self._slots, self._pending, self._interrupted = 0, [], False
        if loss != loss or loss in (float("inf"), float("-inf")):
            self._journal.write("stopped", reason=f"the loss is {loss} at step {state.global_step}")
            control.should_training_stop = True
        self._last_end = end
        self._own = perf_counter() - end

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # the next step's seconds hold the evaluation too, so it is no measurement of training
        self._interrupted = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._interrupted = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._journal.write("train-end", steps=state.global_step, **peak_memory())


class Telemetry(BasePlugin):
    """Named in the run's config as `gpu_setup_worker.plugin.Telemetry`."""

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> None:
        # the first hook that training calls
        end_with_parent()
        if not torch.cuda.is_available():
            # the device map is read between here and pre_model_load; LOCAL_RANK alone would name a GPU
            cfg.device_map = {"": "cpu"}

    def pre_model_load(self, cfg: Any) -> None:
        # LoRA's A is drawn before the Trainer seeds: without this, two runs at one seed differ
        set_seed(cfg.seed or 42)

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        return {} if torch.cuda.is_available() else {"use_cpu": True}

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[TrainerCallback]:
        import accelerate
        import axolotl
        import bitsandbytes
        import peft
        import transformers

        gpu = torch.cuda.is_available()
        journal = Journal.from_environment()
        journal.write(
            "start",
            schema=SCHEMA,
            device=torch.cuda.get_device_name(0) if gpu else (platform.processor() or platform.machine()),
            device_type="gpu" if gpu else "cpu",
            torch=torch.__version__,
            cuda=torch.version.cuda,
            hip=torch.version.hip,
            threads=torch.get_num_threads(),
            affinity=len(os.sched_getaffinity(0)),
            axolotl=axolotl.__version__,
            transformers=transformers.__version__,
            peft=peft.__version__,
            bitsandbytes=bitsandbytes.__version__,
            accelerate=accelerate.__version__,
            attention=getattr(trainer.model.config, "_attn_implementation", None),
            trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        )
        if trainer.eval_dataset is not None:
            save_held_out(trainer.eval_dataset, Path(os.environ["GPU_SETUP_HELD_OUT"]))
        return [Recorder(trainer, journal)]


def save_held_out(dataset: Any, path: Path, rows: int = 16) -> None:
    """Write the first rows of Axolotl's own validation split as tokens, for `examine` to judge the adapter on."""
    kept = []
    for row in itertools.islice(dataset, 4 * rows):
        labels, tokens = list(row["labels"]), list(row["input_ids"])
        start = next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))
        if 0 < start < len(tokens):
            kept.append({"prompt": tokens[:start], "answer": tokens[start:]})
    path.write_text(json.dumps(kept[:rows]), encoding="utf-8")
