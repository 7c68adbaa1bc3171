"""Watches a training process: reports its steps and the time left, detects a hung step, makes it stop on request."""

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
SKIP_REASONS = {"no-room": "the disk has no space for it", "not-finite": "the weights are not finite"}


class HangLimits(NamedTuple):
    """When a training that writes nothing gets a warning, and when it is aborted: after so many median steps, but not
    before so many seconds.

    It writes a line to the worker's log for each step, each checkpoint, and every 15 s of a long evaluation.
    `first_seconds`: the longest first step once the model is loaded; None: no limit.
    """

    warn_steps: float = 10.0
    warn_seconds: float = 60.0
    abort_steps: float = 60.0
    abort_seconds: float = 900.0
    first_seconds: float | None = None

    def warn_after(self, step: float) -> float:
        return max(self.warn_seconds, self.warn_steps * step)

    def abort_after(self, step: float | None) -> float:
        """Seconds without a line until it is aborted. `step`: a typical step's seconds, None before the first."""
        if step is None:
            return inf if self.first_seconds is None else self.first_seconds
        return max(self.abort_seconds, self.abort_steps * step)


class Watch:
    """`cancel` ends the process, `done` the watching; `hung`: for how long it had written nothing. `stop_requested`: by
    the user.
    """

    def __init__(self, folder: Path) -> None:
        self.cancel, self.done = threading.Event(), threading.Event()
        self.hung: float | None = None
        self.training_began = False
        self.stop_requested = False
        self._stop = folder / STOP

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The first signal requests a checkpoint and a stop, once training began; the next one ends at once."""
        if self.stop_requested or not self.training_began:
            raise KeyboardInterrupt
        self.stop_requested = True
        self._stop.touch()


@contextmanager
def watch_run(folder: Path, emit: Emit, hung: HangLimits, keep: bool) -> Iterator[Watch]:
    """Watch until the block ends. With `keep`, Ctrl-C and SIGTERM first make the training save and stop."""
    watch = Watch(folder)
    (folder / STOP).unlink(missing_ok=True)
    path = folder / "worker.jsonl"
    earlier, size = read_worker_log(path), _size(path)
    thread = threading.Thread(
        target=_watch_log, args=(path, earlier.sessions if earlier else 0, size, watch, emit, hung), daemon=True
    )
    thread.start()
    try:
        with _signals(watch) if keep else nullcontext():
            yield watch
    finally:
        watch.done.set()
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
            before[sign] = signal.signal(sign, watch.on_signal)
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _watch_log(path: Path, earlier: int, size: int, watch: Watch, emit: Emit, hung: HangLimits) -> None:
    """`earlier` sessions and `size` bytes were in the log before."""
    reporter = _ProgressReporter(emit)
    begin = last_line = time.monotonic()
    reporter.report_start(begin)
    while not watch.done.wait(0.5):
        if watch.stop_requested:
            reporter.once("note", "Stopping after this step, with a checkpoint. Press Ctrl-C again to end at once.")
        grown = _size(path)
        now = time.monotonic()
        if grown != size:
            size, last_line = grown, now
            reporter.end_silence()
            log = read_worker_log(path)
            if log is None or log.sessions <= earlier or log.begin is None:
                reporter.report_start(begin)
                continue
            watch.training_began = True
            reporter.report_progress(log)
            continue
        silence = now - last_line
        if watch.training_began and silence > hung.abort_after(reporter.step):
            watch.hung = silence
            watch.cancel.set()
            return
        if watch.training_began and reporter.step is not None and silence > hung.warn_after(reporter.step):
            reporter.report_silence(silence, reporter.step)


class _ProgressReporter:
    """Reports what is new in a log, each thing once. A closed terminal does not end the training."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._reported: set[str] = set()
        self._last_step = -1
        self._skipped = 0
        self._silent = False
        self.step: float | None = None

    def _emit_safely(self, event: Event) -> None:
        with suppress(OSError):
            self._emit(event)

    def once(self, kind: str, text: str) -> None:
        if text not in self._reported:
            self._reported.add(text)
            self._emit_safely(Event(kind, STAGE, text))

    def report_start(self, begin: float) -> None:
        left = max(0.0, START_SECONDS - time.monotonic() + begin)
        self._emit_safely(Event("progress", STAGE, "starting Axolotl", 0, None, "", left))

    def report_silence(self, silence: float, step: float) -> None:
        if not self._silent:
            text = (
                f"No step for {silence:.0f} s; a step took {step:.1f} s before. Ctrl-C ends it; checkpoints are kept."
            )
            self._emit_safely(Event("warning", STAGE, text))
        self._silent = True

    def end_silence(self) -> None:
        self._silent = False

    def report_progress(self, log: WorkerLog) -> None:
        for lost in log.skipped_saves[self._skipped :]:
            reason = SKIP_REASONS.get(lost.reason, lost.reason)
            text = f"No checkpoint at step {lost.step}: {reason}. An older one is kept."
            self.once("warning", text)
        self._skipped = len(log.skipped_saves)
        if log.begin is None or len(log.steps) == self._last_step or not log.steps:
            return
        self._last_step = len(log.steps)
        recent = [step.seconds for step in log.steps[-8:]]
        self.step = median(step.seconds for step in log.steps[-64:])
        last = log.steps[-1]
        left = (log.begin.planned_steps - last.step) * sum(recent) / len(recent)
        text = f"loss {last.loss:.3f}" if isinstance(last.loss, float) else f"loss {last.loss}"
        if log.evaluations:
            held_out = log.evaluations[-1].loss
            text += f", held out {held_out:.3f}" if isinstance(held_out, float) else f", held out {held_out}"
        self._emit_safely(Event("progress", STAGE, text, last.step, log.begin.planned_steps, "steps", left))
