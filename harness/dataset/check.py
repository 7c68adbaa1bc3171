"""`data check`: a file through all rules, in parallel where it is large.

file ─▶ blocks ─▶ scan (worker processes) ─▶ DataStats (on disk) ─▶ copies, rules of the whole file ─▶ findings
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

from harness.dataset.block_reader import Block, DataFile, FileProblem, open_data_file, read_blocks
from harness.dataset.duplicates import Copies, find_copies
from harness.dataset.findings import (
    DataFinding,
    DataReport,
    Example,
    OriginCounts,
    make_finding,
    sort_findings,
)
from harness.dataset.row_reader import RowReader
from harness.dataset.scan import ScanResult, ScanSettings, scan_block
from harness.dataset.stats import DataStats
from harness.dataset.whole_file_rules import (
    findings_from_copies,
    findings_from_outliers,
    findings_from_recurrence,
    findings_from_row_count,
    findings_from_rows,
)
from machine.errors import OutsideFailed
from machine.events import Emit, Event, silent

STAGE = "check"
# below this size a second process costs more than it saves
LARGE = 6 << 20


class CheckSettings(NamedTuple):
    """`names`: look for personal names; `languages`: expected ones (none: the common ones); `workers`: processes."""

    names: bool = True
    languages: tuple[str, ...] = ()
    workers: int | None = None


class CheckedFile(NamedTuple):
    """A checked file while its scratch folder exists. `rows_of`: all rows of each kind of finding."""

    source: DataFile
    stats: DataStats
    rows: RowReader
    copies: Copies
    own_rows: int
    findings: tuple[DataFinding, ...]
    rows_of: dict[str, array[int]]
    seconds: float


@contextmanager
def open_checked(path: Path, held_out: Path | None, wanted: CheckSettings, emit: Emit) -> Iterator[CheckedFile]:
    """Check the file; its rows can be read again inside the `with`. Raises what open_data_file raises."""
    begin = time.monotonic()
    with _scratch() as folder:
        source = open_data_file(path, folder)
        other = open_data_file(held_out, _make_folder(folder / "held-out")) if held_out else None
        stats = DataStats(folder, source.bytes > LARGE)
        troubles: list[FileProblem] = []
        rows = None
        try:
            _scan_all(source, stats, troubles, wanted, emit)
            own_rows = stats.rows
            if other is not None:
                _scan_held_out(other, stats)
            stats.close()
            files = [(source.path, 0), *([(other.path, own_rows)] if other else [])]
            rows = RowReader(files, folder / "index", stats.index_type)
            emit(Event("progress", STAGE, "comparing rows", None))
            copies = find_copies(stats, rows)
            found = [
                *findings_from_rows(stats, rows),
                *findings_from_copies(copies, rows, own_rows, stats.rows),
                *findings_from_outliers(stats, rows, wanted.languages, own_rows),
                *findings_from_recurrence(stats, rows),
                *findings_from_row_count(stats),
            ]
            findings = sort_findings([*_file_findings(source, troubles), *(each.finding for each in found)])
            rows_of = {each.finding.kind: each.rows for each in found}
            seconds = time.monotonic() - begin
            yield CheckedFile(source, stats, rows, copies, own_rows, findings, rows_of, seconds)
        finally:
            stats.abandon()
            if rows is not None:
                rows.close()


def check(
    path: Path, held_out: Path | None = None, wanted: CheckSettings | None = None, emit: Emit = silent
) -> DataReport:
    """The report of one file."""
    with open_checked(path, held_out, wanted or CheckSettings(), emit) as checked:
        return build_data_report(checked)


def build_data_report(checked: CheckedFile) -> DataReport:
    """The findings, as a document."""
    stats = checked.stats
    flagged = {row for each in checked.findings if each.severity != "info" for row in each.rows}
    lengths = [count.histogram(f"characters of {name}") for name, count in stats.lengths.items() if count.largest]
    marks = stats.origins
    return DataReport(
        action="check",
        file=checked.source.name,
        rows=checked.own_rows,
        findings=checked.findings,
        flagged_rows=len(flagged),
        lengths=tuple(lengths),
        languages={code or "not known": count for code, count in stats.said_in.most_common()},
        origins=OriginCounts(
            marks["organic"], marks["semi-synthetic"], marks["synthetic"], stats.whole - sum(marks.values())
        ),
        notes=_notes(checked),
        seconds=round(checked.seconds, 3),
    )


def _notes(checked: CheckedFile) -> tuple[str, ...]:
    notes = []
    if checked.source.shape == "lines":
        notes.append("JSON Lines: training reads a JSON list; write one with gpu-setup data clean or import.")
    if checked.stats.whole:
        notes.append("About 100 good rows can change a model's style visibly; more rows do not make up for bad ones.")
    if not checked.stats.origins:
        notes.append('No row has its origin: mark rows with "kind": "organic", "semi-synthetic" or "synthetic".')
    return tuple(notes)


def _file_findings(source: DataFile, troubles: list[FileProblem]) -> Iterator[DataFinding]:
    if source.encoding != "utf-8":
        said = f"the file is {source.encoding.upper()}; training reads UTF-8"
        yield make_finding("not-utf8", [], f"Not UTF-8: {said}", (Example(None, 1, said),), count=1)
    if source.bom:
        said = "the file begins with the bytes EF BB BF"
        yield make_finding("byte-order-mark", [], f"A byte order mark: {said}", (Example(None, 1, said),), count=1)
    for trouble in troubles:
        place = f"{trouble.text} (byte {trouble.offset:,}, line {trouble.line:,})"
        yield make_finding(trouble.kind, [], place, (Example(None, trouble.line, place),), count=1)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what does not fit in memory, in TMPDIR."""
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
            "Free some space there, or set TMPDIR to a folder on a larger disk.",
        ) from error


