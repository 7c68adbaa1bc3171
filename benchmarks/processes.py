"""Runs one command to its end and reports what it cost; reads a running process through /proc.

A process may end at any moment, also while it is read: every function then answers as for a process that is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")


class Ended(NamedTuple):
    """Exit status, wall seconds, user and system seconds, peak resident bytes; children it waited for are included.

    A forked process inherits its parent's peak, so `peak_rss_bytes` is never below this benchmark's own 15 MiB.
    """

    rc: int
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


def person_environment(**more: str) -> dict[str, str]:
    """The caller's environment without what changes Python itself: all commands start alike."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | more


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdout: Path | None = None,
    stderr: Path | None = None,
    cwd: Path | None = None,
    watch: Callable[[int], None] | None = None,
    every: float = 0.05,
) -> Ended:
    """Run to the end; output goes to files or nowhere, both streams into one when the paths are equal.

    `watch` is called with the process's id every `every` seconds; the wall seconds are then that coarse.
    """
    out = (stdout or Path(os.devnull)).open("wb")
    err = out if stderr == stdout else (stderr or Path(os.devnull)).open("wb")
    with out, err:
        begin = time.perf_counter()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd)
        try:
            done, status, usage = os.wait4(child.pid, os.WNOHANG if watch else 0)
            while watch and done == 0:
                watch(child.pid)
                time.sleep(every)
                done, status, usage = os.wait4(child.pid, os.WNOHANG)
        except BaseException:
            # gpu-setup ends its own children on SIGINT
            child.send_signal(signal.SIGINT)
            child.wait()
            raise
        seconds = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    return Ended(child.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def children(pid: int) -> tuple[int, ...]:
    """The ids of the living children of a process, of all its threads; empty when it is gone."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return ()
    return tuple(int(child) for task in tasks for child in _read(f"/proc/{pid}/task/{task}/children").split())


def command_line(pid: int) -> tuple[str, ...]:
    """argv of a running process; empty when it is gone or a zombie."""
    raw = _read(f"/proc/{pid}/cmdline").rstrip("\0")
    return tuple(raw.split("\0")) if raw else ()


def environment(pid: int) -> dict[str, str]:
    """The variables that a running process was started with; empty when it is gone or a zombie."""
    raw = _read(f"/proc/{pid}/environ").rstrip("\0")
    return dict(pair.split("=", 1) for pair in raw.split("\0") if "=" in pair)


def cpu_seconds(pid: int) -> tuple[float, float] | None:
    """User and system seconds: of the process itself, and of the children that it has waited for; None when gone."""
    # the name in brackets may hold spaces and brackets itself
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return None
    own, waited = fields[11:13], fields[13:15]
    return sum(map(int, own)) / TICK, sum(map(int, waited)) / TICK


def peak_memory(pid: int) -> int | None:
    """Peak resident bytes so far, as the kernel keeps it (VmHWM); None when the process is gone or a zombie."""
    status = _read(f"/proc/{pid}/status")
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _read(path: str) -> str:
    """A file of /proc; empty when its process is gone."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
