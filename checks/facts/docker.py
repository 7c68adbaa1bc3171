"""The container engine: which one, whether it responds, and its own information."""

from __future__ import annotations

from typing import Any

import msgspec

from checks.facts.forms import answer_damage
from checks.facts.gaps import Gaps, exists, names, on_path, raw, target, unfinished
from checks.facts.host import Docker, Frozen, Package
from checks.facts.resources import UNITS
from checks.facts.software import EngineKind
from machine.local import Machine, Outcome

INFO = ("docker", "info", "--format", "{{json .}}")
_CONFIGURATION = {"snap": "/var/snap/docker/current/config/daemon.json"}
_CONFIGURATION_DEFAULT = "/etc/docker/daemon.json"
# programs of rootless engines, in the names of AppArmor's profiles
_USERNS = ("rootlesskit", "podman", "buildah", "crun")
_NO_ANSWER = "no answer"
# Debian's and Docker's package of the engine
_PACKAGES: tuple[EngineKind, ...] = ("docker-ce", "docker.io")
_SNAP = "/snap/bin/docker"
_SERVICES: dict[EngineKind, str] = {
    **dict.fromkeys(_PACKAGES, "docker.service"),
    "snap": "snap.docker.dockerd.service",
    "podman": "podman.service",
}


class _Client(Frozen, frozen=True):
    version: str | None = msgspec.field(name="Version", default=None)
    context: str | None = msgspec.field(name="Context", default=None)


class Info(Frozen, frozen=True):
    """The part of `docker info` that is used; podman's output has none of these keys."""

    server_version: str | None = msgspec.field(name="ServerVersion", default=None)
    operating_system: str | None = msgspec.field(name="OperatingSystem", default=None)
    runtimes: dict[str, Any] | None = msgspec.field(name="Runtimes", default=None)
    cdi_dirs: tuple[str, ...] | None = msgspec.field(name="CDISpecDirs", default=None)
    security: tuple[str, ...] | None = msgspec.field(name="SecurityOptions", default=None)
    cgroup_driver: str | None = msgspec.field(name="CgroupDriver", default=None)
    root_dir: str | None = msgspec.field(name="DockerRootDir", default=None)
    server_errors: tuple[str, ...] | None = msgspec.field(name="ServerErrors", default=None)
    client: _Client | None = msgspec.field(name="ClientInfo", default=None)


def parse_info(stdout: str) -> Info | None:
    """None if it is no JSON object (an old client prints its error there)."""
    line = next((line for line in stdout.splitlines() if line.startswith("{")), "")
    try:
        return msgspec.json.decode(line.encode("utf-8", "replace"), type=Info)
    except (msgspec.MsgspecError, RecursionError):
        return None


def info_damage(stdout: str) -> str | None:
    """Why this cannot be all that the client printed; podman's answer may lack the line end."""
    if (why := answer_damage(stdout, ended=False)) is not None:
        return why
    started = any(line.startswith("{") for line in stdout.splitlines())
    return "damaged: it is not the expected JSON" if started and parse_info(stdout) is None else None


def parse_problem(outcome: Outcome, info: Info | None) -> str | None:
    """None if the engine responded; else not-running, permission-denied, timed-out, or the client's last line."""
    if outcome.problem:
        return outcome.problem
    message = "\n".join((*((info.server_errors if info else None) or ()), outcome.stderr)).strip()
    if info is not None and info.server_version and outcome.rc == 0:
        return None
    low = message.lower()
    if "permission denied" in low:
        return "permission-denied"
    if "cannot connect to the docker daemon" in low or "is the docker daemon running" in low or "no such file" in low:
        return "not-running"
    return message.splitlines()[-1][:300] if message else _NO_ANSWER


def parse_daemon_json(content: bytes) -> str | None:
    """None if dockerd accepts it; else what is wrong. An empty file is valid, as for dockerd."""
    if not content.strip():
        return None
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return f"not JSON: {error}"
    return None if isinstance(value, dict) else "not an object"


def parse_runtimes(content: bytes) -> tuple[str, ...]:
    """Names of the runtimes in a valid daemon.json."""
    found = msgspec.json.decode(content).get("runtimes") if content.strip() else None
    return tuple(sorted(found)) if isinstance(found, dict) else ()


def ask(machine: Machine, patience: float = 4.0) -> Outcome | None:
    """Run `docker info` if an engine can respond: the client waits long for an engine that hangs."""
    return machine.run(INFO, timeout=patience) if on_path(machine, "docker") and reachable(machine) else None


def reachable(machine: Machine) -> bool:
    """Whether an engine's socket may exist: in the usual folders, or as this session's settings name it."""
    environ = machine.session().environ
    runtime, home = environ.get("XDG_RUNTIME_DIR", ""), environ.get("HOME", "")
    places = ["/run/docker.sock", "/run/podman/podman.sock"]
    places += [f"{runtime}/docker.sock"] if runtime.startswith("/") else []
    # a context of the user's own may name any path; Docker Desktop has its socket under the home folder
    places += [f"{home}/.docker/contexts", f"{home}/.docker/desktop/docker.sock"] if home.startswith("/") else []
    return bool(environ.get("DOCKER_HOST") or environ.get("DOCKER_CONTEXT")) or any(exists(machine, p) for p in places)


