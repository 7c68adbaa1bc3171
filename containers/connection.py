"""The engine's API through docker-py: at which address it answers, and what its errors mean.

Where docker-py cannot do what the engine's own command does (BuildKit, a terminal), that command is used instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from containers.engine import no_answer_problem
from containers.errors import last_error, text_problem
from containers.model import Engine
from machine.errors import OutsideFailed, Problem, Refused
from machine.local import Machine

if TYPE_CHECKING:
    from docker import APIClient

# seconds for one answer of the engine; a container's output and end are waited for without a limit
PATIENCE = 60.0


class _Endpoint(msgspec.Struct, frozen=True):
    host: str = msgspec.field(name="Host", default="")
    unchecked: bool = msgspec.field(name="SkipTLSVerify", default=False)


class _Context(msgspec.Struct, frozen=True):
    """`docker context inspect`: the endpoint of the context that the command uses, and where its certificates are."""

    name: str = msgspec.field(name="Name")
    endpoints: dict[str, _Endpoint] = msgspec.field(name="Endpoints", default_factory=dict)
    storage: dict[str, str] = msgspec.field(name="Storage", default_factory=dict)


def connect(engine: Engine, machine: Machine) -> APIClient:
    """The engine's API, in the newest version that both sides know. Raises Problem where it does not answer."""
    from docker import APIClient
    from docker.errors import DockerException

    address = _podman_address(machine) if engine.program == "podman" else _docker_address(machine)
    if str(address.get("base_url") or "").startswith("ssh://"):
        raise Refused(
            "image.engine-remote",
            "The container engine runs on another machine (ssh).",
            "A container there cannot use this machine's folders and cards.",
            "docker context use default, and unset DOCKER_HOST",
        )
    try:
        return APIClient(version="auto", timeout=PATIENCE, **address)
    except DockerException as error:
        if engine.program == "podman":
            raise _no_podman_socket(machine, error) from error
        raise api_problem(error, "The container engine does not answer") from error


def _docker_address(machine: Machine) -> dict[str, Any]:
    """As the docker command finds it: its context, else DOCKER_HOST and its companions, else the usual socket."""
    from docker.tls import TLSConfig
    from docker.utils import kwargs_from_env

    answer = machine.run(("docker", "context", "inspect", "--format", "{{json .}}"), timeout=10)
    try:
        context = msgspec.json.decode(answer.stdout, type=_Context) if answer.ok else _Context("default")
    except msgspec.MsgspecError:
        context = _Context("default")
    endpoint = context.endpoints.get("docker")
    if context.name == "default" or endpoint is None:
        found: dict[str, Any] = kwargs_from_env(environment=dict(machine.session().environ))
        return found
    keys = Path(context.storage.get("TLSPath") or "/nonexistent") / "docker"
    if not keys.is_dir():
        return {"base_url": endpoint.host}
    pair = (str(keys / "cert.pem"), str(keys / "key.pem")) if (keys / "cert.pem").is_file() else None
    ca = str(keys / "ca.pem") if (keys / "ca.pem").is_file() else None
    return {
        "base_url": endpoint.host.replace("tcp://", "https://"),
        "tls": TLSConfig(client_cert=pair, ca_cert=ca, verify=not endpoint.unchecked),
    }


def _podman_address(machine: Machine) -> dict[str, Any]:
    session = machine.session()
    runtime = session.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{session.uid}"
    socket = f"{runtime}/podman/podman.sock" if session.uid else "/run/podman/podman.sock"
    return {"base_url": session.environ.get("CONTAINER_HOST") or f"unix://{socket}"}


def _no_podman_socket(machine: Machine, error: Exception) -> Refused:
    person = "systemctl --user" if machine.session().uid else "sudo systemctl"
    return Refused(
        "image.podman-socket",
        "podman's API socket does not answer.",
        f"gpu-setup starts containers through it: {last_error(str(error))}",
        f"{person} enable --now podman.socket; then the same command again",
    )


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what docker-py and its HTTP library raise into a Problem. `doing` says what failed, without a dot."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise api_problem(error, doing) from error


def api_problem(error: Exception, doing: str) -> Problem:
    """What the engine's answer, or its missing answer, means."""
    from docker.errors import APIError, ImageNotFound
    from requests.exceptions import Timeout

    if isinstance(error, ImageNotFound):
        return Refused("image.not-built", f"{doing}: the engine has no such image.", "", "gpu-setup image build")
    if isinstance(error, APIError):
        return text_problem(str(error.explanation or error), doing)
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, PermissionError):
            return no_answer_problem("permission-denied")
        if isinstance(below, (FileNotFoundError, ConnectionRefusedError)):
            return no_answer_problem("not-running")
        if isinstance(below, (Timeout, TimeoutError)):
            return no_answer_problem(f"no answer in {PATIENCE:.0f} seconds")
        below = below.__cause__ or below.__context__
    return OutsideFailed(
        "image.engine-lost",
        f"{doing}: the engine broke the connection.",
        last_error(str(error)),
        "Look for its restart (journalctl -u docker), then run the same command again",
    )
