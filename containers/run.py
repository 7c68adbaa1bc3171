"""Runs programs in containers, each of which ends with the call that started it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from containers.connection import engine_errors
from containers.container import Container, create_body, run_argv
from containers.errors import ENGINE_FAILED, engine_problem
from containers.orphans import remove_container
from containers.run_secrets import with_secrets, without_secrets
from machine.errors import Problem
from machine.local import TIMED_OUT, FileStatus, LocalMachine, Machine, Outcome, Session, Space

if TYPE_CHECKING:
    from docker import APIClient

STARTING = "The container did not start"
# what a program has that was killed (signal 9)
KILLED = 137


class Started(NamedTuple):
    """A container that runs: its name, what it prints as (1 or 2, bytes), its stdin, and how to wait for its end."""

    name: str
    output: Iterator[tuple[int, bytes]]
    stdin: Any
    wait: Callable[[], int]


@contextmanager
def started(
    client: APIClient,
    container: Container,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: bool = False,
) -> Iterator[Started]:
    """Start a container; at the end it is removed in any case. Raises Problem where it does not start."""
    from docker.utils.socket import frames_iter

    name = f"gpu-setup-{uuid4().hex[:12]}"
    with ExitStack() as at_the_end:
        at_the_end.callback(remove_container, client, name)
        with engine_errors(STARTING):
            client.create_container_from_config(create_body(container, argv, env, cwd, stdin), name)
            # asked before the start, and answered after the engine removed it: its exit status cannot be missed
            address = f"{client.base_url}/v{client.api_version}/containers/{name}/wait"
            ended = client.post(address, params={"condition": "removed"}, stream=True, timeout=None)
            at_the_end.callback(ended.close)
            ended.raise_for_status()
            attached = client.attach_socket(name, {"stdin": int(stdin), "stdout": 1, "stderr": 1, "stream": 1})
            # the socket itself, besides its reading end
            both = getattr(attached, "_sock", attached)
            for end in (attached, both):
                at_the_end.callback(end.close)
            client.start(name)

        def wait() -> int:
            with engine_errors("The container's end is not known"):
                return int(ended.json()["StatusCode"])

        yield Started(name, frames_iter(attached, tty=False), both, wait)


@contextmanager
def _ended(client: APIClient, name: str, limit: float | None, cancel: threading.Event | None) -> Iterator[list[str]]:
    """While this lasts, remove the container after `limit` seconds or when `cancel` is set; the reason is listed."""
    done, reasons = threading.Event(), list[str]()

    def watch() -> None:
        begin = time.monotonic()
        while not done.wait(0.2):
            late = limit is not None and time.monotonic() - begin > limit
            if late or (cancel is not None and cancel.is_set()):
                reasons.append(TIMED_OUT if late else "cancelled")
                with suppress(Problem):
                    remove_container(client, name)
                return

    if limit is not None or cancel is not None:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield reasons
    finally:
        done.set()


class ContainerMachine:
    """This machine, with one difference: a program of the image's environment runs in a container of that image.

    Everything else (files, other programs) is the machine's. So the caller that starts the environment's Python need
    not know whether it is a venv or an image.
    """

    name = "this machine"

    def __init__(
        self, machine: Machine, client: APIClient, container: Container, environment: str, hide: frozenset[str]
    ) -> None:
        """`environment` is the environment's folder inside; `hide` are variables that have a meaning only outside."""
        self._machine, self._client, self._container = machine, client, container
        self._inside, self._hide = environment.rstrip("/") + "/", hide

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        if not argv[0].startswith(self._inside):
            return self._machine.run(argv, timeout, env)
        parts: dict[int, list[bytes]] = {1: [], 2: []}

        def collect(output: Iterable[tuple[int, bytes]]) -> None:
            for stream, part in output:
                parts[stream].append(part)

        outcome = self._run(argv, collect, env, None, timeout, None)
        out, err = (b"".join(parts[stream]).decode("utf-8", "replace") for stream in (1, 2))
        return outcome._replace(stdout=out, stderr=err)

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        if not argv[0].startswith(self._inside):
            return self._machine.stream(argv, on_line, cancel, env, cwd, log)
        last: list[str] = []
        with os.fdopen(_open_log(log or os.devnull), "ab") as sink:

            def report(output: Iterable[tuple[int, bytes]]) -> None:
                for raw in _lines(output):
                    sink.write(raw + b"\n")
                    sink.flush()
                    line = raw.decode("utf-8", "replace")
                    last[:] = [*last[-39:], line]
                    on_line(line)

            outcome = self._run(argv, report, env, cwd, None, cancel)
        return outcome._replace(stdout="\n".join(last))

    def _run(
        self,
        argv: Sequence[str],
        read: Callable[[Iterable[tuple[int, bytes]]], None],
        env: Mapping[str, str] | None,
        cwd: str | None,
        limit: float | None,
        cancel: threading.Event | None,
    ) -> Outcome:
        begin = time.monotonic()
        inside = {key: value for key, value in without_secrets(env or {}).items() if key not in self._hide}
        try:
            with (
                with_secrets(self._container, self._machine) as container,
                # its stdin stays open as long as this process lives
                started(self._client, container, argv, inside, cwd, stdin=True) as run,
                _ended(self._client, run.name, limit, cancel) as reasons,
            ):
                read(run.output)
                status = KILLED if reasons else run.wait()
        except Problem as problem:
            if not is_limit_refused(problem, self._container):
                raise
            # this container and all later ones have none
            self._container = self._container._replace(limits=())
            return self._run(argv, read, env, cwd, limit, cancel)
        late = TIMED_OUT in reasons
        return Outcome(
            tuple(argv), None if late else status, "", "", time.monotonic() - begin, TIMED_OUT if late else ""
        )

    def read(self, path: str, limit: int = 4 << 20) -> bytes:
        return self._machine.read(path, limit)

    def list(self, path: str) -> tuple[str, ...]:
        return self._machine.list(path)

    def link(self, path: str) -> str:
        return self._machine.link(path)

    def stat(self, path: str) -> FileStatus:
        return self._machine.stat(path)

    def access(self, path: str, wanted: int) -> bool | None:
        return self._machine.access(path, wanted)

    def space(self, path: str) -> Space | None:
        return self._machine.space(path)

    def session(self) -> Session:
        return self._machine.session()

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        return self._machine.binding(vendor, timeout)


