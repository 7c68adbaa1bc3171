"""Real processes that hang, ignore SIGTERM, have children and flood their output."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machine.local import ABSENT, DENIED, TIMED_OUT, LocalMachine, child_environment
from tests.tool import ROOT

PYTHON = sys.executable
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def lives(pid: int) -> bool:
    """Whether the process still runs; one that is dead and not yet collected by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 3.0) -> bool:
    limit = time.monotonic() + seconds
    while lives(pid) and time.monotonic() < limit:
        time.sleep(0.01)
    return not lives(pid)


def test_the_outcome_holds_both_streams_and_the_code() -> None:
    outcome = LocalMachine().run(("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (outcome.rc, outcome.stdout, outcome.stderr, outcome.problem) == (3, "out\n", "err\n", "")
    assert not outcome.ok


def test_a_program_that_is_absent_or_not_allowed_is_an_outcome_not_an_exception(tmp_path: Path) -> None:
    assert LocalMachine().run(("no-such-program-here",)).problem == ABSENT
    (tmp_path / "text").write_text("not a program")
    assert LocalMachine().run((f"{tmp_path}/text",)).problem == DENIED


def test_a_command_that_ignores_sigterm_is_ended_soon_after_its_time() -> None:
    begin = time.monotonic()
    outcome = LocalMachine().run((PYTHON, "-c", STUBBORN), timeout=0.5)
    assert (outcome.rc, outcome.problem) == (None, TIMED_OUT)
    assert time.monotonic() - begin < 30, "it would go on for a minute"


def test_the_children_of_a_command_end_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    outcome = LocalMachine().run(("sh", "-c", f"sleep 60 & echo $! > {note}; wait"), timeout=0.3)
    assert outcome.problem == TIMED_OUT
    assert gone(int(note.read_text()))


def test_a_flood_on_both_streams_does_not_block() -> None:
    flood = "import sys; sys.stdout.write('o'*300000); sys.stderr.write('e'*300000)"
    outcome = LocalMachine().run((PYTHON, "-c", flood), timeout=20)
    assert (len(outcome.stdout), len(outcome.stderr)) == (300_000, 300_000)


def test_output_that_is_not_utf8_is_kept_readable() -> None:
    outcome = LocalMachine().run(("printf", r"caf\351\n"))
    assert outcome.stdout == "caf\N{REPLACEMENT CHARACTER}\n"


def test_stdin_is_empty_so_that_nothing_can_wait_for_an_answer() -> None:
    assert LocalMachine().run(("cat",), timeout=5).stdout == ""


def test_a_child_gets_network_settings_and_english_but_no_python_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PYTHONPATH": "/somewhere",
        "LC_ALL": "de_DE.UTF-8",
        "https_proxy": "http://proxy:3128",
        "PIP_CERT": "/ca.pem",
        "AWS_SECRET_ACCESS_KEY": "no",
    }.items():
        monkeypatch.setenv(name, value)
    lines = LocalMachine().run(("env",), env={"EXTRA": "1"}).stdout.splitlines()
    assert {"LC_ALL=C.UTF-8", "https_proxy=http://proxy:3128", "PIP_CERT=/ca.pem", "EXTRA=1"} <= set(lines)
    assert not [line for line in lines if line.startswith(("PYTHON", "AWS_"))]


def test_child_environment_is_a_pure_function() -> None:
    assert child_environment({"HOME": "/h", "SECRET": "s", "NO_PROXY": "x"}, {"A": "b"}) == {
        "HOME": "/h",
        "NO_PROXY": "x",
        "LC_ALL": "C.UTF-8",
        "A": "b",
    }


def test_an_override_of_the_card_that_another_program_needs_is_not_passed_on() -> None:
    kept = child_environment({"HSA_OVERRIDE_GFX_VERSION": "10.3.0", "HSA_OVERRIDE_GFX_VERSION_1": "", "HSA_XNACK": "1"})
    assert kept.keys() == {"HSA_XNACK", "LC_ALL"}


def test_a_stream_gives_each_line_as_it_comes_and_keeps_the_raw_bytes(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    outcome = LocalMachine().stream(
        ("sh", "-c", r"printf 'one\ntwo\rthree\377\n'; echo four >&2; exit 7"),
        lines.append,
        cwd=str(tmp_path),
        log=str(log),
    )
    assert lines == ["one", "two", "three\N{REPLACEMENT CHARACTER}", "four"]
    assert log.read_bytes() == b"one\ntwo\nthree\xff\nfour\n"
    assert (outcome.rc, outcome.stdout.splitlines()[-1]) == (7, "four")


def test_a_stream_can_be_cancelled_and_ends_the_group(tmp_path: Path) -> None:
    note, cancel = tmp_path / "pid", threading.Event()

    def on_line(line: str) -> None:
        if line == "up":
            cancel.set()

    begin = time.monotonic()
    LocalMachine().stream(("sh", "-c", f"sleep 60 & echo $! > {note}; echo up; wait"), on_line, cancel=cancel)
    assert time.monotonic() - begin < 30, "it would go on for a minute"
    assert gone(int(note.read_text()))


def test_an_exception_in_the_listener_ends_the_process(tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    note = tmp_path / "pid"
    with pytest.raises(KeyboardInterrupt):
        LocalMachine().stream(("sh", "-c", f"echo $$ > {note}; echo up; sleep 60"), stop)
    assert gone(int(note.read_text()))


def test_a_process_left_by_a_thread_ends_with_the_interpreter(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = (
        "import threading, time; from machine.local import LocalMachine\n"
        f"run = lambda: LocalMachine().run(('sh', '-c', 'echo $$ > {note}; sleep 60'), timeout=60)\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        f"import os\nwhile not os.path.exists('{note}') or not os.path.getsize('{note}'): time.sleep(0.01)\n"
        # the process writes its number before the thread has heard of it
        "time.sleep(0.2)\n"
    )
    root = str(ROOT)
    outcome = LocalMachine().run((PYTHON, "-c", f"import sys; sys.path.insert(0, {root!r})\n{script}"), timeout=20)
    assert outcome.ok, outcome.stderr
    assert gone(int(note.read_text()))


def test_bindings_absent_answers_at_once_without_starting_a_process() -> None:
    if any(os.path.exists(f"{folder}/libamd_smi.so") for folder in ("/opt/rocm/lib", "/usr/lib/x86_64-linux-gnu")):
        pytest.skip("this machine has AMD's library")
    outcome = LocalMachine().binding("amd")
    assert (outcome.problem, outcome.seconds) == (ABSENT, 0.0)


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A control group that can be frozen: in it even SIGKILL waits, as for a process that hangs in a driver."""
    group = Path("/sys/fs/cgroup/freezer/gpu-setup-test")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer (cgroup v1) here: {error.strerror}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    limit = time.monotonic() + 5
    while (group / "cgroup.procs").read_text() and time.monotonic() < limit:
        time.sleep(0.05)
    group.rmdir()


@pytest.mark.lab
def test_a_process_that_cannot_be_killed_is_abandoned(freezer: Path) -> None:
    """Also SIGKILL does nothing to a process that waits for a card which never answers."""
    cancel = threading.Event()

    def freeze(line: str) -> None:
        (freezer / "cgroup.procs").write_text(line)
        (freezer / "freezer.state").write_text("FROZEN")
        cancel.set()

    begin = time.monotonic()
    outcome = LocalMachine().stream(("sh", "-c", "echo $$; exec sleep 60"), freeze, cancel)
    assert time.monotonic() - begin < 50, "it would go on for a minute"
    assert outcome.rc is None
