"""Runs a program in the image: the engine's `run` as argv, a container that ends with its call, files as one's own.

Folders are mounted where they lie on the machine, so that every path means the same inside and outside.
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

from containers.dockerfile import UID
from containers.errors import engine_problem, known_cause
from containers.model import Engine
from containers.orphans import OWNER_LABEL, TOKEN_FILE, owner
from machine.errors import OutsideFailed
from machine.local import FileStatus, LocalMachine, Machine, Outcome, Session, Space, Unreadable

# of the shared memory that data loaders use; Docker's own 64 MB end in a bus error
SHM = "8g"
# `run` ends with it when the engine itself failed, else with the program's own code
ENGINE_FAILED = 125
PATIENCE = 60.0


class Mount(NamedTuple):
    """A folder or file of the machine, at the same place inside. `ours`: of gpu-setup's own, for runs and caches."""

    path: Path
    writable: bool = False
    ours: bool = False


class Container(NamedTuple):
    """How containers are started: the image, who runs in it, what it sees. `user`: uid:gid; None: the image's own.

    `env` holds no secret: it stands in argv and in `docker inspect`. `passed` are variables that the engine's command
    takes from its own environment, so that their values stay out of argv. `network` False: none at all; `host_network`:
    the machine's own. `limits` are for containers with cards. `private` is a folder of the person's for what only this
    container may read.
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


def identity(session: Session, engine: Engine) -> str | None:
    """Who runs inside, so that files come out as one's own.

    A rootless engine's uid 0 is the person. Behind sudo it is the person who called it; root itself gets the image's
    own user instead: nothing trains as root.
    """
    if engine.rootless and engine.program != "podman":
        return "0:0"
    if session.uid:
        return f"{session.uid}:{os.getegid()}"
    caller, group = (session.environ.get(f"SUDO_{name}", "") for name in ("UID", "GID"))
    # podman's keep-id, which makes the person's number mean the same inside, is for a person's own podman only
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
    """The engine's command for one program. No capability, no way to gain one, the default seccomp profile.

    `attached`: the engine's options for a program that reads stdin or has a terminal.
    """
    engine = container.engine
    words = [engine.program, "run", "--rm", "--name", name, "--label", f"{OWNER_LABEL}={owner()}", "--pull", "never"]
    words += [*attached, "--sig-proxy=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if not container.writable_root:
        words += ["--read-only"]
    # Triton loads what it compiled there, hence exec
    words += ["--tmpfs", "/tmp:exec,mode=1777", "--shm-size", container.shm]
    if container.devices and not engine.rootless:
        # page-locked memory for copies to the card; a rootless engine may not lift the limit
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

    Everything else (files, other programs) is the machine's own. So whoever starts the environment's Python need not
    know whether it is a venv or an image.
    """

    name = "this machine"

    def __init__(self, machine: Machine, container: Container, environment: str, hide: frozenset[str]) -> None:
        """`environment` is the environment's folder inside; `hide` are variables that mean something outside only."""
        self._machine, self._container = machine, container
        self._inside, self._hide = environment.rstrip("/") + "/", hide

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        if not argv[0].startswith(self._inside):
            return self._machine.run(argv, timeout, env)
        with self._started(argv, env, None) as words:
            # the engine needs its time to set up and take down, beside the program's own
            outcome = self._machine.run(words, timeout + PATIENCE)
        return self.run(argv, timeout, env) if self._goes_without_limits(outcome) else outcome

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
        with self._started(argv, env, cwd) as words:
            outcome = self._machine.stream(words, on_line, cancel, None, None, log)
        if self._goes_without_limits(outcome):
            return self.stream(argv, on_line, cancel, env, cwd, log)
        if outcome.rc == ENGINE_FAILED:
            raise engine_problem(outcome, "The container did not start")
        return outcome

    def _goes_without_limits(self, outcome: Outcome) -> bool:
        """Whether this container did not start for its limits alone: then this one and all later ones have none."""
        if not may_not_lift(outcome, self._container):
            return False
        self._container = self._container._replace(limits=())
        return True

    @contextmanager
    def _started(
        self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str | None
    ) -> Iterator[tuple[str, ...]]:
        """The command for a new container, which is gone at the end, however that comes."""
        name = f"gpu-setup-{uuid4().hex[:12]}"
        # a token stays out of argv and `docker inspect`: with_token hands it over as a file
        kept = {key: value for key, value in (env or {}).items() if not key.endswith("_TOKEN")}
        inside = {key: value for key, value in kept.items() if key not in self._hide}
        hand_over(self._container)
        with with_token(self._container, self._machine) as container:
            try:
                yield run_argv(container, name, argv, inside, cwd)
            finally:
                # after its end there is none; after Ctrl-C or a time-out the client is gone and the container runs on
                remove(container.engine, name, self._machine)

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


