"""`data check`: a file through all rules, in parallel where it is large.

source ─▶ blocks ─▶ scan (worker processes) ─▶ Tally (on disk) ─▶ copies, verdicts ─▶ findings
"""

from __future__ import annotations

import os
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness.dataset.block_reader import Block, Source, Trouble, blocks, open_source
from harness.dataset.duplicates import Copies, find_copies
from harness.dataset.findings import DataReport, Example, Finding, Origins, finding, worst_first
from harness.dataset.row_reader import Reread
from harness.dataset.scan import Scanned, Settings, scan
from harness.dataset.stats import Tally
from harness.dataset.whole_file_rules import from_copies, from_recurring, from_rows, from_spread, of_the_set
from machine.errors import OutsideFailed
from machine.events import Emit, Event, silent

STAGE = "check"
# below this size a second process costs more than it saves
LARGE = 6 << 20


class Wanted(NamedTuple):
    """How to look: personal names too, the languages that belong (none: those that are common), worker processes."""

    names: bool = True
    languages: tuple[str, ...] = ()
    workers: int | None = None


class Checked(NamedTuple):
    """A checked file while its scratch folder lives. `rows_of`: all rows of each kind that was found."""

    source: Source
    tally: Tally
    rows: Reread
    copies: Copies
    own_rows: int
    findings: tuple[Finding, ...]
    rows_of: dict[str, array[int]]
    seconds: float


@contextmanager
def checking(path: Path, held_out: Path | None, wanted: Wanted, emit: Emit) -> Iterator[Checked]:
    """Check the file; what was found can be read again inside the `with`. Raises what open_source raises."""
    begin = time.monotonic()
    with _scratch() as folder:
        source = open_source(path, folder)
        other = open_source(held_out, _made(folder / "held-out")) if held_out else None
        tally = Tally(folder, source.bytes > LARGE)
        troubles: list[Trouble] = []
        rows = None
        try:
            _scan_all(source, tally, troubles, wanted, emit)
            own_rows = tally.rows
            if other is not None:
                _scan_held_out(other, tally)
            tally.close()
            files = [(source.path, 0), *([(other.path, own_rows)] if other else [])]
            rows = Reread(files, folder / "index", tally.index_type)
            emit(Event("progress", STAGE, "comparing rows", None))
            copies = find_copies(tally, rows)
            told = [
                *from_rows(tally, rows),
                *from_copies(copies, rows, own_rows, tally.rows),
                *from_spread(tally, rows, wanted.languages, own_rows),
                *from_recurring(tally, rows),
                *of_the_set(tally),
            ]
            findings = worst_first([*_of_the_file(source, troubles), *(each.finding for each in told)])
            rows_of = {each.finding.kind: each.rows for each in told}
            seconds = time.monotonic() - begin
            yield Checked(source, tally, rows, copies, own_rows, findings, rows_of, seconds)
        finally:
            tally.abandon()
            if rows is not None:
                rows.close()


def check(path: Path, held_out: Path | None = None, wanted: Wanted | None = None, emit: Emit = silent) -> DataReport:
    """The report of one file."""
    with checking(path, held_out, wanted or Wanted(), emit) as checked:
        return report(checked)


def report(checked: Checked, action: str = "check") -> DataReport:
    """What was found, as a document."""
    tally = checked.tally
    flagged = {row for each in checked.findings if each.severity != "info" for row in each.rows}
    lengths = [count.histogram(f"characters of {name}") for name, count in tally.lengths.items() if count.largest]
    marks = tally.origins
    return DataReport(
        action=action,
        file=checked.source.name,
        rows=checked.own_rows,
        findings=checked.findings,
        flagged_rows=len(flagged),
        lengths=tuple(lengths),
        languages={code or "not known": count for code, count in tally.said_in.most_common()},
        origins=Origins(
            marks["organic"], marks["semi-synthetic"], marks["synthetic"], tally.whole - sum(marks.values())
        ),
        notes=_notes(checked),
        seconds=round(checked.seconds, 3),
    )


