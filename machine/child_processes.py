"""Child processes once they run: reading their lines, and ending them with everything that they started."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_alive: set[subprocess.Popen[bytes]] = set()


@contextmanager
def remember(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """While this lasts, leaving the interpreter ends the child too (a probe's thread is killed silently at exit)."""
    if not _alive:
        atexit.unregister(_end_all)
        atexit.register(_end_all)
    _alive.add(child)
    try:
        yield
    finally:
        _alive.discard(child)


def _end_all() -> None:
    for child in tuple(_alive):
        end(child, polite=0.2, forced=0.1)


def watch(
    child: subprocess.Popen[bytes], cancel: threading.Event, done: threading.Event, left: threading.Event
) -> None:
    """End the child when `cancel` is set; give up watching when `done` is. `left` is set when it cannot be ended."""
    while not done.is_set():
        if cancel.wait(0.2):
            end(child)
            if child.poll() is None:
                left.set()
            return


def end(child: subprocess.Popen[bytes], polite: float = 3.0, forced: float = 1.0) -> None:
    """End the child's whole group: SIGTERM and `polite` seconds, then SIGKILL and `forced`. The rest is abandoned.

    The child must lead a group of its own (start_new_session).
    """
    for sign, patience in ((signal.SIGTERM, polite), (signal.SIGKILL, forced)):
        if child.poll() is not None and not _group_lives(child.pid):
            return
        try:
            os.killpg(child.pid, sign)
        except (ProcessLookupError, PermissionError):
            child.poll()
            return
        limit = time.monotonic() + patience
        while time.monotonic() < limit and (child.poll() is None or _group_lives(child.pid)):
            time.sleep(0.01)


def end_alone(child: subprocess.Popen[bytes], polite: float = 3.0) -> None:
    """End a child of this process's own group: SIGTERM and `polite` seconds, then SIGKILL. What it started lives on."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(polite)
    except subprocess.TimeoutExpired:
        child.kill()
        collect(child)


def collect(child: subprocess.Popen[bytes]) -> None:
    """Wait for an abandoned child in the background, so that it does not stay as a zombie."""
    if child.poll() is None:
        threading.Thread(target=child.wait, name=f"collect {child.pid}", daemon=True).start()


def _group_lives(group: int) -> bool:
    """Whether a process of the group still runs; dead ones that nobody collects (a container without init) do not."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 (hundreds of files, ended every 10 ms)
                    # pid (name) state parent group …: the name may hold spaces and brackets (proc_pid_stat(5))
                    state, _, member_of = file.read(512).rpartition(b")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(member_of) == group and state not in (b"Z", b"X"):
                return True
    return False


def _part(handle: int, left: threading.Event | None) -> bytes:
    if left is not None:
        import select

        while not select.select([handle], [], [], 1.0)[0]:
            if left.is_set():
                return b""
    return os.read(handle, 1 << 16)


def lines(handle: int, longest: int = 1 << 16, left: threading.Event | None = None) -> Iterator[bytes]:
    """Lines ended by newline or return (progress bars); a line longer than `longest` bytes comes in pieces.

    When `left` is set the writer is stuck in the kernel, and what it may still write is not waited for.
    """
    rest = b""
    while part := _part(handle, left):
        *whole, rest = (rest + part).replace(b"\r", b"\n").split(b"\n")
        yield from (line for line in whole if line)
        if len(rest) > longest:
            yield rest
            rest = b""
    if rest:
        yield rest
