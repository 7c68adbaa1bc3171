"""What a container gets, in the two forms that an engine takes: a body for its API, or a command for its own program.

Folders and files are mounted at the same path as on the machine, so that every path means the same inside and outside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from containers.device_options import NO_DEVICES, Devices
from containers.model import Engine
from containers.orphans import OWNER_LABEL, owner
from machine.local import Session

# bytes of shared memory for data loaders; Docker's default of 64 MB causes bus errors
SHM = 8 << 30
# Triton loads its compiled code from there, hence exec
TMPFS = "exec,mode=1777"
# page-locked memory for copies to the GPU
LIMITS = (("memlock", -1), ("stack", 67108864))
# sh reads the file of variables, then becomes the program
_READ_VARIABLES = '. "$0" && exec "$@"'


class Mount(NamedTuple):
    """A folder or file of the machine, at the same path inside, or at `inside`."""

    path: Path
    writable: bool = False
    inside: Path | None = None

    @property
    def target(self) -> str:
        return str(self.inside or self.path)


class Container(NamedTuple):
    """How containers are started: the image, the user in it, devices and mounts. `user`: uid:gid; None: the image's.

    `env` has no secrets: `docker inspect` shows it. `secrets` are variables that reach the program only through a file
    (run_secrets.py): `variables` is its path inside, None where there is none. `network` False: none at all;
    `host_network`: the machine's network. `shm` in bytes. `limits` are for containers with GPUs. `private` is a folder
    for files that only this container may read.
    """

    engine: Engine
    image: str
    user: str | None
    devices: Devices = NO_DEVICES
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}
    variables: str | None = None
    network: bool = False
    host_network: bool = False
    shm: int = SHM
    writable_root: bool = False
    limits: tuple[tuple[str, int], ...] = LIMITS
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


def create_body(
    container: Container,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    stdin: bool = False,
) -> dict[str, Any]:
    """The body of the API's containers/create for one program. `stdin`: the program reads one.

    No capabilities, no new privileges, the default seccomp profile; the engine removes the container when it ends.
    """
    host: dict[str, Any] = {
        "AutoRemove": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": not container.writable_root,
        "Tmpfs": {"/tmp": TMPFS},
        "ShmSize": container.shm,
        "NetworkMode": _network(container) or "default",
        "Mounts": [
            {"Type": "bind", "Source": str(each.path), "Target": each.target, "ReadOnly": not each.writable}
            for each in container.mounts
        ],
        "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in _limits(container)],
        **container.devices.body(),
    }
    if _keeps_id(container):
        host["UsernsMode"] = "keep-id"
    return {
        "Image": container.image,
        "Cmd": _program(container, argv),
        "Env": [f"{key}={value}" for key, value in _variables(container, env)],
        "Labels": {OWNER_LABEL: owner()},
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": host,
        **({"User": container.user} if container.user else {}),
        **({"WorkingDir": cwd} if cwd else {}),
    }


def run_argv(
    container: Container, name: str, argv: Sequence[str], cwd: str | None = None, attached: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The same container as a command of the engine's program, for a terminal, and to be shown.

    `attached`: the program's options for stdin and a terminal. Of secrets that are in no file it has only the names.
    """
    engine = container.engine
    words = [engine.program, "run", "--rm", "--name", name, "--label", f"{OWNER_LABEL}={owner()}", "--pull", "never"]
    words += [*attached, "--sig-proxy=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if not container.writable_root:
        words += ["--read-only"]
    words += ["--tmpfs", f"/tmp:{TMPFS}", "--shm-size", str(container.shm)]
    words += [word for name, value in _limits(container) for word in ("--ulimit", f"{name}={value}")]
    if _keeps_id(container):
        words += ["--userns", "keep-id"]
    if container.user:
        words += ["--user", container.user]
    if network := _network(container):
        words += ["--network", network]
    words += container.devices.argv()
    for mount in container.mounts:
        kind = "" if mount.writable else ",readonly"
        words += ["--mount", f"type=bind,{_field('source', str(mount.path))},{_field('target', mount.target)}{kind}"]
    words += [word for key, value in _variables(container, None) for word in ("--env", f"{key}={value}")]
    words += [word for key in sorted(container.secrets) for word in ("--env", key)]
    if cwd:
        words += ["--workdir", cwd]
    return (*words, container.image, *_program(container, argv))


def _program(container: Container, argv: Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", _READ_VARIABLES, container.variables, *argv] if container.variables else list(argv)


def _variables(container: Container, env: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return sorted({"HOME": "/tmp", **container.env, **(env or {})}.items())


def _limits(container: Container) -> tuple[tuple[str, int], ...]:
    # a rootless engine may not raise them
    return container.limits if container.devices != NO_DEVICES and not container.engine.rootless else ()


def _keeps_id(container: Container) -> bool:
    return container.engine.program == "podman" and container.user is not None and container.engine.rootless


def _network(container: Container) -> str | None:
    """none, host, or None for the engine's own."""
    return "none" if not container.network else "host" if container.host_network else None


def _field(key: str, path: str) -> str:
    """One field of --mount, which is a line of CSV."""
    word = f"{key}={path}"
    return '"' + word.replace('"', '""') + '"' if "," in word or '"' in word else word