def _notes(checked: Checked) -> tuple[str, ...]:
    notes = []
    if checked.source.shape == "lines":
        notes.append("JSON Lines: training reads a JSON list; gpu-setup data clean or import writes one.")
    if checked.tally.whole:
        notes.append("About 100 good rows can visibly change a model's style; more rows do not mend bad ones.")
    if not checked.tally.origins:
        notes.append('No row says who wrote it: mark rows with "kind": "organic", "semi-synthetic" or "synthetic".')
    return tuple(notes)


def _of_the_file(source: Source, troubles: list[Trouble]) -> Iterator[Finding]:
    if source.encoding != "utf-8":
        said = f"the file is {source.encoding.upper()}; training reads UTF-8"
        yield finding("not-utf8", [], f"Not UTF-8: {said}", (Example(None, 1, said),), count=1)
    if source.bom:
        said = "the file begins with the bytes EF BB BF"
        yield finding("byte-order-mark", [], f"A byte order mark: {said}", (Example(None, 1, said),), count=1)
    for trouble in troubles:
        place = f"{trouble.text} (byte {trouble.offset:,}, line {trouble.line:,})"
        yield finding(trouble.kind, [], place, (Example(None, trouble.line, place),), count=1)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what does not fit into memory; TMPDIR says where."""
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-setup-data-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        if error.filename is not None and "gpu-setup-data-" not in str(error.filename):
            raise
        raise OutsideFailed(
            "data.no-room",
            "The working files of the check cannot be written.",
            f"The system says: {error.strerror or error} ({tempfile.gettempdir()}).",
            "Free some space there, or set TMPDIR to a folder on a bigger disk.",
        ) from error


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _scan_all(source: Source, tally: Tally, troubles: list[Trouble], wanted: Wanted, emit: Emit) -> None:
    """Every block in the file's order, whichever worker was first: the result does not depend on the workers."""
    settings = Settings(names=wanted.names)
    emit(Event("start", STAGE, f"Checking {source.name}"))
    begin = time.monotonic()
    for done, seen in _scanned(source, blocks(source, troubles), settings, wanted):
        tally.add(seen)
        left = (time.monotonic() - begin) / done * (source.bytes - done) if done else None
        emit(Event("progress", STAGE, f"{tally.rows:,} rows", done, source.bytes, "bytes", left))


def _scanned(
    source: Source, found: Iterator[Block], settings: Settings, wanted: Wanted
) -> Iterator[tuple[int, Scanned]]:
    """`(bytes of the file that are done, what the block showed)`, in the file's order."""
    workers = wanted.workers if wanted.workers is not None else len(os.sched_getaffinity(0))
    if workers < 2 or source.bytes <= LARGE:
        for block in found:
            yield block.offset + len(block.data), scan(block, settings)
        return
    # imported here: the small case needs no processes. These run this package's own code and start no command
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_ctrl_c_to_the_parent) as pool:
        waiting: deque[tuple[int, Future[Scanned]]] = deque()
        try:
            for block in found:
                with _ctrl_c_put_off():
                    future = pool.submit(scan, block, settings)
                waiting.append((block.offset + len(block.data), future))
                # few are under way at a time: what waits is held in memory
                if len(waiting) > 2 * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        except BrokenExecutor as error:
            raise OutsideFailed(
                "data.worker",
                "A worker process of the check was ended from outside.",
                "Most likely the machine ran out of memory.",
                "Close other programs and run the same command again.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    """Ctrl-C reaches the whole group; the parent ends its workers, and only one of all says so."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _ctrl_c_put_off() -> Iterator[None]:
    """A worker is started inside: it inherits the mask, and hears no Ctrl-C before it has been told to ignore it.

    Python acts on a signal that another thread got, whatever this one's mask is: so that is put off here too.
    """
    import signal
    import threading

    heard: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _next(waiting: deque[tuple[int, Future[Scanned]]]) -> tuple[int, Scanned]:
    done, future = waiting.popleft()
    return done, future.result()


def _scan_held_out(other: Source, tally: Tally) -> None:
    """The held-out rows behind the own ones, for their likeness only: nothing else about them is told."""
    first = tally.rows
    for block in blocks(other, []):
        tally.add(scan(block._replace(row=block.row + first), Settings(names=False)), own=False)
