"""Looks on while a training process runs: tells its steps and the time left, notices a hung step, asks it to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from math import inf
from pathlib import Path
from statistics import median
from types import FrameType
from typing import NamedTuple

from harness.process.worker_log import WorkerLog, read_worker_log
from machine.events import Emit, Event

STAGE = "train"
# the worker looks for it at the end of each step: checkpoints.py of the worker
STOP = "stop"
# Axolotl's imports and the model's loading, before the first step
START_SECONDS = 25.0
REPORTED = {"no-room": "there is no room for it on the disk", "not-finite": "the weights are not finite"}


class HangLimits(NamedTuple):
    """When a training that gives no sign is told of, and when it is ended: so many median steps, at least so long.

    A sign is a line in the worker's log: of a step, a checkpoint, or a long evaluation (every 15 s). `first_seconds`:
    how long the first step may take once the model is loaded; None: as long as it needs.
    """

    told_steps: float = 10.0
    told_seconds: float = 60.0
    ended_steps: float = 60.0
    ended_seconds: float = 900.0
    first_seconds: float | None = None

    def told(self, step: float) -> float:
        return max(self.told_seconds, self.told_steps * step)

    def patience(self, step: float | None) -> float:
        """Seconds of silence that end it. `step`: a usual step's seconds, None before the first."""
        if step is None:
            return inf if self.first_seconds is None else self.first_seconds
        return max(self.ended_seconds, self.ended_steps * step)


class Watch:
    """`cancel` ends the process; `hung`: how long it gave no sign before that. `asked`: the person wants it to stop."""

    def __init__(self, folder: Path) -> None:
        self.cancel = threading.Event()
        self.hung: float | None = None
        self.begun = False
        self.asked = False
        self._stop = folder / STOP

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """A signal: the first asks for a checkpoint and an end, where there is something to keep; the next one ends."""
        if self.asked or not self.begun:
            raise KeyboardInterrupt
        self.asked = True
        self._stop.touch()


@contextmanager
def watch_run(folder: Path, emit: Emit, hung: HangLimits, keep: bool) -> Iterator[Watch]:
    """Look on until the block ends. With `keep`, Ctrl-C and SIGTERM first ask the training to save and stop."""
    watch, done = Watch(folder), threading.Event()
    (folder / STOP).unlink(missing_ok=True)
    path = folder / "worker.jsonl"
    earlier, size = read_worker_log(path), _size(path)
    thread = threading.Thread(
        target=_watch_log, args=(path, earlier.sittings if earlier else 0, size, watch, done, emit, hung), daemon=True
    )
    thread.start()
    try:
        with _signals(watch) if keep else nullcontext():
            yield watch
    finally:
        done.set()
        thread.join()
        (folder / STOP).unlink(missing_ok=True)


@contextmanager
def _signals(watch: Watch) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # what nohup ignores stays ignored
        if signal.getsignal(sign) is not signal.SIG_IGN:
            before[sign] = signal.signal(sign, watch.ask)
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _watch_log(
    path: Path, earlier: int, size: int, watch: Watch, done: threading.Event, emit: Emit, hung: HangLimits
) -> None:
    """`earlier` sittings and `size` bytes were in the log before."""
    teller = _ProgressReporter(emit)
    begin = sign = time.monotonic()
    teller.starting(begin)
    while not done.wait(0.5):
        if watch.asked:
            teller.once("note", "Stopping after this step, with a checkpoint. Ctrl-C once more ends it at once.")
        grown = _size(path)
        now = time.monotonic()
        if grown != size:
            size, sign = grown, now
            teller.signs(False)
            log = read_worker_log(path)
            if log is None or log.sittings <= earlier or log.begin is None:
                teller.starting(begin)
                continue
            watch.begun = True
            teller.tell(log)
            continue
        silence = now - sign
        if watch.begun and silence > hung.patience(teller.step):
            watch.hung = silence
            watch.cancel.set()
            return
        if watch.begun and teller.step is not None and silence > hung.told(teller.step):
            teller.signs(True, silence, teller.step)


class _ProgressReporter:
    """Says what is new in a log, each thing once. A terminal that has gone away ends nothing."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._said: set[str] = set()
        self._told = -1
        self._noted = 0
        self._quiet = False
        self.step: float | None = None

    def _say(self, event: Event) -> None:
        with suppress(OSError):
            self._emit(event)

    def once(self, kind: str, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(Event(kind, STAGE, text))

    def starting(self, begin: float) -> None:
        left = max(0.0, START_SECONDS - time.monotonic() + begin)
        self._say(Event("progress", STAGE, "starting Axolotl", 0, None, "", left))

    def signs(self, quiet: bool, silence: float = 0.0, step: float = 0.0) -> None:
        if quiet and not self._quiet:
            text = f"No step for {silence:.0f} s; they took {step:.1f} s each. Ctrl-C ends it; what is saved stays."
            self._say(Event("warning", STAGE, text))
        self._quiet = quiet

    def tell(self, log: WorkerLog) -> None:
        for lost in log.unsaved[self._noted :]:
            text = f"No checkpoint at step {lost.step}: {REPORTED.get(lost.reason, lost.reason)}. An older one stays."
            self.once("warning", text)
        self._noted = len(log.unsaved)
        if log.begin is None or len(log.steps) == self._told or not log.steps:
            return
        self._told = len(log.steps)
        recent = [step.seconds for step in log.steps[-8:]]
        self.step = median(step.seconds for step in log.steps[-64:])
        last = log.steps[-1]
        left = (log.begin.planned_steps - last.step) * sum(recent) / len(recent)
        text = f"loss {last.loss:.3f}" if isinstance(last.loss, float) else f"loss {last.loss}"
        if log.evaluations:
            held_out = log.evaluations[-1].loss
            text += f", held out {held_out:.3f}" if isinstance(held_out, float) else f", held out {held_out}"
        self._say(Event("progress", STAGE, text, last.step, log.begin.planned_steps, "steps", left))