def may_not_lift(outcome: Outcome, container: Container) -> bool:
    """Whether the engine may not lift a limit, as in a container of its own (LXC): nothing ran then.

    Locked memory makes copies to a card faster; no training depends on it.
    """
    if not container.limits or outcome.rc != ENGINE_FAILED:
        return False
    cause = known_cause(f"{outcome.stdout}\n{outcome.stderr}")
    return cause is not None and cause.code == "rlimit"


def attached_here() -> tuple[str, ...]:
    """How a program is attached to where this process is: its stdin, and a terminal where there is one to talk with."""
    return ("--interactive", "--tty") if os.isatty(0) and os.isatty(1) else ("--interactive",)


def run_in(
    container: Container, argv: Sequence[str], machine: LocalMachine, say: Callable[[str], None], cwd: str
) -> int:
    """Run a person's own program to its end, attached to where this process is. Returns the program's exit code.

    The folders keep their owner.
    """
    name = f"gpu-setup-{uuid4().hex[:12]}"
    hand_over(container)
    with with_token(container, machine) as given:
        try:
            outcome = machine.run_in_foreground(run_argv(given, name, argv, cwd=cwd, attached=attached_here()))
        finally:
            remove(container.engine, name, machine)
    if may_not_lift(outcome, container):
        say("gpu-setup: this engine may not lift the limit of locked memory: started once more, without")
        return run_in(container._replace(limits=()), argv, machine, say, cwd)
    if outcome.rc is None or outcome.rc == ENGINE_FAILED:
        raise engine_problem(outcome, "The container did not start")
    return outcome.rc if outcome.rc >= 0 else 128 - outcome.rc


def remove(engine: Engine, name: str, machine: Machine) -> None:
    """End and remove a container; one that is gone already is no error."""
    outcome = machine.run((engine.program, "rm", "--force", name), timeout=PATIENCE)
    # 20.10 says so when --rm is at it already
    limit = time.monotonic() + PATIENCE
    while "already in progress" in outcome.stderr and time.monotonic() < limit:
        time.sleep(0.05)
        outcome = machine.run((engine.program, "rm", "--force", name), timeout=PATIENCE)


def _owner(container: Container) -> tuple[int, int]:
    """uid and gid of the container's processes, as they are on the machine."""
    if container.user is None:
        return UID, UID
    if container.engine.rootless:
        return os.geteuid(), os.getegid()
    uid, _, gid = container.user.partition(":")
    return int(uid), int(gid)


def hand_over(container: Container) -> None:
    """For root, whose containers run as another user: give it our own folders that it works in, with all in them.

    Some libraries write models that only their owner may read. A person's own folders keep their owner.
    """
    if os.geteuid() != 0:
        return
    uid, gid = _owner(container)
    for mount in container.mounts:
        if not mount.writable or not mount.ours or not mount.path.is_dir():
            continue
        for place in (mount.path, *mount.path.rglob("*")):
            try:
                if place.lstat().st_uid == 0:
                    os.chown(place, uid, gid, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OutsideFailed(
                    "image.chown",
                    f"{place} could not be handed to the container's user.",
                    f"The system says: {error.strerror or error}.",
                    "Set GPU_SETUP_HOME to a folder on a local disk, or run as yourself instead of root",
                ) from error


@contextmanager
def with_token(container: Container, machine: Machine) -> Iterator[Container]:
    """The container with the person's hub token, where it has a network and there is a token.

    A token is handed over as a mounted file only: argv, the image and `docker inspect` can be read by others. The
    person's own file where the container's user can read it, else one of its own for this run, removed at the end.
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
        if _owner(container)[0] == os.geteuid():
            yield _with_token_at(container, own)
            return
    place = container.private / f"{TOKEN_FILE}{owner()}-{uuid4().hex[:6]}"
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(value)
        if os.geteuid() == 0:
            os.chown(place, *_owner(container))
        yield _with_token_at(container, place)
    finally:
        place.unlink(missing_ok=True)


def _with_token_at(container: Container, place: Path) -> Container:
    return container._replace(
        mounts=(*container.mounts, Mount(place)), env={**container.env, "HF_TOKEN_PATH": str(place)}
    )
