"""Exceptions become exit codes in one place: what a script and what a person get for each way to end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec
import pytest

from gpu_setup import cli as command_line
from gpu_setup.envelope import Answer
from gpu_setup.terminal import confirm, style
from machine.errors import BadAnswer, BadUsage, Interrupted, OutsideFailed, Refused
from tests.tool import ROOT, Cli

Add = Callable[[Callable[..., Any]], None]


class Sample(msgspec.Struct):
    text: str


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Add:
    """Register a function as the command `sample`, found by name like every other."""

    def add(function: Callable[..., Any]) -> None:
        module = ModuleType("sample_command")
        module.command = click.command()(click.option("--json", "as_json", is_flag=True)(function))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sample_command", module)
        monkeypatch.setitem(command_line.COMMANDS, "sample", command_line.Entry("sample_command", "For the tests."))

    return add


@pytest.mark.parametrize(
    ("kind", "code"), [(BadAnswer, 1), (BadUsage, 2), (Refused, 3), (OutsideFailed, 4), (Interrupted, 130)]
)
def test_a_problem_is_printed_and_gives_its_exit_status(
    sample: Add, kind: type[BadAnswer], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(as_json: bool) -> None:
        raise kind("disk.full", "The disk is full.", "Only 3 MB are free.", "Free some space.")

    sample(command)
    assert command_line.run(["sample"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "gpu-setup: The disk is full.",
        "  why:  Only 3 MB are free.",
        "  next: Free some space.",
    ]


def test_a_problem_under_json_is_one_document(sample: Add, capfd: pytest.CaptureFixture[str]) -> None:
    def command(as_json: bool) -> None:
        raise Refused("driver.in-use", "The card is in use.", "Process 41.", "End it.")

    sample(command)
    assert command_line.run(["sample", "--json"]) == 3
    shown = capfd.readouterr()
    document = json.loads(shown.out)
    assert document["schema"] == "gpu-setup/error/1"
    assert (document["exit_code"], document["data"]) == (3, None)
    assert document["errors"] == [
        {"code": "driver.in-use", "what": "The card is in use.", "why": "Process 41.", "next": "End it."}
    ]


def test_only_the_document_reaches_stdout(sample: Add, capfd: pytest.CaptureFixture[str]) -> None:
    def command(as_json: bool) -> Answer:
        # a library in C that prints, and a child process that does
        os.write(1, b"loading...\n")
        subprocess.run(["echo", "from a child"], check=True)
        return Answer("doctor", Sample("hello"), 1, lambda: "never called under --json")

    sample(command)
    assert command_line.run(["sample", "--json"]) == 1
    shown = capfd.readouterr()
    assert json.loads(shown.out)["data"] == {"text": "hello"}
    assert "loading..." in shown.err and "from a child" in shown.err


def test_an_answer_for_a_person(sample: Add, capsys: pytest.CaptureFixture[str]) -> None:
    def command(as_json: bool) -> Answer:
        return Answer("doctor", Sample("hello"), 1, lambda: style("hello", fg="red") + "\n")

    sample(command)
    assert command_line.run(["sample"]) == 1
    assert capsys.readouterr().out == "hello\n"


def test_a_bug_keeps_its_traceback(sample: Add, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(as_json: bool) -> None:
        raise ZeroDivisionError("division by zero")

    sample(command)
    assert command_line.run(["sample"]) == 70
    (kept,) = (home / "gpu-setup" / "state" / "crashes").iterdir()
    assert "ZeroDivisionError" in kept.read_text()
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert str(kept) in shown


def test_a_crash_file_can_be_sent(sample: Add, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/wolkenheim")
    monkeypatch.setenv("USER", "wolkenheim")
    monkeypatch.setenv("ACME_TOKEN", "pw9Kx72LmQeR")
    monkeypatch.setattr(
        "sys.argv", ["gpu-setup", "train", "/home/wolkenheim/mine.json", "--endpoint=https://me:geheim77@hub"]
    )

    def command(as_json: bool) -> None:
        raise ValueError(f"cannot read /home/wolkenheim/x of wolkenheim in {tmp_path}/secret with pw9Kx72LmQeR")

    sample(command)
    assert command_line.run(["sample"]) == 70
    (kept,) = (home / "gpu-setup" / "state" / "crashes").iterdir()
    text = kept.read_text()
    assert "ValueError: cannot read" in text and "test_exit_codes.py" in text and "mine.json" in text
    for secret in ("wolkenheim", "geheim77", "pw9Kx72LmQeR"):
        assert secret not in text


def test_a_bug_where_no_file_can_be_written(
    sample: Add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(as_json: bool) -> None:
        raise ZeroDivisionError("division by zero")

    sample(command)
    monkeypatch.setenv("GPU_SETUP_HOME", "/proc/nowhere")
    assert command_line.run(["sample"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_in_python(sample: Add, capsys: pytest.CaptureFixture[str]) -> None:
    def command(as_json: bool) -> None:
        raise KeyboardInterrupt

    sample(command)
    assert command_line.run(["sample"]) == 130
    assert "What was finished is kept." in capsys.readouterr().err


def test_answering_no_is_a_refusal(sample: Add) -> None:
    def command(as_json: bool) -> None:
        raise click.Abort

    sample(command)
    assert command_line.run(["sample"]) == 3


def test_a_question_without_a_terminal_is_a_refusal(
    sample: Add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(as_json: bool) -> None:
        confirm("Go on?", abort=True)

    sample(command)
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert command_line.run(["sample"]) == 3
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_command_and_its_children(tmp_path: Path, sign: signal.Signals) -> None:
    script = tmp_path / "start.py"
    script.write_text(
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from types import ModuleType\n"
        "import click\n"
        "from gpu_setup import cli\n"
        "from machine.local import LocalMachine\n"
        "module = ModuleType('slow'); sys.modules['slow'] = module\n"
        "@click.command()\n"
        "def command(): LocalMachine().stream(('sh', '-c', 'echo $$; sleep 60'), \n"
        "    lambda line: print(line, flush=True))\n"
        "module.command = command\n"
        "cli.COMMANDS['slow'] = cli.Entry('slow', '')\n"
        "sys.exit(cli.run(['slow']))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-I", str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    child.send_signal(sign)
    _out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert err.splitlines()[-2:] == [
        "gpu-setup: Interrupted. What was finished is kept.",
        "  next: Run the same command again to continue.",
    ]
    for _ in range(50):
        if not Path(f"/proc/{grandchild}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{grandchild}").exists()


@pytest.mark.parametrize("arguments", ["schema doctor", "doctor --list", "doctor --json"])
def test_a_reader_that_closes_the_pipe_is_no_error(arguments: str) -> None:
    tool = shlex.join((sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py")))
    result = subprocess.run(
        ["bash", "-c", f"{tool} {arguments} | head -c 1; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1][-1] in "01"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("docter",), "Did you mean 'doctor'?"),
        (("doctor", "--stict"), "--strict"),
        (("doctor", "--only", "gpu.presnt"), "Did you mean: gpu.present"),
        (("doctor", "--explain", "nothing-like-it"), "gpu-setup doctor --list"),
        (("doctor", "--machine", "nowhere"), "facts record"),
        (("schema", "dokter"), "doctor"),
        (("plan", "--vendor", "intel"), "nvidia"),
    ],
)
def test_wrong_usage_exits_with_2_and_a_hint(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    result = cli(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert "Traceback" not in result.stderr

    result = cli(*arguments, "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["exit_code"], document["schema"]) == (2, 2, "gpu-setup/error/1")


def test_an_encoding_that_cannot_show_our_characters(cli: Cli) -> None:
    result = cli("doctor", env={"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0"})
    assert result.returncode in (0, 1), result.stderr
