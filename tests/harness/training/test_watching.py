"""Looking on while a training runs: steps and time left, a hung step, the first and the second Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from harness.process.worker_log import BeginEvent, SkippedSaveEvent
from harness.training.monitor import STOP, HangLimits, Watch, watch_run
from machine.events import Event
from tests.harness.examples import step

pytestmark = pytest.mark.long

NEVER = HangLimits()


def write(folder: Path, *events: object) -> None:
    with (folder / "worker.jsonl").open("ab") as file:
        for event in events:
            file.write(msgspec.json.encode(event) + b"\n")


def until(what: Callable[[], object], seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_steps_are_reported_with_the_time_left(tmp_path: Path) -> None:
    said: list[Event] = []
    with watch_run(tmp_path, said.append, NEVER, keep=True):
        write(tmp_path, BeginEvent(planned_steps=10), step(1, seconds=2.0), step(2, seconds=2.0))
        until(lambda: said and said[-1].done == 2)
    last = said[-1]
    assert (last.total, last.unit, last.seconds_left) == (10, "steps", 16.0)


def test_what_an_earlier_sitting_wrote_is_not_this_one(tmp_path: Path) -> None:
    write(tmp_path, BeginEvent(planned_steps=10), step(1), step(2))
    with watch_run(tmp_path, lambda event: None, NEVER, keep=True) as watch:
        write(tmp_path, step(3))
        time.sleep(0.7)
        assert not watch.training_began, "there is nothing yet that a stop could keep"
        write(tmp_path, BeginEvent(planned_steps=10, done_steps=2))
        until(lambda: watch.training_began)


def test_a_hung_step_gets_a_warning_and_is_then_aborted(tmp_path: Path) -> None:
    said: list[Event] = []
    hung = HangLimits(warn_steps=2, warn_seconds=0.6, abort_steps=4, abort_seconds=1.5)
    with watch_run(tmp_path, said.append, hung, keep=False) as watch:
        write(tmp_path, BeginEvent(planned_steps=10), step(1, seconds=0.1), step(2, seconds=0.1))
        until(watch.cancel.is_set)
        assert watch.hung is not None and watch.hung >= 1.5
    assert [event.kind for event in said if "No step for" in event.text] == ["warning"], "told once"


def test_a_slow_step_is_not_a_hung_one(tmp_path: Path) -> None:
    """The limits go by the steps before: a card that takes a minute a step is not ended after a minute."""
    assert NEVER.warn_after(60.0) == 600 and NEVER.abort_after(60.0) == 3600
    assert NEVER.warn_after(0.1) == 60 and NEVER.abort_after(0.1) == 900


def test_a_first_step_takes_what_it_needs_unless_somebody_has_no_time(tmp_path: Path) -> None:
    assert NEVER.abort_after(None) == float("inf")
    with watch_run(tmp_path, lambda event: None, HangLimits(first_seconds=0.6), keep=False) as watch:
        write(tmp_path, BeginEvent(planned_steps=10))
        until(watch.cancel.is_set)
        assert watch.hung is not None and watch.hung >= 0.6


def test_a_checkpoint_that_was_skipped_is_reported(tmp_path: Path) -> None:
    said: list[Event] = []
    with watch_run(tmp_path, said.append, NEVER, keep=True):
        write(tmp_path, BeginEvent(planned_steps=10), step(1), SkippedSaveEvent(1, "no-room"))
        until(lambda: any(event.kind == "warning" for event in said))
    assert "no space" in next(event.text for event in said if event.kind == "warning")


def test_the_first_ctrl_c_asks_and_the_second_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), watch_run(tmp_path, lambda event: None, NEVER, keep=True) as watch:
        write(tmp_path, BeginEvent(planned_steps=10), step(1))
        until(lambda: watch.training_began)
        os.kill(os.getpid(), signal.SIGINT)
        until(lambda: watch.stop_requested)
        assert (tmp_path / STOP).exists(), "the worker looks for it"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert not (tmp_path / STOP).exists(), "or the next sitting would stop at once"


def test_before_the_first_step_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Watch(tmp_path).on_signal(signal.SIGINT, None)


def test_a_benchmark_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), watch_run(tmp_path, lambda event: None, NEVER, keep=False):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_other_threads_may_train_too(tmp_path: Path) -> None:
    ended: list[bool] = []

    def look() -> None:
        with watch_run(tmp_path, lambda event: None, NEVER, keep=True):
            ended.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert ended == [True]