def _open_log(log: str) -> int:
    """Open a log to append to; a new one belongs to its folder's owner, who is the container's user.

    A link that the container put there is not followed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        handle = os.open(log, flags | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(log, flags)
    if os.geteuid() == 0:
        folder = os.stat(os.path.dirname(log))
        os.fchown(handle, folder.st_uid, folder.st_gid)
    return handle


def _lines(output: Iterable[tuple[int, bytes]], longest: int = 1 << 16) -> Iterator[bytes]:
    """Lines ended by newline or return (progress bars), whole even where stdout and stderr take turns.

    A line longer than `longest` bytes comes in pieces.
    """
    rest = {1: b"", 2: b""}
    for stream, part in output:
        *whole, rest[stream] = (rest[stream] + part).replace(b"\r", b"\n").split(b"\n")
        yield from filter(None, whole)
        if len(rest[stream]) > longest:
            yield rest[stream]
            rest[stream] = b""
    yield from filter(None, rest.values())


def is_limit_refused(problem: Problem, container: Container) -> bool:
    """Whether the engine may not raise a limit, for example because it runs in a container (LXC): then nothing ran.

    Locked memory makes copies to a GPU faster; no training depends on it.
    """
    return bool(container.limits) and problem.code == "image.rlimit"


def attach_options() -> tuple[str, ...]:
    """Options of the engine's program that attach a container to this process: its stdin, and the terminal if any."""
    return ("--interactive", "--tty") if _is_terminal() else ("--interactive",)


def _is_terminal() -> bool:
    return os.isatty(0) and os.isatty(1)


def run_attached(
    client: APIClient,
    container: Container,
    argv: Sequence[str],
    machine: LocalMachine,
    say: Callable[[str], None],
    cwd: str,
) -> int:
    """Run a person's program until it ends, with this process's stdin, stdout and stderr; returns its exit status.

    At a terminal the engine's own program starts it: raw mode and the window's size are its work.
    """
    run = _run_at_terminal if _is_terminal() else _run_with_pipes
    try:
        with with_secrets(container, machine) as given:
            return run(client, given, argv, machine, cwd)
    except Problem as problem:
        if not is_limit_refused(problem, container):
            raise
    say("gpu-setup: this engine may not raise the limit of locked memory: starting again without it")
    return run_attached(client, container._replace(limits=()), argv, machine, say, cwd)


def _run_at_terminal(
    client: APIClient, container: Container, argv: Sequence[str], machine: LocalMachine, cwd: str
) -> int:
    name = f"gpu-setup-{uuid4().hex[:12]}"
    try:
        outcome = machine.run_in_foreground(run_argv(container, name, argv, cwd, attach_options()))
    finally:
        remove_container(client, name)
    if outcome.rc is None or outcome.rc == ENGINE_FAILED:
        raise engine_problem(outcome, STARTING)
    return outcome.rc if outcome.rc >= 0 else 128 - outcome.rc


def _run_with_pipes(
    client: APIClient, container: Container, argv: Sequence[str], _machine: LocalMachine, cwd: str
) -> int:
    with started(client, container, argv, cwd=cwd, stdin=True) as run:
        threading.Thread(target=_copy_stdin, args=(run.stdin,), daemon=True).start()
        for stream, part in run.output:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(stream, rest) :]
        return run.wait()


def _copy_stdin(to: socket.socket) -> None:
    with suppress(OSError):
        while part := os.read(0, 1 << 16):
            to.sendall(part)
        to.shutdown(socket.SHUT_WR)
