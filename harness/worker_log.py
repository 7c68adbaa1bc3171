"""Decodes the worker's JSON lines. A line cut by a kill is left out; what stands before it counts."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Start(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """What the worker ran on and with."""

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


class Begin(msgspec.Struct, frozen=True, tag_field="event", tag="train-begin"):
    planned_steps: int = 0


class Step(msgspec.Struct, frozen=True, tag_field="event", tag="step"):
    """One optimizer step: seconds from the last step's end to this one's, token slots, loss in nats, bytes.

    `loss` is a string where it was not finite. `interrupted`: an evaluation or a save lies in the seconds.
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


class Stopped(msgspec.Struct, frozen=True, tag_field="event", tag="stopped"):
    reason: str = ""


class End(msgspec.Struct, frozen=True, tag_field="event", tag="train-end"):
    steps: int = 0
    rss_bytes: int | None = None
    device_allocated_bytes: int | None = None
    device_reserved_bytes: int | None = None


class WorkerLog(msgspec.Struct, frozen=True):
    """None where the worker did not come that far."""

    start: Start | None = None
    begin: Begin | None = None
    steps: tuple[Step, ...] = ()
    stopped: Stopped | None = None
    end: End | None = None


_DECODER = msgspec.json.Decoder(Start | Begin | Step | Stopped | End)


def parse_worker_log(raw: bytes) -> WorkerLog:
    """Survives any bytes: what does not decode is skipped."""
    start, begin, stopped, end = None, None, None, None
    steps = []
    for line in raw.split(b"\n"):
        try:
            event = _DECODER.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        match event:
            case Step():
                steps.append(event)
            case Start():
                start = event
            case Begin():
                begin = event
            case Stopped():
                stopped = event
            case End():
                end = event
    return WorkerLog(start, begin, tuple(steps), stopped, end)


def read_worker_log(path: Path) -> WorkerLog | None:
    """The log, or None when the worker wrote none: then the plugin was not loaded."""
    try:
        return parse_worker_log(path.read_bytes())
    except FileNotFoundError:
        return None