def _make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _scan_all(
    source: DataFile, stats: DataStats, troubles: list[FileProblem], wanted: CheckSettings, emit: Emit
) -> None:
    """Every block in the file's order, so that the result does not depend on the workers."""
    settings = ScanSettings(names=wanted.names)
    emit(Event("start", STAGE, f"Checking {source.name}"))
    begin = time.monotonic()
    for done, seen in _scan_blocks(source, read_blocks(source, troubles), settings, wanted):
        stats.add(seen)
        left = (time.monotonic() - begin) / done * (source.bytes - done) if done else None
        emit(Event("progress", STAGE, f"{stats.rows:,} rows", done, source.bytes, "bytes", left))


def _scan_blocks(
    source: DataFile, found: Iterator[Block], settings: ScanSettings, wanted: CheckSettings
) -> Iterator[tuple[int, ScanResult]]:
    """`(bytes of the file that are done, result of the block)`, in the file's order."""
    workers = wanted.workers if wanted.workers is not None else len(os.sched_getaffinity(0))
    if workers < 2 or source.bytes <= LARGE:
        for block in found:
            yield block.offset + len(block.data), scan_block(block, settings)
        return
    # imported here: a small file needs no processes. They run this package's own code and start no command
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_ctrl_c_to_the_parent) as pool:
        waiting: deque[tuple[int, Future[ScanResult]]] = deque()
        try:
            for block in found:
                with _defer_interrupt():
                    future = pool.submit(scan_block, block, settings)
                waiting.append((block.offset + len(block.data), future))
                # results that wait are in memory, so only a few blocks are in progress
                if len(waiting) > 2 * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        except BrokenExecutor as error:
            raise OutsideFailed(
                "data.worker",
                "A worker process of the check was killed.",
                "The machine probably ran out of memory.",
                "Close other programs and run the same command again.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    """Ctrl-C reaches the whole process group; the parent stops its workers, and only the parent reports it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _defer_interrupt() -> Iterator[None]:
    """For starting a worker: it inherits the signal mask, so that Ctrl-C cannot reach it before it ignores Ctrl-C.

    Python handles a signal that another thread received, whatever the mask of this one is: that is deferred here too.
    """
    import signal
    import threading

    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _frame: received.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if received:
            signal.raise_signal(signal.SIGINT)


def _next(waiting: deque[tuple[int, Future[ScanResult]]]) -> tuple[int, ScanResult]:
    done, future = waiting.popleft()
    return done, future.result()


def _scan_held_out(other: DataFile, stats: DataStats) -> None:
    """The held-out rows after the file's own, only to compare them: nothing else about them is reported."""
    first = stats.rows
    for block in read_blocks(other, []):
        stats.add(scan_block(block._replace(row=block.row + first), ScanSettings(names=False)), own=False)
