"""Decodes the worker's JSON lines. A line cut by a kill is left out; what stands before it counts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.recipe.flops import Sizes


class StartEvent(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """What the worker ran on and with.

    `precision` is what the products are computed in: bf16, fp16 or fp32. `matrices` are the model's own as (inputs,
    outputs, how many), without LoRA's pairs. `multiprocessors`: of the card (SMs, or AMD's workgroup processors).
    `rows`: what Axolotl kept of the data to train on, `held_out_rows` of its own validation split.
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
    """The attention operators that the first micro batch really called, by PyTorch's names."""

    kernels: tuple[str, ...] = ()


class BeginEvent(msgspec.Struct, frozen=True, tag_field="event", tag="train-begin"):
    """`done_steps`: steps of the checkpoint that a cut run goes on from."""

    planned_steps: int = 0
    done_steps: int = 0


class StepEvent(msgspec.Struct, frozen=True, tag_field="event", tag="step"):
    """One optimizer step: seconds from the last step's end to this one's, token slots, loss in nats, bytes.

    `loss` is a string where it was not finite. `interrupted`: an evaluation or a save lies in the seconds.
    `micro_seconds`: each micro batch, forward and backward, in the device's own time; the other `micro_` its tokens.
    `wait_seconds`: for the step's data; `optimizer_seconds`: after its last micro batch; `cpu_seconds`: of the worker's
    process; `ended_at`: seconds since 1970. `squares` are sums of squared lengths over the step's documents
    (harness/recipe/flops.py).
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
    """Training ended by itself after this step, before its planned end: the time for measuring was over."""

    step: int = 0


class StoppedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="stopped"):
    reason: str = ""


class EvaluationEvent(msgspec.Struct, frozen=True, tag_field="event", tag="evaluated"):
    """The loss on the held-out rows after a step, in nats."""

    step: int
    loss: float | str


class SavedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="saved"):
    """A checkpoint that is whole and on the disk."""

    step: int
    bytes: int = 0
    seconds: float = 0.0


class SkippedSaveEvent(msgspec.Struct, frozen=True, tag_field="event", tag="unsaved"):
    """A checkpoint that was left out: `reason` is no-room or not-finite."""

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
    """None where the worker did not come that far. `sittings`: how often it began; 2 and more: it was gone on with."""

    start: StartEvent | None = None
    begin: BeginEvent | None = None
    steps: tuple[StepEvent, ...] = ()
    stopped: StoppedEvent | None = None
    end: EndEvent | None = None
    evaluations: tuple[EvaluationEvent, ...] = ()
    saved: tuple[SavedEvent, ...] = ()
    unsaved: tuple[SkippedSaveEvent, ...] = ()
    stop_asked: StopRequestEvent | None = None
    early: EarlyStopEvent | None = None
    sittings: int = 0
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
    """Survives any bytes: what does not decode is skipped.

    A run that went on from a checkpoint did the steps after it again: only the later ones count.
    """
    start, begin, stopped, end, asked, early, sittings = None, None, None, None, None, None, 0
    attention, spent = None, None
    steps: list[StepEvent] = []
    evaluations: list[EvaluationEvent] = []
    saved: list[SavedEvent] = []
    unsaved: list[SkippedSaveEvent] = []
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
                begin, stopped, end, asked, early, sittings = event, None, None, None, None, sittings + 1
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
                unsaved.append(event)
            case StopRequestEvent():
                asked = event
            case EarlyStopEvent():
                early = event
            case StoppedEvent():
                stopped = event
            case EndEvent():
                end = event
    return WorkerLog(
        start, begin, tuple(steps), stopped, end, tuple(evaluations), tuple(saved), tuple(unsaved), asked, early,
        sittings, attention, spent,
    )  # fmt: skip


def read_worker_log(path: Path) -> WorkerLog | None:
    """The log, or None when the worker wrote none: then the plugin was not loaded."""
    try:
        return parse_worker_log(path.read_bytes())
    except FileNotFoundError:
        return None
