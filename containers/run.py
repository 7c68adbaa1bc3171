"""Runs a program in the image: the engine's `run` as argv, a container that ends with its call, files of the user.

Folders are mounted at the same path as on the machine, so that every path means the same inside and outside.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from containers.errors import engine_problem, known_cause
from containers.model import Engine
from containers.orphans import OWNER_LABEL, TOKEN_FILE, owner
from containers.ownership import container_owner
from machine.local import FileStatus, LocalMachine, Machine, Outcome, Session, Space, Unreadable

# shared memory for data loaders; Docker's default of 64 MB causes bus errors
SHM = "8g"
# the exit status of `run` when the engine itself failed; otherwise it is the program's
ENGINE_FAILED = 125
PATIENCE = 60.0


class Mount(NamedTuple):
    """A folder or file of the machine, at the same path inside."""

    path: Path
    writable: bool = False


class Container(NamedTuple):
    """How containers are started: the image, the user in it, devices and mounts. `user`: uid:gid; None: the image's.

    `env` has no secrets: it is visible in argv and in `docker inspect`. `passed` are variables whose values the
    engine's command takes from its environment, so that they are not in argv. `network` False: none at all;
    `host_network`: the machine's network. `limits` are for containers with GPUs. `private` is a folder for files that
    only this container may read.
    """

    engine: Engine
    image: str
    user: str | None
    devices: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = {}
    passed: tuple[str, ...] = ()
    network: bool = False
    host_network: bool = False
    shm: str = SHM
    writable_root: bool = False
    limits: tuple[str, ...] = ("memlock=-1", "stack=67108864")
    private: Path | None = None


def container_user(session: Session, engine: Engine) -> str | None:
    """The user inside, so that new files belong to the person.

    In a rootless engine uid 0 is the person. With sudo it is the person who called it; root itself gets the image's
    user instead: nothing trains as root.
    """
    if engine.rootless and engine.program != "podman":
        return "0:0"
    if session.uid:
        return f"{session.uid}:{os.getegid()}"
    caller, group = (session.environ.get(f"SUDO_{name}", "") for name in ("UID", "GID"))
    # podman's keep-id, which gives the person the same uid inside, works only with a rootless podman
    known = caller.isdecimal() and group.isdecimal() and int(caller) and engine.program != "podman"
    return f"{caller}:{group}" if known else None


def run_argv(
    container: Container,
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    attached: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """The engine's command for one program. No capabilities, no new privileges, the default seccomp profile.

    `attached`: the engine's options for a program that reads stdin or has a terminal.
    """
    engine = container.engine
    words = [engine.program, "run", "--rm", "--name", name, "--label", f"{OWNER_LABEL}={owner()}", "--pull", "never"]
    words += [*attached, "--sig-proxy=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if not container.writable_root:
        words += ["--read-only"]
    # Triton loads its compiled code from there, hence exec
    words += ["--tmpfs", "/tmp:exec,mode=1777", "--shm-size", container.shm]
    if container.devices and not engine.rootless:
        # page-locked memory for copies to the GPU; a rootless engine may not raise the limit
        words += [word for limit in container.limits for word in ("--ulimit", limit)]
    if engine.program == "podman" and container.user and engine.rootless:
        words += ["--userns", "keep-id"]
    if container.user:
        words += ["--user", container.user]
    if not container.network:
        words += ["--network", "none"]
    elif container.host_network:
        words += ["--network", "host"]
    words += container.devices
    for mount in container.mounts:
        kind = "" if mount.writable else ",readonly"
        words += ["--mount", f"type=bind,{_field('source', mount.path)},{_field('target', mount.path)}{kind}"]
    for key, value in sorted({"HOME": "/tmp", **container.env, **(env or {})}.items()):
        words += ["--env", f"{key}={value}"]
    for name_only in container.passed:
        words += ["--env", name_only]
    if cwd:
        words += ["--workdir", cwd]
    return (*words, container.image, *argv)


def _field(key: str, path: Path) -> str:
    """One field of --mount, which is a line of CSV."""
    word = f"{key}={path}"
    return '"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word


class ContainerMachine:
    """This machine, with one difference: a program of the image's environment runs in a container of that image.

    Everything else (files, other programs) is the machine's. So the caller that starts the environment's Python need
    not know whether it is a venv or an image.
    """

    name = "this machine"

    def __init__(self, machine: Machine, container: Container, environment: str, hide: frozenset[str]) -> None:
        """`environment` is the environment's folder inside; `hide` are variables that have a meaning only outside."""
        self._machine, self._container = machine, container
        self._inside, self._hide = environment.rstrip("/") + "/", hide

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        if not argv[0].startswith(self._inside):
            return self._machine.run(argv, timeout, env)
        with self._running(argv, env, None) as words:
            # the engine needs time to create and remove the container, besides the program's time
            outcome = self._machine.run(words, timeout + PATIENCE)
        return self.run(argv, timeout, env) if self._drop_limits(outcome) else outcome

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
        with self._running(argv, env, cwd) as words:
            outcome = self._machine.stream(words, on_line, cancel, None, None, log)
        if self._drop_limits(outcome):
            return self.stream(argv, on_line, cancel, env, cwd, log)
        if outcome.rc == ENGINE_FAILED:
            raise engine_problem(outcome, "The container did not start")
        return outcome

    def _drop_limits(self, outcome: Outcome) -> bool:
        """Whether only its limits prevented this container's start: then this one and all later ones have none."""
        if not is_limit_refused(outcome, self._container):
            return False
        self._container = self._container._replace(limits=())
        return True

    @contextmanager
    def _running(
        self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None
    ) -> Iterator[tuple[str, ...]]:
        """The command for a new container, which is removed at the end in any case."""
        name = f"gpu-setup-{uuid4().hex[:12]}"
        # a token must not be in argv or `docker inspect`: with_token mounts it as a file
        kept = {key: value for key, value in (env or {}).items() if not key.endswith("_TOKEN")}
        inside = {key: value for key, value in kept.items() if key not in self._hide}
        with with_token(self._container, self._machine) as container:
            try:
                yield run_argv(container, name, argv, inside, cwd)
            finally:
                # after Ctrl-C or a time-out the client has ended, but the container still runs
                remove_container(container.engine, name, self._machine)

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


