"""stdout and stderr that cannot be written: exit 4 and a sentence for an answer, nothing at all for progress."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from gpu_setup import cli as command_line
from gpu_setup.cli import COMMANDS, root, run
from gpu_setup.envelope import Answer, encode
from gpu_setup.render.progress import reporter
from machine.events import Event
from tests.harness.report.examples import card
from tests.recorded_machines import machine_path
from tests.tool import ROOT

MACHINE = ("--machine", machine_path("rtx3090-healthy"))
TOOL = shlex.join((sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py")))


def leaves(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the command line, groups included, as words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*before, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*before, name))


EVERY_COMMAND = [(), *leaves(root)]


@pytest.fixture
def fill_stdout(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], None]]:
    """Call it before each answer: stdout is then a disk without space, the device that Linux has for it."""
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    with pytest.MonkeyPatch.context() as patch:

        def fill() -> None:
            os.dup2(full, 1)
            patch.setattr(sys, "stdout", os.fdopen(1, "w", encoding="utf-8", closefd=False))

        yield fill
    os.dup2(kept, 1)
    os.close(kept)
    os.close(full)


def refused(said: str, code: int, words: object) -> None:
    assert code == 4, (words, code, said)
    assert "The answer could not be written to standard output." in said, (words, said)
    assert "why:  The system says:" in said and "next: " in said, (words, said)
    assert "bug" not in said and "Traceback" not in said, (words, said)


@pytest.fixture
def answering(tmp_path: Path) -> list[tuple[str, ...]]:
    """Commands that answer on this machine without a training environment."""
    (tmp_path / "report.json").write_bytes(encode(Answer("report", card(), 0, str)))
    report = str(tmp_path / "report.json")
    words = (
        "image render",
        "fit",
        "recipe",
        "recipe tiny",
        "schema",
        "schema doctor",
        "completion bash",
        "doctor --list",
    )
    return [
        *(tuple(each.split()) for each in (*words, "doctor --explain gpu.present", "compare --published", "--version")),
        *((name, *MACHINE) for name in ("doctor", "facts", "plan")),
        *(("report", report), ("compare", report), ("status",)),
    ]


@pytest.mark.long
@pytest.mark.long
def test_a_full_disk_is_no_bug(
    fill_stdout: Callable[[], None], answering: list[tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    helps = [(*words, "--help") for words in EVERY_COMMAND]
    documents = [(*words, "--json") for words in answering if words[0] not in ("schema", "completion", "--version")]
    wrong = [(*words, "--json", "--no-such-option") for words in EVERY_COMMAND]
    assert len(helps) > len(COMMANDS) + 8
    for words in (*helps, *answering, *documents, *wrong):
        fill_stdout()
        code = run(words)
        refused(capfd.readouterr().err, code, words)


def test_a_refusal_whose_document_is_lost_is_still_printed(
    fill_stdout: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    fill_stdout()
    code = run(["plan", "--vendor", "intel", "--json"])
    said = capfd.readouterr().err
    refused(said, code, "plan")
    assert "'intel' is not one of" in said


@pytest.mark.parametrize(
    ("redirect", "code"),
    [
        (">/dev/full", 4),
        (">&-", 4),
        ("2>&-", 0),
        ("2>/dev/full", 0),
        ("<&-", 0),
        (">/dev/full 2>/dev/full", 4),
        (">&- 2>&- <&-", 4),
    ],
)
def test_streams_of_a_process(tmp_path: Path, redirect: str, code: int) -> None:
    machine = shlex.join(MACHINE)
    script = "; ".join(f"{TOOL} facts {machine} {form} {redirect}; echo $? >>codes" for form in ("", "--json"))
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "codes").read_text().split() == [str(code)] * 2, result.stderr
    if code == 4 and "2>" not in redirect:
        assert result.stderr.count("could not be written to standard output") == 2
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr
    if code == 0 and redirect != "<&-":
        assert result.stdout.startswith("system\n") and '"schema": "gpu-setup/facts/1"' in result.stdout


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    machine = shlex.join(MACHINE)
    script = f"ulimit -f 0; {TOOL} facts {machine} >text; echo $?; {TOOL} facts --json {machine} >document; echo $?"
    result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.split() == ["4", "4"], result.stderr
    assert result.stderr.count("File too large") == 2


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Register a function as the command `sample`."""

    def add(function: Callable[[], Any]) -> None:
        module = ModuleType("sample_command")
        module.command = click.command()(function)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sample_command", module)
        monkeypatch.setitem(command_line.COMMANDS, "sample", command_line.Entry("sample_command", "For the tests."))

    return add


def test_work_continues_though_nobody_reads_its_progress(
    sample: Callable[[Callable[[], Any]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> int:
        with reporter() as emit:
            for number in range(100):
                emit(Event("note", "train", f"step {number}"))
        (tmp_path / "done").write_text("whole")
        return 0

    sample(command)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", encoding="utf-8") as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        assert run(["sample"]) == 0
    assert (tmp_path / "done").read_text() == "whole"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_no_more_is_no_bug(
    sample: Callable[[Callable[[], Any]], None], number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise OSError(number, os.strerror(number), "/data/file")

    sample(command)
    assert run(["sample"]) == 4
    said = capsys.readouterr().err
    assert "/data/file cannot be written." in said and os.strerror(number) in said and "bug" not in said
