"""A torch that cannot be checked: said before anything is downloaded, and never answered by --yes."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from gpu_setup.commands.training_options import ask_or_refuse
from harness.environment.stack_choice import StackChoice
from harness.environment.torch_install import unverified_torch
from machine.errors import Refused
from machine.paths import paths
from tests.tool import answered

STACK = catalogue().stack("rocm7.2")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine, as if a card of AMD's worked in it."""
    choice = StackChoice(STACK, "a card", True)
    for module in ("harness.environment.stack_choice", "gpu_setup.up", "harness.jobs.job_choice"):
        monkeypatch.setattr(f"{module}.choose_stack", lambda *_: choice)
    monkeypatch.setenv("GPU_SETUP_HOME", str(tmp_path / "home"))
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield tmp_path / "home"


@pytest.mark.parametrize(
    "words",
    [
        ("environment",),
        ("up", "--yes", "--recipe", "tiny"),
        ("smoke", "--recipe", "tiny"),
        ("bench", "--recipe", "tiny", "--quick"),
        ("train", "{data}", "--recipe", "tiny"),
    ],
    ids=lambda words: words[0],
)
def test_it_is_refused_where_nobody_can_answer(
    capfd: pytest.CaptureFixture[str], home: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    rows = [{"instruction": f"Name tool {n}.", "input": "", "output": f"Tool {n} is a saw."} for n in range(40)]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    words = tuple(word.format(data=tmp_path / "mine.json") for word in words)
    code, out = answered(capfd, *words, "--json")
    (error,) = json.loads(out)["errors"]
    assert (code, error["code"]) == (3, "environment.unverified")
    assert STACK.torch_index in error["why"] and "--accept-unverified" in error["next"] and "--yes" in error["next"]
    assert not list(home.rglob("bin/python")), "nothing was begun"


def test_the_option_is_an_answer_for_this_torch(home: Path) -> None:
    place = paths(os.environ)
    refusal = unverified_torch(STACK, place)
    with pytest.raises(Refused):
        ask_or_refuse(refusal, STACK, False, place)
    ask_or_refuse(refusal, STACK, True, place)
    assert unverified_torch(STACK, place) is None
    assert unverified_torch(catalogue().stack("cu126"), place) is not None


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal as stdin; what is written to the descriptor is typed there."""
    keyboard, line = pty.openpty()
    with os.fdopen(line) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield keyboard
    os.close(keyboard)


@pytest.mark.parametrize(("typed", "accepted"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_at_a_terminal_a_person_is_asked_and_enter_means_no(
    tmp_path: Path, terminal: int, capsys: pytest.CaptureFixture[str], typed: bytes, accepted: bool
) -> None:
    place = paths({"GPU_SETUP_HOME": str(tmp_path)})
    os.write(terminal, typed)
    try:
        ask_or_refuse(unverified_torch(STACK, place), STACK, False, place)
    except Refused as refused:
        assert not accepted and refused.code == "environment.unverified"
    assert (unverified_torch(STACK, place) is None) is accepted
    assert "no sha256 of it" in capsys.readouterr().err
