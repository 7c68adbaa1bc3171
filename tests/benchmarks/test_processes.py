"""What benchmarks read of running processes: one may end while it is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks import processes


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """`cat`, which has answered: a process that has only just started shows no command line yet."""
    with subprocess.Popen(("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin and running.stdout
        running.stdin.write(b"\n")
        running.stdin.flush()
        running.stdout.readline()
        yield running
        running.kill()


@pytest.mark.parametrize("listing", ["listdir", "scandir"])
def test_a_process_that_ends_while_its_threads_are_listed_has_no_children(
    child: subprocess.Popen[bytes], listing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still exists when the folder's name is known, and is gone when the folder is opened."""
    real = getattr(os, listing)

    def end_first(path: Any) -> Any:
        child.kill()
        child.wait()
        return real(path)

    monkeypatch.setattr(os, listing, end_first)
    assert processes.children(child.pid) == ()


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (processes.children, ()),
        (processes.command_line, ()),
        (processes.environment, {}),
        (processes.cpu_seconds, None),
        (processes.peak_memory, None),
    ],
)
def test_a_process_that_is_gone(child: subprocess.Popen[bytes], read: Callable[[int], Any], answer: Any) -> None:
    child.kill()
    # a zombie first: its folder exists, most of its files are empty
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    read(child.pid)
    child.wait()
    assert read(child.pid) == answer


def test_a_process_that_runs(child: subprocess.Popen[bytes]) -> None:
    assert child.pid in processes.children(os.getpid())
    assert processes.command_line(child.pid) == ("cat",)
    assert "PATH" in processes.environment(child.pid)
    assert processes.cpu_seconds(child.pid) and processes.peak_memory(child.pid)
