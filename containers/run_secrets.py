"""Tokens, proxies and addresses with passwords for one container: files that only its user can read.

Everybody can read argv, and whoever may use the engine can read `docker inspect`. The files are mounted: a container
whose root file system is read-only refuses archives ("container rootfs is marked read-only", Docker 20.10).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from containers.container import Container, Mount
from containers.orphans import SECRET_FILE, owner
from containers.ownership import container_owner
from containers.proxies import PROXIES, proxy_variables
from machine.local import Machine, Unreadable

# inside: read by sh before the program starts; read by the hub's library
VARIABLES, TOKEN = Path("/run/secrets/variables"), Path("/run/secrets/hub-token")


def secret_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What a container with a network gets of these variables by file: any of them may hold a password."""
    names = (*proxy_variables(environ), "HF_ENDPOINT")
    return {name: environ[name] for name in names if environ.get(name)}


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if not name.endswith("_TOKEN") and name != "HF_ENDPOINT" and name.lower() not in PROXIES
    }


@contextmanager
def with_secrets(container: Container, machine: Machine) -> Iterator[Container]:
    """The container with its secrets as files, which are removed at the end; only one with a network has any.

    The hub token is the person's file where the container's user can read it, else a copy.
    """
    private = container.private
    if not container.network or private is None:
        yield container
        return
    with ExitStack() as files:
        if container.secrets:
            words = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in container.secrets.items())
            place = files.enter_context(_private_file(container, private, words.encode()))
            container = _with_file(container, place, VARIABLES)._replace(secrets={}, variables=str(VARIABLES))
        token = _hub_token(container, machine)
        if isinstance(token, bytes):
            token = files.enter_context(_private_file(container, private, token))
        if token is not None:
            container = _with_file(container, token, TOKEN)
            container = container._replace(env={**container.env, "HF_TOKEN_PATH": str(TOKEN)})
        yield container


def _hub_token(container: Container, machine: Machine) -> Path | bytes | None:
    """The person's hub token, or its file where the container's user can read it; None where there is none."""
    environ = machine.session().environ
    if value := environ.get("HF_TOKEN"):
        return value.encode()
    home = environ.get("HF_HOME") or f"{environ.get('HOME', '')}/.cache/huggingface"
    own = Path(environ.get("HF_TOKEN_PATH") or f"{home}/token")
    try:
        content = machine.read(str(own))
    except Unreadable:
        return None
    return own if container_owner(container.user, container.engine).uid == os.geteuid() else content


def _with_file(container: Container, place: Path, inside: Path) -> Container:
    return container._replace(mounts=(*container.mounts, Mount(place, inside=inside)))


@contextmanager
def _private_file(container: Container, folder: Path, content: bytes) -> Iterator[Path]:
    """A new file of the container's user, who alone can read it."""
    place = folder / f"{SECRET_FILE}{owner()}-{uuid4().hex[:6]}"
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            if os.geteuid() == 0:
                os.fchown(handle, *container_owner(container.user, container.engine))
        yield place
    finally:
        place.unlink(missing_ok=True)
