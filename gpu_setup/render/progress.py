"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from machine.events import Emit, Event
from machine.plain_text import clean

if TYPE_CHECKING:
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def reporter(json: bool = False) -> Iterator[Emit]:
    """Yields what a room calls with its events. Bars only where a terminal can draw them and nobody parses."""
    if json or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield Lines(sys.stderr).emit
    else:
        with _bars() as emit:
            yield emit


def time_left(seconds: float | None) -> str:
    """`about 2 min left`; empty while there is no estimate."""
    if seconds is None:
        return ""
    if seconds >= 90:
        return f"about {seconds / 60:.0f} min left"
    return f"about {max(seconds, 0):.0f} s left"


def amount(event: Event) -> str:
    """`3 of 8 packages`, `120 of 1,400 MB`, `3 packages`; empty when nothing is counted."""
    if event.done is None:
        return ""
    scale, unit = 1.0, event.unit
    if unit in ("bytes", "B"):
        scale, unit = (1e6, "MB") if (event.total or event.done) >= 1e6 else (1e3, "kB")
    done = f"{event.done / scale:,.0f}"
    if event.total is None:
        return f"{done} {unit}".rstrip()
    return f"{done} of {event.total / scale:,.0f} {unit}".rstrip()


class Lines:
    """One plain line an event; progress of a stage at most every ten seconds, and its last one."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._shown: dict[str, float] = {}

    def emit(self, event: Event) -> None:
        now = self._clock()
        if event.kind == "start":
            self._shown[event.stage] = now
        elif event.kind == "progress":
            last = event.total is not None and event.done is not None and event.done >= event.total
            if not last and now - self._shown.get(event.stage, float("-inf")) < SECONDS_BETWEEN_LINES:
                return
            self._shown[event.stage] = now
        parts = [clean(event.text)]
        if event.kind == "warning":
            parts[0] = "warning: " + parts[0]
        if event.kind == "progress":
            parts += [part for part in (amount(event), time_left(event.seconds_left)) if part]
        self._stream.write(f"{event.stage}: {', '.join(parts)}\n")
        self._stream.flush()


@contextmanager
def _bars() -> Iterator[Emit]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False, emoji=False)
    progress = Progress(
        SpinnerColumn(),
        # markup off: the text may come from a log
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
        transient=True,
        refresh_per_second=5,
    )
    tasks: dict[str, TaskID] = {}

    def show(sign: str, style: str, event: Event) -> None:
        line = Text.assemble((sign, style), f" {event.stage}: ", clean(event.text))
        console.print(line, soft_wrap=True)

    def emit(event: Event) -> None:
        if event.kind == "note":
            show("·", "dim", event)
        elif event.kind == "warning":
            show("!", "yellow", event)
        elif event.kind == "end":
            task = tasks.pop(event.stage, None)
            if task is not None:
                progress.remove_task(task)
            show("✓", "green", event)
        else:
            words = _short(f"{event.stage}: {clean(event.text)}")
            if event.stage not in tasks:
                tasks[event.stage] = progress.add_task(words, total=event.total, amount="", left="")
            progress.update(
                tasks[event.stage],
                description=words,
                completed=event.done or 0,
                total=event.total,
                amount=amount(event),
                left=time_left(event.seconds_left),
            )

    with progress:
        yield emit


def _short(text: str, width: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
