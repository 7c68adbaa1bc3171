"""The container engine: which one, whether it answers, and what it can and cannot do here."""

from __future__ import annotations

import re

from msgspec.structs import replace

from checks.facts.host import Docker, Host
from containers.model import Engine
from machine.errors import OutsideFailed, Refused
from machine.local import Machine

# since 23 the docker command builds with its plugin buildx; before, BuildKit is part of the engine and the command
BUILDX_SINCE = 23
CDI_SINCE = 25


def choose_engine(host: Host, machine: Machine, wanted: str | None = None) -> Engine:
    """The engine to use; raises Refused or OutsideFailed, which say how to get one."""
    docker = host.docker
    if docker.kind is None or (wanted == "podman" and docker.kind != "podman"):
        if wanted in (None, "podman") and (version := _podman(machine)):
            return podman_engine(docker, version, bool(machine.session().uid))
        raise Refused(
            "image.no-engine",
            f"{wanted or 'A container engine'} is not installed on this machine.",
            "Images need an engine to build and run them: Docker, or a rootless engine.",
            "gpu-setup plan shows how to install docker.io; without an engine: --runtime venv",
        )
    if docker.kind == "podman":
        if wanted == "docker":
            raise Refused(
                "image.no-engine",
                "The command docker runs podman here.",
                "The package podman-docker replaces it.",
                "Leave --engine out, or install docker.io",
            )
        return podman_engine(docker, docker.version or _podman(machine) or "", bool(machine.session().uid))
    if docker.answers is False:
        why = f"daemon.json: {docker.daemon_json_problem}" if docker.daemon_json_problem else ""
        raise no_answer_problem(docker.problem or "no answer", why)
    return docker_engine(docker, *_builder(machine), on_windows=host.wsl is not None)


def docker_engine(docker: Docker, client: str | None, buildx: bool, context: str, on_windows: bool = False) -> Engine:
    """What a docker that answers can do. `client` is the command's version, `buildx`: its plugin is installed.

    `on_windows`: this is WSL, where Docker Desktop's virtual machine has the card too.
    """
    old = _major(client or docker.version) < BUILDX_SINCE
    builder: tuple[str, ...] | None = None
    if buildx:
        # the context's builder is the engine's BuildKit: any other would not have this engine's images
        builder = ("docker", "buildx", "build", "--builder", context, "--load")
    elif old:
        builder = ("docker", "build")
    can, cannot = ["run images"], list[str]()
    (can if builder else cannot).append("build them" if builder else "build them: the plugin buildx is missing")
    nvidia = "nvidia" in (docker.runtimes or ())
    desktop = docker.kind == "desktop" and not on_windows
    if docker.kind == "desktop" and on_windows:
        can.append("give containers NVIDIA GPUs with --gpus")
        nvidia = True
    elif desktop:
        cannot.append("give containers GPUs: Docker Desktop is a virtual machine without them")
    elif docker.kind == "snap":
        cannot.append("give containers GPUs: the snap does not read the toolkits' settings")
    else:
        cdi = docker.cdi_dirs or ()
        (can if cdi else cannot).append(
            f"give containers GPUs with CDI ({', '.join(cdi)})" if cdi else f"use CDI (Docker {CDI_SINCE} or newer)"
        )
        (can if nvidia else cannot).append(
            "give containers NVIDIA GPUs with --gpus" + ("" if nvidia else ": no such runtime")
        )
        if docker.rootless:
            cannot.append("give containers /dev/kfd: a rootless engine does not have the group render")
        else:
            can.append("give containers AMD GPUs with their device files")
    return Engine(
        kind=docker.kind or "docker",
        program="docker",
        version=docker.version,
        rootless=bool(docker.rootless),
        cdi=() if desktop else docker.cdi_dirs or (),
        nvidia_runtime=nvidia and not desktop,
        builder=builder,
        root_dir=docker.root_dir,
        can=tuple(can),
        cannot=tuple(cannot),
    )


def podman_engine(docker: Docker, version: str, rootless: bool = True) -> Engine:
    """podman: builds with buildah, gives containers GPUs only with CDI; not tried with a GPU: unverified."""
    return Engine(
        kind="podman",
        program="podman",
        version=version or None,
        rootless=rootless,
        cdi=("/etc/cdi", "/run/cdi"),
        nvidia_runtime=False,
        builder=("podman", "build"),
        can=("run images, if podman.socket is enabled", "build them", "give containers GPUs with CDI (unverified)"),
        cannot=("give containers GPUs without a CDI description", "share its images with docker"),
    )


def host_for_engine(host: Host, engine: Engine) -> Host:
    """The host with the chosen engine: Host.docker describes docker, also where podman was requested besides it."""
    if engine.program != "podman" or host.docker.kind == "podman":
        return host
    mine = replace(
        host.docker, kind="podman", version=engine.version, answers=None, problem=None, runtimes=None, cdi_dirs=None
    )
    return replace(host, docker=mine)


def no_answer_problem(problem: str, why: str = "") -> Refused | OutsideFailed:
    """`problem` as in Host.docker: why the engine does not answer; `why`: what is known besides."""
    if problem == "permission-denied":
        return Refused(
            "image.engine-denied",
            "The container engine refuses this user.",
            "Only root and the group docker may use its socket, and that access equals root access.",
            "Use sudo, or a rootless engine: https://docs.docker.com/engine/security/rootless",
        )
    if problem == "not-running":
        return OutsideFailed(
            "image.engine-not-running",
            "The container engine is not running.",
            why,
            "sudo systemctl start docker; then the same command again",
        )
    return OutsideFailed(
        "image.engine-silent", "The container engine does not answer.", f"{problem}.", "gpu-setup doctor"
    )


def _builder(machine: Machine) -> tuple[str | None, bool, str]:
    client = machine.run(("docker", "version", "--format", "{{.Client.Version}}"), timeout=10)
    version = client.stdout.strip().splitlines()[0] if client.stdout.strip() else None
    buildx = machine.run(("docker", "buildx", "version"), timeout=10)
    if not buildx.ok or "github.com/docker/buildx" not in buildx.stdout:
        return version, False, "default"
    context = machine.run(("docker", "context", "inspect", "--format", "{{.Name}}"), timeout=10)
    return version, True, context.stdout.strip() if context.ok else "default"


def _podman(machine: Machine) -> str | None:
    outcome = machine.run(("podman", "version", "--format", "{{.Client.Version}}"), timeout=10)
    return outcome.stdout.strip() if outcome.ok else None


def _major(version: str | None) -> int:
    head = (version or "").partition(".")[0]
    return int(head) if re.fullmatch(r"[0-9]{1,9}", head) else BUILDX_SINCE


def no_builder_problem(engine: Engine) -> Refused:
    return Refused(
        "image.no-buildkit",
        f"This {engine.kind} cannot build: its plugin buildx is missing.",
        f"Since Docker {BUILDX_SINCE} the command builds with it.",
        "sudo apt-get install docker-buildx",
    )