def read_docker(machine: Machine, gaps: Gaps, answer: Outcome | None, packages: tuple[Package, ...] | None) -> Docker:
    """`answer` is the result of `ask`, `packages` are dpkg's."""
    path = on_path(machine, "docker")
    installed = _installed(machine, packages)
    if path is None:
        podman = on_path(machine, "podman")
        version = next((p.version for p in packages or () if p.name == "podman" and p.state == "installed"), None)
        if podman is None:
            return Docker()
        return Docker(kind="podman", path=podman, version=version, installed=installed, **_rootless(machine, gaps))
    info = parse_info(answer.stdout) if answer is not None else None
    kind = _kind(machine, path, info, packages, gaps)
    # podman has no daemon: the client itself responds
    no_socket = None if kind == "podman" else "not-running"
    problem = parse_problem(answer, info) if answer is not None else no_socket
    path_of_settings = _CONFIGURATION.get(kind, _CONFIGURATION_DEFAULT)
    configuration = raw(machine, path_of_settings, gaps)
    if answer is not None and (why := _damage(answer, info, problem)) is not None:
        gaps.note("docker info", why)
    wrong = parse_daemon_json(configuration) if configuration is not None else None
    answered = info if info is not None and problem is None else Info()
    if wrong is not None:
        gaps.note(path_of_settings, f"damaged: {wrong}")
    return Docker(
        kind=kind,
        path=path,
        version=answered.server_version
        or (info.client.version if info and info.client else None)
        or next((p.version for p in packages or () if p.name == kind and p.state == "installed"), None),
        answers=None if answer is None and problem is None else problem is None,
        problem=problem,
        runtimes=tuple(sorted(answered.runtimes)) if answered.runtimes is not None else None,
        cdi_dirs=answered.cdi_dirs if answered.cdi_dirs is not None else (() if problem is None and info else None),
        rootless="name=rootless" in answered.security if answered.security is not None else None,
        cgroup_driver=answered.cgroup_driver,
        root_dir=answered.root_dir,
        daemon_json_valid=None if configuration is None else wrong is None,
        daemon_json_problem=wrong,
        daemon_json_runtimes=None if configuration is None or wrong else parse_runtimes(configuration),
        installed=installed,
        running=_running(machine, installed, gaps),
        **_rootless(machine, gaps),
    )


def _damage(answer: Outcome, info: Info | None, problem: str | None) -> str | None:
    """Why nothing can be concluded from what the client printed; None where it printed whole facts or an error."""
    if problem == _NO_ANSWER or (info is None and answer.ok):
        return "damaged: it is not the expected JSON"
    return unfinished(answer) or info_damage(answer.stdout)


def _rootless(machine: Machine, gaps: Gaps) -> dict[str, Any]:
    """What a rootless engine needs: its program, and the AppArmor profiles that allow user namespaces."""
    home = machine.session().environ.get("HOME", "")
    kit = on_path(machine, "rootlesskit")
    if kit is None and home.startswith("/") and exists(machine, f"{home}/bin/rootlesskit"):
        kit = f"{home}/bin/rootlesskit"
    held = names(machine, "/etc/apparmor.d", gaps)
    profiles = None if held is None else tuple(n for n in held if any(engine in n for engine in _USERNS))
    return {"rootless_kit": kit, "userns_profiles": profiles}


def parse_answerer(info: Info | None) -> EngineKind | None:
    """The engine that `docker info` comes from, by its folder; None where that may be any package's."""
    if info is None:
        return None
    root = (info.root_dir or "").rstrip("/")
    # the snap may write only below /var/snap
    if root.startswith("/var/snap/docker/"):
        return "snap"
    # where podman's service keeps images (containers-storage.conf)
    if root.endswith("/containers/storage"):
        return "podman"
    context = info.client.context if info.client else None
    return "desktop" if info.operating_system == "Docker Desktop" or context == "desktop-linux" else None


def _installed(machine: Machine, packages: tuple[Package, ...] | None) -> tuple[EngineKind, ...]:
    names_of = {package.name for package in packages or () if package.state == "installed"}
    found: list[EngineKind] = [name for name in (*_PACKAGES, "podman") if name in names_of]
    return (*found, "snap") if exists(machine, _SNAP) else tuple(found)


def _running(machine: Machine, installed: tuple[EngineKind, ...], gaps: Gaps) -> tuple[EngineKind, ...]:
    """Asked only where there are two: which of them have an active service."""
    units = names(machine, UNITS, gaps) if len(installed) > 1 else ()
    return tuple(kind for kind in installed if f"invocation:{_SERVICES.get(kind)}" in (units or ()))


def _kind(
    machine: Machine, path: str, info: Info | None, packages: tuple[Package, ...] | None, gaps: Gaps
) -> EngineKind:
    """Who answers; without an answer, whose command it is."""
    link = target(machine, path, gaps) or ""
    if link.endswith("podman") or any(p.name == "podman-docker" and p.state == "installed" for p in packages or ()):
        return "podman"
    if (answerer := parse_answerer(info)) is not None:
        return answerer
    # Docker Desktop puts its command into WSL
    if "/docker-desktop/" in link:
        return "desktop"
    installed = {package.name for package in packages or () if package.state == "installed"}
    package = next((name for name in _PACKAGES if name in installed), None)
    answered = info is not None and info.root_dir is not None
    of_snap = path.startswith("/snap/") or "/snap/" in link or link.endswith("/snap")
    return "snap" if of_snap and not (answered and package) else package or "other"
