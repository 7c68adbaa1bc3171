"""Records every optimizer step: its time, its tokens and documents, its loss, its memory and its waiting times.

Times are differences between the ends of steps (perf_counter, seconds), so that they include data loading and logging.
A micro-step (forward and backward of one micro batch) is timed on the device: on a GPU with its own events, because the
CPU only queues the work. Tokens are counted from the batches that the model sees: processed = token slots, padding
included; non_padding = slots that the attention mask keeps; trainable = labels != -100.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import nullcontext
from time import perf_counter
from typing import Any

import torch
from transformers import TrainerCallback

from gpu_setup_worker.documents import document_sums, not_padding
from gpu_setup_worker.journal import EventLog
from gpu_setup_worker.kernels import attention_kernels

IGNORED = -100


def peak_memory() -> dict[str, int | None]:
    """Bytes: the process's peak resident set, and the device's allocated and reserved peaks (None without a GPU)."""
    gpu = torch.cuda.is_available()
    return {
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_allocated_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "device_reserved_bytes": torch.cuda.max_memory_reserved() if gpu else None,
    }


class Moment:
    """A point in the device's own time: an event in a GPU's queue, or the CPU's clock."""

    def __init__(self, gpu: bool) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if gpu else None
        self._seconds = perf_counter()
        if self._event is not None:
            self._event.record()

    def since(self, other: Moment) -> float:
        """Seconds from `other` to this moment; on a GPU both must have passed."""
        if self._event is not None and other._event is not None:
            return other._event.elapsed_time(self._event) / 1000
        return self._seconds - other._seconds


class Budget:
    """Measured seconds after which training ends early. GPU_SETUP_BUDGET: seconds, and number of warm-up steps."""

    def __init__(self, words: str) -> None:
        seconds, _, warmup = words.partition(" ")
        self._left = float(seconds) if seconds else float("inf")
        self._warmup = int(warmup or 0)

    def spent(self, step: int, seconds: float) -> bool:
        if step > self._warmup:
            self._left -= seconds
        return self._left <= 0


class Recorder(TrainerCallback):
    """Wraps the trainer's training_step to see each micro batch, and writes one line at the end of each step."""

    def __init__(self, trainer: Any, journal: EventLog, window: int | None) -> None:
        self._journal, self._window = journal, window
        self._gpu = torch.cuda.is_available()
        self._train_micro_batch, self._fetch = trainer.training_step, trainer.get_batch_samples
        self._pad_token = getattr(trainer.processing_class, "pad_token_id", None)
        self._budget = Budget(os.environ.get("GPU_SETUP_BUDGET", ""))
        self._own = self._waited = self._cpu = 0.0
        self._last_end: float | None = None
        self._slots: list[int] = []
        self._first = True
        self._interrupted = False
        # read once per step: reading each immediately would stall a GPU
        self._counts: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []
        self._moments: list[tuple[Moment, Moment]] = []
        trainer.training_step = self._training_step
        trainer.get_batch_samples = self._get_batch_samples

    def _get_batch_samples(self, *arguments: Any, **more: Any) -> Any:
        begin = perf_counter()
        try:
            return self._fetch(*arguments, **more)
        finally:
            self._waited += perf_counter() - begin

    def _training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        begin = perf_counter()
        tokens, labels, mask = inputs["input_ids"], inputs["labels"], inputs.get("attention_mask")
        if mask is None or mask.dim() != 2:
            mask = not_padding(tokens, inputs.get("position_ids"), self._pad_token)
        self._slots.append(tokens.numel())
        sums = document_sums(mask, inputs.get("position_ids"), self._window)
        self._counts.append(torch.stack([(labels != IGNORED).sum(), *sums]))
        names: set[str] = set()
        with attention_kernels(names) if self._first else nullcontext():
            started = Moment(self._gpu)
            self._own += perf_counter() - begin
            loss = self._train_micro_batch(model, inputs, num_items_in_batch)
            begin = perf_counter()
            self._moments.append((started, Moment(self._gpu)))
        self._losses.append(loss)
        if self._first:
            self._journal.write("attention", kernels=sorted(names))
            self._first = False
        self._own += perf_counter() - begin
        return loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_end, self._cpu = perf_counter(), time.process_time()
        self._waited = 0.0
        self._journal.write("train-begin", planned_steps=state.max_steps, done_steps=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # waiting for the device is part of the step, what follows is our own overhead
        updated = Moment(self._gpu)
        losses = [float(value) for value in self._losses]
        if self._gpu:
            torch.cuda.synchronize()
        end, cpu = perf_counter(), time.process_time()
        seconds = end - (self._last_end or end)
        # each is a list with one number per micro batch
        trainable, documents, tokens, squares, window_squares = torch.stack(self._counts).T.tolist()
        loss = sum(losses)
        self._journal.write(
            "step",
            step=state.global_step,
            seconds=seconds,
            micro_batches=len(losses),
            micro_seconds=[ended.since(started) for started, ended in self._moments],
            wait_seconds=self._waited,
            optimizer_seconds=updated.since(self._moments[-1][1]),
            processed=sum(self._slots),
            non_padding=sum(tokens),
            trainable=sum(trainable),
            micro_processed=self._slots,
            micro_non_padding=tokens,
            micro_trainable=trainable,
            documents=sum(documents),
            squares=sum(squares),
            window_squares=sum(window_squares),
            loss=loss,
            interrupted=self._interrupted,
            own_seconds=self._own,
            cpu_seconds=cpu - self._cpu,
            ended_at=time.time(),
            **peak_memory(),
        )
        if loss != loss or loss in (float("inf"), float("-inf")):
            self._journal.write("stopped", reason=f"the loss is {loss} at step {state.global_step}")
            control.should_training_stop = True
        elif self._budget.spent(state.global_step, 0.0 if self._interrupted else seconds):
            if state.global_step < state.max_steps:
                self._journal.write("budget-spent", step=state.global_step)
            control.should_training_stop = True
        self._slots, self._counts, self._losses, self._moments = [], [], [], []
        self._interrupted, self._waited = False, 0.0
        self._last_end, self._cpu = end, cpu
        self._own = perf_counter() - end

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # the next step's seconds include the evaluation, so they do not measure training
        self._interrupted = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._interrupted = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._journal.write("train-end", steps=state.global_step, **peak_memory())
