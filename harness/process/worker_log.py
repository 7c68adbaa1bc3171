"""Decodes the worker's JSON lines. A line that a kill left incomplete is skipped; the lines before it count."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.recipe.flops import Sizes
from machine.input_file import read_input


class StartEvent(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """The device, the software and the model of a run.

    `precision`: of the matrix products, bf16, fp16 or fp32. `matrices`: the model's own as (inputs, outputs, how many),
    without LoRA's pairs. `multiprocessors`: of the card (NVIDIA: SMs, AMD: WGPs). `rows`: the training rows that
    Axolotl kept; `held_out_rows`: those in its validation split.
    """

    device: str = ""
    device_type: str = "cpu"
    torch: str | None = None
    cuda: str | None = None
    hip: str | None = None
    threads: int | None = None
    axolotl: str | None = None
    transformers: str | None = None
    peft: str | None = None
    bitsandbytes: str | None = None
    accelerate: str | None = None
    attention: str | None = None
    trainable_parameters: int | None = None
    rows: int | None = None
    held_out_rows: int | None = None
    precision: str | None = None
    checkpointing: bool | None = None
    multiprocessors: int | None = None
    sizes: Sizes | None = None
    matrices: tuple[tuple[int, int, int], ...] = ()


class AttentionEvent(msgspec.Struct, frozen=True, tag_field="event", tag="attention"):
    """The attention operators that the first micro batch called, by PyTorch's names."""

    kernels: tuple[str, ...] = ()


class BeginEvent(msgspec.Struct, frozen=True, tag_field="event", tag="train-begin"):
    """`done_steps`: the step of the checkpoint that a run resumes from; 0 for a new run."""

    planned_steps: int = 0
    done_steps: int = 0


class StepEvent(msgspec.Struct, frozen=True, tag_field="event", tag="step"):
    """One optimizer step: seconds from the previous step's end to this one's, token slots, loss in nats, bytes.

    `loss` is a string where it was not finite. `interrupted`: the seconds include an evaluation or a save.
    `micro_seconds`: each micro batch, forward and backward, in the device's own time; the other `micro_` fields are its
    tokens. `wait_seconds`: waiting for the step's data; `optimizer_seconds`: after the last micro batch; `cpu_seconds`:
    of the worker's process; `ended_at`: seconds since 1970. `squares`: sums of squared lengths over the step's
    documents (harness/recipe/flops.py).
    """

    step: int
    seconds: float
    micro_batches: int
    processed: int
    non_padding: int
    trainable: int
    loss: float | str
    own_seconds: float
    interrupted: bool = False
    rss_bytes: int | None = None
    device_allocated_bytes: int | None = None
    device_reserved_bytes: int | None = None
    micro_seconds: tuple[float, ...] = ()
    micro_processed: tuple[int, ...] = ()
    micro_non_padding: tuple[int, ...] = ()
    micro_trainable: tuple[int, ...] = ()
    wait_seconds: float | None = None
    optimizer_seconds: float | None = None
    cpu_seconds: float | None = None
    ended_at: float | None = None
    documents: int | None = None
    squares: int | None = None
    window_squares: int | None = None


class BudgetSpentEvent(msgspec.Struct, frozen=True, tag_field="event", tag="budget-spent"):
    """Training ended after this step, before its planned end, because the measuring time was over."""

    step: int = 0


class StoppedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="stopped"):
    reason: str = ""


class EvaluationEvent(msgspec.Struct, frozen=True, tag_field="event", tag="evaluated"):
    """The loss on the held-out rows after a step, in nats."""

    step: int
    loss: float | str


class SavedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="saved"):
    """A complete checkpoint was written to the disk."""

    step: int
    bytes: int = 0
    seconds: float = 0.0


class SkippedSaveEvent(msgspec.Struct, frozen=True, tag_field="event", tag="unsaved"):
    """A checkpoint was skipped: `reason` is no-room or not-finite."""

    step: int
    reason: str
    needed: int | None = None
    free: int | None = None


class StopRequestEvent(msgspec.Struct, frozen=True, tag_field="event", tag="stop-asked"):
    step: int


class EarlyStopEvent(msgspec.Struct, frozen=True, tag_field="event", tag="early"):
    """Stopped early: nothing after `best_step` was better on the held-out rows."""

    step: int
    best_step: int


class EndEvent(msgspec.Struct, frozen=True, tag_field="event", tag="train-end"):
    steps: int = 0
    rss_bytes: int | None = None
    device_allocated_bytes: int | None = None
    device_reserved_bytes: int | None = None


class WorkerLog(msgspec.Struct, frozen=True):
    """None where the worker did not get that far. `sessions`: how often it started; 2 or more: the run was resumed."""

    start: StartEvent | None = None
    begin: BeginEvent | None = None
    steps: tuple[StepEvent, ...] = ()
    stopped: StoppedEvent | None = None
    end: EndEvent | None = None
    evaluations: tuple[EvaluationEvent, ...] = ()
    saved: tuple[SavedEvent, ...] = ()
    skipped_saves: tuple[SkippedSaveEvent, ...] = ()
    stop_request: StopRequestEvent | None = None
    early_stop: EarlyStopEvent | None = None
    sessions: int = 0
    attention: AttentionEvent | None = None
    budget_spent: BudgetSpentEvent | None = None


_DECODER = msgspec.json.Decoder(
    StartEvent
    | BeginEvent
    | StepEvent
    | AttentionEvent
    | BudgetSpentEvent
    | EvaluationEvent
    | SavedEvent
    | SkippedSaveEvent
    | StopRequestEvent
    | EarlyStopEvent
    | StoppedEvent
    | EndEvent
)


def parse_worker_log(raw: bytes) -> WorkerLog:
    """Accepts any bytes: lines that do not decode are skipped.

    A resumed run repeats the steps after its checkpoint: only the repeated ones count.
    """
    start, begin, stopped, end, stop_request, early_stop, sessions = None, None, None, None, None, None, 0
    attention, spent = None, None
    steps: list[StepEvent] = []
    evaluations: list[EvaluationEvent] = []
    saved: list[SavedEvent] = []
    skipped_saves: list[SkippedSaveEvent] = []
    for line in raw.split(b"\n"):
        try:
            event = _DECODER.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        match event:
            case StepEvent():
                steps.append(event)
            case StartEvent():
                start = event
            case BeginEvent():
                begin, stopped, end, stop_request, early_stop, sessions = event, None, None, None, None, sessions + 1
                steps = [step for step in steps if step.step <= event.done_steps]
                evaluations = [each for each in evaluations if each.step <= event.done_steps]
                saved = [each for each in saved if each.step <= event.done_steps]
            case AttentionEvent():
                attention = event
            case BudgetSpentEvent():
                spent = event
            case EvaluationEvent():
                evaluations.append(event)
            case SavedEvent():
                saved.append(event)
            case SkippedSaveEvent():
                skipped_saves.append(event)
            case StopRequestEvent():
                stop_request = event
            case EarlyStopEvent():
                early_stop = event
            case StoppedEvent():
                stopped = event
            case EndEvent():
                end = event
    return WorkerLog(
        start, begin, tuple(steps), stopped, end, tuple(evaluations), tuple(saved), tuple(skipped_saves), stop_request,
        early_stop, sessions, attention, spent,
    )  # fmt: skip


def read_worker_log(path: Path) -> WorkerLog | None:
    """The log; None where the worker wrote none, because the plugin was not loaded."""
    try:
        return parse_worker_log(read_input(path, 1 << 30))
    except FileNotFoundError:
        return None
