"""Every document is written whole or not at all, whatever moment the disk fills up at."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_setup.cli import run
from gpu_setup.envelope import Answer, encode
from machine.errors import OutsideFailed
from tests.harness.dataset.corpus import clean_rows
from tests.harness.report.examples import card
from tests.recorded_machines import machine_path

pytestmark = pytest.mark.long

MACHINE = ("--machine", machine_path("rtx3090-healthy"))
# bytes that one file may have: not even the first fits, it stops in the middle, only the longest are too long
LIMITS = (0, 3000, 30_000)


def with_limit(limit: int, work: Callable[[], int]) -> int:
    """The exit code of `work` in a process whose files may not grow over `limit` bytes."""
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        # Python before 3.13 leaves a truncated .pyc, which every later start trips over (python/cpython#126606)
        sys.dont_write_bytecode = True
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with the files' content."""
    return {
        str(place.relative_to(folder)): place.read_bytes() if place.is_file() else b"folder"
        for place in folder.rglob("*")
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (folder / "rows.json").write_text(json.dumps([*clean_rows(60, 1), {"instruction": "", "output": ""}]))
    (folder / "table.csv").write_text("question,answer\nWhy?,Because.\n")
    for name, day in (("one", 24), ("two", 25)):
        report = card(started_at=f"2026-11-{day}T10:00:00Z")
        (folder / f"{name}.json").write_bytes(encode(Answer("report", report, 0, str)))
    return folder


DOCUMENTS = (
    ("plan", "--out", "plan.json", *MACHINE),
    ("doctor", "--bundle", "box.tar.gz", *MACHINE),
    ("facts", "record", "deep/box"),
    ("facts", "record", "--one-file", "box.machine"),
    ("compare", "one.json", "two.json", "--csv", "found.csv"),
    ("compare", "one.json", "two.json", "--markdown", "found.md"),
    # the charts' package looks through all fonts in a new home
    pytest.param(("compare", "one.json", "two.json", "--html", "found.html"), marks=pytest.mark.long),
    ("data", "check", "rows.json", "--html", "found.html"),
    pytest.param(("data", "check", "rows.json", "--csv", "rows.csv"), marks=pytest.mark.long),
    ("data", "clean", "rows.json", "--yes"),
    ("data", "split", "rows.json"),
    ("data", "import", "table.csv", "--out", "imported.json"),
)


@pytest.mark.parametrize("words", DOCUMENTS, ids=lambda words: " ".join(words[:4]))
def test_a_disk_that_fills_up(words: tuple[str, ...], place: Path) -> None:
    # once for all the processes below
    import rensa  # noqa: F401

    before, codes = state(place), []
    # the last one is enough for everything: it can be run again
    for limit in (*LIMITS, resource.RLIM_INFINITY):
        codes.append(with_limit(limit, lambda: run(words)))
        if codes[-1] != 4:
            break
        assert state(place) == before, limit
    assert codes[0] == 4 and codes[-1] in (0, 1), codes
    made = state(place)
    assert set(made) > set(before)
    assert not [name for name in made if name.endswith((".part", ".partial"))]


def test_a_document_that_was_there_is_kept(place: Path) -> None:
    (place / "plan.json").write_text("of yesterday")
    before = state(place)
    assert with_limit(100, lambda: run(["plan", "--out", "plan.json", *MACHINE])) == 4
    assert state(place) == before


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("data", "check", "rows.json", "--html", "./rows.json"), "rows.json"),
        (("data", "check", "rows.json", "--csv", "link.json"), "rows.json"),
        (("plan", "--machine", "box.machine", "--out", "box.machine"), "box.machine"),
    ],
)
def test_a_result_never_replaces_what_it_was_made_from(words: tuple[str, ...], kept: str, place: Path) -> None:
    (place / "link.json").symlink_to("rows.json")
    shutil.copy(MACHINE[1], place / "box.machine")
    before = (place / kept).read_bytes()
    assert run(words) == 2
    assert (place / kept).read_bytes() == before


def test_copies_of_a_report(place: Path) -> None:
    """`--out` of the training commands."""
    from gpu_setup.report_files import keep_report

    folder, out = place / "run", place / "out"
    folder.mkdir()
    out.mkdir()
    (out / "report.json").write_text("of yesterday")
    import msgspec

    report = msgspec.structs.replace(card(), folder=str(folder))

    def work() -> int:
        try:
            keep_report(report, out)
        except OutsideFailed as problem:
            return problem.exit_code
        return 0

    assert with_limit(3000, work) == 4
    assert state(out) == {"report.json": b"of yesterday"} and state(folder) == {}
    assert with_limit(resource.RLIM_INFINITY, work) == 0
    assert set(state(out)) == set(state(folder)) == {"report.json", "report.html"}
