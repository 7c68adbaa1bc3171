"""Checkpoints to resume from: at the recipe's steps, by the clock and on request; each marked once it is complete.

trainer ─▶ checkpoint-N/ ─▶ every file synced ─▶ checkpoint-N/whole.json {"step": N, "files": {name: [bytes, sha256]}}

A checkpoint that a kill or a power failure left incomplete has no such list; training/checkpoints.py uses an older one.
Early stopping is judged from the trainer's own history, which is part of a checkpoint: a resumed run stops where an
uninterrupted one does. GPU_SETUP_KEEP has the settings as JSON: {"seconds": …, "stop": FILE, "patience": N}.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from transformers import TrainerCallback

from gpu_setup_worker.journal import EventLog

WHOLE = "whole.json"
# how often a long evaluation writes that it is running
ALIVE_SECONDS = 15.0


def keep_as_loaded(model: Any) -> Any:
    """Keep a base in NF4 as it was loaded, also on CPUs; layers and versions without the repacking are not changed.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer at its first forward pass in evaluation mode: the
    scales and the products become bfloat16. A checkpoint's state_dict undoes that, and quantises the scales again. So
    each evaluation followed by a save changes the frozen weights a little, and a resumed run, which has not evaluated
    yet, computes something else (measured: a loss of 6.214806 instead of 6.214782 with equal weights and random state).
    Returns the model.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = False
    return model


def settings() -> dict[str, Any]:
    """The tool's checkpoint settings; empty for a run that is never resumed (a benchmark)."""
    return dict(json.loads(os.environ.get("GPU_SETUP_KEEP", "{}")))


class Keeper(TrainerCallback):
    """Saves by the clock and on request, except weights that are not finite; marks complete checkpoints."""

    def __init__(self, trainer: Any, journal: EventLog) -> None:
        given = settings()
        self._journal = journal
        self._model = keep_as_loaded(trainer.model)
        self._seconds: float | None = given.get("seconds")
        self._stop: str | None = given.get("stop")
        self._patience: int = given.get("patience") or 0
        self._last_save = self._last_sign = monotonic()
        self._size: int | None = None
        self._stops_early = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_save = monotonic()
        self._stops_early = stops_early(state.log_history, self._patience)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._seconds is not None and monotonic() - self._last_save >= self._seconds:
            control.should_save = True
        if self._stop is not None and os.path.exists(self._stop):
            self._journal.write("stop-asked", step=state.global_step)
            control.should_save = control.should_training_stop = True
        if self._stops_early:
            # it was interrupted between its early stop and its end
            control.should_training_stop = True
        self._guard(args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._guard(args, state, control)

    def _guard(self, args: Any, state: Any, control: Any) -> None:
        """Cancel a save that would fail, and record why: the training continues, an older checkpoint is kept."""
        if not control.should_save:
            return
        trained = [weight for weight in self._model.parameters() if weight.requires_grad]
        if not all(bool(torch.isfinite(weight).all()) for weight in trained):
            control.should_save = False
            self._journal.write("unsaved", step=state.global_step, reason="not-finite")
            return
        # estimate before the first checkpoint: the weights in float32, and twice that for the optimizer
        needed = self._size or 12 * sum(weight.numel() for weight in trained)
        free = shutil.disk_usage(args.output_dir).free if os.path.isdir(args.output_dir) else None
        if free is not None and free < 1.1 * needed:
            control.should_save = False
            self._last_save = monotonic()
            self._journal.write("unsaved", step=state.global_step, reason="no-room", needed=needed, free=free)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_save = monotonic()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not folder.is_dir():
            return
        begin = perf_counter()
        self._size = mark_complete(folder, state.global_step)
        self._journal.write("saved", step=state.global_step, bytes=self._size, seconds=perf_counter() - begin)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if monotonic() - self._last_sign >= ALIVE_SECONDS:
            self._last_sign = monotonic()
            self._journal.write("alive", step=state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        self._journal.write("evaluated", step=state.global_step, loss=float(loss))
        self._stops_early = stops_early(state.log_history, self._patience)
        if self._stops_early:
            self._journal.write("early", step=state.global_step, best_step=best(state.log_history)[0])
            control.should_training_stop = True


def evaluations(history: list[dict[str, Any]]) -> dict[int, float]:
    """Held-out loss by step, in order; where a step is listed twice, the first entry counts."""
    found: dict[int, float] = {}
    for entry in history:
        if "eval_loss" in entry:
            found.setdefault(int(entry["step"]), float(entry["eval_loss"]))
    return found


def best(history: list[dict[str, Any]]) -> tuple[int, float]:
    """Step and loss of the lowest evaluation; NaN is never the lowest."""
    return min(evaluations(history).items(), key=lambda pair: (pair[1] != pair[1], pair[1]))


def stops_early(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether none of the last `patience` evaluations was lower than before; with a patience of 0 never."""
    seen = evaluations(history)
    return patience > 0 and bool(seen) and list(seen).index(best(history)[0]) < len(seen) - patience


def mark_complete(folder: Path, step: int) -> int:
    """Sync every file of the checkpoint, then write the list that marks it as complete; returns its bytes."""
    files = {}
    for path in sorted(place for place in folder.rglob("*") if place.is_file() and place.name != WHOLE):
        with path.open("rb") as file:
            files[str(path.relative_to(folder))] = [
                path.stat().st_size,
                hashlib.file_digest(file, "sha256").hexdigest(),
            ]
            os.fsync(file.fileno())
    partial = folder / f"{WHOLE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump({"step": step, "files": files}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / WHOLE)
    for place in (folder, folder.parent):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return sum(size for size, _ in files.values())


def training_args() -> dict[str, Any]:
    """No evaluation at the start: it would repeat at each resume, and could be taken for the best one."""
    return {"eval_on_start": False} if settings() else {}
