"""Progress: plain lines for logs, a bar with the time left on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.render.progress import Lines, amount, time_left
from machine.events import Event
from tests.tool import ROOT


def printed_lines(events: list[tuple[float, Event]]) -> list[str]:
    """What the lines say of events that come at these seconds."""
    stream, now = io.StringIO(), [0.0]
    lines = Lines(stream, clock=lambda: now[0])
    for now[0], event in events:
        lines.emit(event)
    return stream.getvalue().splitlines()


def test_each_event_is_one_line() -> None:
    assert printed_lines(
        [
            (0, Event("start", "environment", "installing packages")),
            (1, Event("note", "environment", "the lock is new")),
            (2, Event("warning", "environment", "3 GB free")),
            (3, Event("end", "environment", "ready")),
        ]
    ) == [
        "environment: installing packages",
        "environment: the lock is new",
        "environment: warning: 3 GB free",
        "environment: ready",
    ]


def test_progress_lines_are_rare_but_the_last_one_is_printed() -> None:
    steps = [(float(n), Event("progress", "train", "step", n, 25, "steps", 25.0 - n)) for n in range(26)]
    assert printed_lines([(0, Event("start", "train", "training")), *steps]) == [
        "train: training",
        "train: step, 10 of 25 steps, about 15 s left",
        "train: step, 20 of 25 steps, about 5 s left",
        "train: step, 25 of 25 steps, about 0 s left",
    ]


def test_a_log_line_cannot_steer_the_terminal() -> None:
    (line,) = printed_lines([(0, Event("note", "train", "\x1b[2Jgone"))])
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event("progress", "s", "t"), ""),
        (Event("progress", "s", "t", 3, 8, "packages"), "3 of 8 packages"),
        (Event("progress", "s", "t", 120e6, 1.4e9, "bytes"), "120 of 1,400 MB"),
        (Event("progress", "s", "t", 32e3, 64e3, "bytes"), "32 of 64 kB"),
        (Event("progress", "s", "t", 3), "3"),
    ],
)
def test_amounts(event: Event, text: str) -> None:
    assert amount(event) == text


def test_time_left() -> None:
    assert [time_left(None), time_left(12.3), time_left(200)] == ["", "about 12 s left", "about 3 min left"]


SCRIPT = f"""
import sys; sys.path.append({str(ROOT)!r})
from gpu_setup.render.progress import reporter
from machine.events import Event
with reporter() as emit:
    emit(Event("start", "train", "training [bold]100[/bold] steps"))
    emit(Event("progress", "train", "step", 40, 100, "steps", 120.0))
    import time; time.sleep(0.4)
    emit(Event("note", "train", "loss 1.9"))
    emit(Event("end", "train", "100 steps"))
"""


def on_terminal(tmp_path: Path, **environ: str) -> tuple[str, str]:
    """stderr as a terminal of 100 columns saw it, and stdout."""
    (tmp_path / "work.py").write_text(SCRIPT)
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-I", str(tmp_path / "work.py")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environ},
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:
        pass  # the other end has closed
    os.close(ours)
    out, _ = child.communicate(timeout=20)
    return seen.decode(), out.decode()


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    seen, out = on_terminal(tmp_path)
    assert "40 of 100 steps" in seen
    assert "about 2 min left" in seen
    assert "[bold]" in seen
    assert "✓" in seen and "loss 1.9" in seen
    assert out == ""


def test_no_colour_on_request(tmp_path: Path) -> None:
    seen, _ = on_terminal(tmp_path, NO_COLOR="1")
    assert "\x1b[32m" not in seen
    assert "100 steps" in seen


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    seen, _ = on_terminal(tmp_path, TERM="dumb")
    assert "\x1b" not in seen
    assert seen.splitlines() == ["train: training [bold]100[/bold] steps", "train: loss 1.9", "train: 100 steps"]