def is_limit_refused(outcome: Outcome, container: Container) -> bool:
    """Whether the engine may not raise a limit, for example because it runs in a container (LXC): then nothing ran.

    Locked memory makes copies to a GPU faster; no training depends on it.
    """
    if not container.limits or outcome.rc != ENGINE_FAILED:
        return False
    cause = known_cause(f"{outcome.stdout}\n{outcome.stderr}")
    return cause is not None and cause.code == "rlimit"


def attach_options() -> tuple[str, ...]:
    """Options that attach the program to this process: its stdin, and the terminal if there is one."""
    return ("--interactive", "--tty") if os.isatty(0) and os.isatty(1) else ("--interactive",)


def run_attached(
    container: Container, argv: Sequence[str], machine: LocalMachine, say: Callable[[str], None], cwd: str
) -> int:
    """Run a person's program until it ends, attached to this process. Returns the program's exit status."""
    name = f"gpu-setup-{uuid4().hex[:12]}"
    with with_token(container, machine) as given:
        try:
            outcome = machine.run_in_foreground(run_argv(given, name, argv, cwd=cwd, attached=attach_options()))
        finally:
            remove_container(container.engine, name, machine)
    if is_limit_refused(outcome, container):
        say("gpu-setup: this engine may not raise the limit of locked memory: starting again without it")
        return run_attached(container._replace(limits=()), argv, machine, say, cwd)
    if outcome.rc is None or outcome.rc == ENGINE_FAILED:
        raise engine_problem(outcome, "The container did not start")
    return outcome.rc if outcome.rc >= 0 else 128 - outcome.rc


def remove_container(engine: Engine, name: str, machine: Machine) -> None:
    """Stop and remove a container; it is no error if it does not exist."""
    outcome = machine.run((engine.program, "rm", "--force", name), timeout=PATIENCE)
    # Docker 20.10 prints this while --rm is removing it
    limit = time.monotonic() + PATIENCE
    while "already in progress" in outcome.stderr and time.monotonic() < limit:
        time.sleep(0.05)
        outcome = machine.run((engine.program, "rm", "--force", name), timeout=PATIENCE)


@contextmanager
def with_token(container: Container, machine: Machine) -> Iterator[Container]:
    """The container with the person's hub token, if it has a network and there is a token.

    The token is only mounted as a file: other users can read argv, the image and `docker inspect`. It is the person's
    file if the container's user can read it, else a copy for this run, removed at the end.
    """
    if not container.network or container.private is None:
        yield container
        return
    environ = machine.session().environ
    home = environ.get("HF_HOME") or f"{environ.get('HOME', '')}/.cache/huggingface"
    own = Path(environ.get("HF_TOKEN_PATH") or f"{home}/token")
    value = environ.get("HF_TOKEN", "").encode()
    if not value:
        try:
            value = machine.read(str(own))
        except Unreadable:
            yield container
            return
        if container_owner(container.user, container.engine).uid == os.geteuid():
            yield _with_token_at(container, own)
            return
    place = container.private / f"{TOKEN_FILE}{owner()}-{uuid4().hex[:6]}"
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(value)
            if os.geteuid() == 0:
                os.fchown(handle, *container_owner(container.user, container.engine))
        yield _with_token_at(container, place)
    finally:
        place.unlink(missing_ok=True)


def _with_token_at(container: Container, place: Path) -> Container:
    return container._replace(
        mounts=(*container.mounts, Mount(place)), env={**container.env, "HF_TOKEN_PATH": str(place)}
    )
