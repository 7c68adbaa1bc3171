"""Containers with access to the GPU: an engine, and the toolkit that gives it the devices."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.facts.kernel import version_key
from checks.rules.container.cdi_schema import FLAG, VARIABLE, engine_in_use, is_refreshed, old_engines, unreadable
from provision.model import AptInstall, PlanPart, Service, State, Step, WriteFile
from provision.plan import repositories
from provision.plan.package_steps import explain, install_step, installed_package, is_older, names, state_of
from provision.target import PlanTarget, PlanVendor

DAEMON_JSON = "/etc/docker/daemon.json"
ROOTLESS_JSON = "~/.config/docker/daemon.json"
NVIDIA_RUNTIME = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}'
RUNTIME = WriteFile(path=DAEMON_JSON, content=NVIDIA_RUNTIME, merge=True)
ROOTLESS_RUNTIME = WriteFile(path=ROOTLESS_JSON, content=NVIDIA_RUNTIME, merge=True)
RELOAD = Service(unit="docker.service", change="reload")
CDI = Service(unit="nvidia-cdi-refresh.path", change="enable")
CDI_REFRESH = "nvidia-cdi-refresh.service"
# a setting of the toolkit's unit, beside the file of its package, so that removing ours restores it
OLDER_CDI = WriteFile(
    path=f"/etc/systemd/system/{CDI_REFRESH}.d/gpu-setup.conf",
    content="# written by gpu-setup: the container engine here cannot read CDI 0.7.0\n"
    f"[Service]\nEnvironment={VARIABLE}={FLAG}\n",
)
REFRESH_CDI = Service(unit=CDI_REFRESH, change="restart")
NVIDIA_KIND = "nvidia"


def plan(host: Host, catalogue: Catalogue, target: PlanTarget, vendor: PlanVendor) -> PlanPart:
    """Steps for the engine and, for NVIDIA, its toolkit; AMD GPUs need only their device nodes."""
    if not target.containers:
        return PlanPart(notes=("No container engine is planned, as requested: training runs in a Python environment.",))
    engine = _engine(host, catalogue)
    steps: tuple[Step, ...] = (engine,)
    notes: list[str] = []
    if vendor is PlanVendor.NVIDIA:
        steps = (*steps, *_nvidia_toolkit(host, catalogue))
    else:
        notes.append(_amd_note(host))
    if host.docker.kind != "podman" and not target.docker_group and "docker" not in (host.person.database_groups or ()):
        notes.append(
            "Membership in the docker group equals root access and is added only on request: use sudo docker, or plan "
            "with --docker-group."
        )
    if (bridges := host.os.virtual_networks) and host.docker.kind not in ("podman", "snap", "desktop"):
        notes.append(
            f"Docker drops packets that this machine forwards, so virtual machines on {' and '.join(bridges)} have no "
            "network while it runs: "
            + "; ".join(f"sudo iptables -I DOCKER-USER -i {bridge} -j ACCEPT" for bridge in bridges)
            + " allows their traffic (add the same rule with -o for the answers)."
        )
    return PlanPart(steps=steps, notes=tuple(notes))


def _package(host: Host) -> str | None:
    """The package of a Docker that is installed, whoever answers."""
    return next((name for name in ("docker-ce", "docker.io") if name in host.docker.installed), None)


def _engine(host: Host, catalogue: Catalogue) -> Step:
    wanted = (*names(catalogue, "container.docker"), *names(catalogue, "container.docker.buildx"))
    kind, version = host.docker.kind, host.docker.version
    called = f"{kind} {version}" if version else kind or ""
    package = _package(host)
    if kind == "snap" and package:
        return Step(
            id="docker",
            title=f"Use {package} instead of the Docker snap",
            action=AptInstall(packages=()),
            state=State.MANUAL,
            because="Two Dockers are installed, and the snap answers. Removing it also removes its images and volumes: "
            f"save them first, then run these commands and plan again for {package}.",
            commands=(("snap", "remove", "docker"), ("systemctl", "restart", "docker.socket", "docker")),
        )
    if kind == "snap":
        step = install_step(host, "docker", "Install docker.io from Ubuntu's archive", wanted, "")
        return repositories.block_steps(
            (step,),
            "The docker snap reads only its own settings and has no access to the GPU. Removing it also removes its "
            "images and volumes, so do it yourself: save them, sudo snap remove docker, then plan again.",
        )[0]
    if kind == "desktop":
        because = (
            "Docker Desktop runs containers in a virtual machine without the GPU; Ubuntu's engine can be installed "
            "besides it."
        )
        return install_step(host, "docker", "Install docker.io besides Docker Desktop", wanted, because)
    if kind == "docker.io" and not installed_package(host, wanted[1]) and host.apt.packages is not None:
        because = (
            f"{called} is installed and kept; it lacks this plugin, which builds of images with cache mounts need."
        )
        return install_step(host, "docker", "Add the builder to docker.io", wanted[1:], because)
    if kind is not None:
        problem = (
            f" It does not answer: {host.docker.problem}."
            if host.docker.answers is False and host.docker.problem
            else ""
        )
        because = f"{called} is installed and kept.{problem}"
        return install_step(host, "docker", f"Container engine {called}", (), because, done=True)
    because = "No container engine was found; Ubuntu's docker.io gets security updates and needs no other repository."
    if any(unread.source.startswith("docker") for unread in host.unread):
        because = "Whether an engine is installed could not be read; Ubuntu's docker.io is planned."
    return install_step(host, "docker", "Install docker.io from Ubuntu's archive", wanted, because)


def _nvidia_toolkit(host: Host, catalogue: Catalogue) -> tuple[Step, ...]:
    toolkit = _toolkit(host, catalogue)
    row = catalogue.repository("nvidia.container-toolkit")
    added: tuple[Step, ...] = ()
    if toolkit.state is not State.DONE or repositories.is_enabled(host, catalogue, row):
        added = repositories.repository_steps(host, catalogue, row, "The toolkit is only in NVIDIA's repository.")
    steps = (*added, toolkit)
    if host.docker.kind != "podman":
        runtime = _runtime(host)
        if host.docker.kind == "snap" and _package(host):
            runtime = repositories.block_steps(runtime, "First the engine must be the one that reads this file.")
        steps = (*steps, *runtime)
    before, after = _older_cdi(host, catalogue)
    return (*before, *steps, _cdi(host), *after)


def _toolkit(host: Host, catalogue: Catalogue) -> Step:
    """The toolkit's packages, new enough and of one version; an installed newer version is kept."""
    wanted, floor = names(catalogue, "container.nvidia"), catalogue.package("container.nvidia").at_least
    because = "It gives containers access to the GPU; Ubuntu's archive does not have it."
    there = {name: found.version for name in wanted if (found := installed_package(host, name))}
    version = there.get(wanted[0]) or host.nvidia.container_toolkit
    title, done = "Install the NVIDIA Container Toolkit", None
    if version is not None and floor is not None and is_older(version, floor):
        title = f"Upgrade the NVIDIA Container Toolkit from {version} to {floor} or newer"
        because = (
            f"{version} is installed; from {floor} on, its systemd unit keeps the GPU's CDI description up to date."
        )
    elif len(set(there.values())) > 1:
        floor = max(there.values(), key=version_key)
        title = f"Upgrade all packages of the NVIDIA Container Toolkit to {floor}"
        because = f"Its packages have different versions: {', '.join(f'{n} {v}' for n, v in there.items())}."
    elif version is not None:
        title, done, because = f"NVIDIA Container Toolkit {version}", True, f"{version} is installed and new enough."
    return install_step(host, "container-toolkit", title, wanted, because, done=done, at_least=floor)


def _runtime(host: Host) -> tuple[Step, ...]:
    """Docker finds the GPU with CDI if `docker info` shows it enabled, else with the runtime in daemon.json."""
    docker = host.docker
    # what the snap answers says nothing of the engine that replaces it
    cdi = bool(docker.cdi_dirs) and docker.kind != "snap"
    known = docker.kind != "snap" and docker.runtimes is not None and NVIDIA_KIND in docker.runtimes
    if docker.rootless and not (known or cdi):
        return (_rootless(),)
    broken = docker.daemon_json_valid is False
    # users outside the group docker may not ask the engine, but everyone can read its settings
    written = docker.runtimes is None and NVIDIA_KIND in (docker.daemon_json_runtimes or ())
    if known or cdi:
        how = "already lists the nvidia runtime" if known else "has CDI enabled and finds the GPU by its CDI name"
        state, because = State.DONE, f"docker info: the engine {how}."
    elif written:
        state = State.DONE
        because = f"{DAEMON_JSON} has the nvidia runtime; the engine does not answer ({docker.problem})."
    elif broken:
        state = State.BLOCKED
        because = (
            f"{DAEMON_JSON} is not valid JSON ({docker.daemon_json_problem or 'no detail'}): Docker would not start "
            "again. Repair it yourself first."
        )
    else:
        state = state_of(host, True)
        unread = " docker info could not be read, so it is planned." if docker.kind and docker.runtimes is None else ""
        because = explain(
            host, f"Docker needs the runtime that gives containers the GPU; other settings are kept.{unread}", state
        )
    write = Step(
        id="docker-runtime",
        title=f"Add the nvidia runtime to {DAEMON_JSON}",
        action=RUNTIME,
        state=state,
        because=because,
        commands=() if state is State.DONE else (("nvidia-ctk", "runtime", "configure", "--runtime=docker"),),
        undo="" if state is State.DONE else f"restores {DAEMON_JSON} if nobody changed it, else shows the difference",
    )
    if state is State.DONE and not written:
        return (write,)
    reload = Step(
        id="docker-reload",
        title="Reload Docker",
        action=RELOAD,
        state=state,
        because="Docker reads new runtimes at a reload, which does not affect running containers.",
        commands=() if state is State.DONE else (("systemctl", "reload", "docker.service"),),
        undo="" if state is State.DONE else "reloads once more after the file is restored",
    )
    return write, reload


def _rootless() -> Step:
    """The settings of a rootless engine are in the person's home, where root writes nothing."""
    return Step(
        id="docker-runtime",
        title="Add the nvidia runtime to your rootless Docker's settings",
        action=ROOTLESS_RUNTIME,
        state=State.MANUAL,
        because="Docker runs rootless here: its settings are in your home, so write them yourself. The second command, "
        "as root, keeps the toolkit from changing cgroups, which a rootless engine may not do.",
        commands=(
            ("nvidia-ctk", "runtime", "configure", "--runtime=docker", f"--config={ROOTLESS_JSON}"),
            ("nvidia-ctk", "config", "--set", "nvidia-container-cli.no-cgroups", "--in-place"),
        ),
        undo=f"nothing: {ROOTLESS_JSON} is yours",
    )


def _cdi(host: Host) -> Step:
    specs = host.nvidia.cdi_specs
    there = any(NVIDIA_KIND in spec for spec in specs or ())
    twice = len({spec.rpartition("/")[0] for spec in specs or () if NVIDIA_KIND in spec}) > 1
    because = "The toolkit's systemd unit writes the CDI specification at each boot and each driver change."
    if there:
        because = f"{', '.join(spec for spec in specs or () if NVIDIA_KIND in spec)} describes the GPU."
    if twice:
        because += " The same kind is described in two folders, which is a conflict: see gpu-setup doctor."
    if specs is None:
        because += " The specifications could not be read."
    state = State.DONE if there else state_of(host, True)
    return Step(
        id="cdi",
        title="Describe the GPU for containers (CDI)",
        action=CDI,
        state=state,
        because=explain(host, because, state),
        commands=() if there else (("systemctl", "enable", "--now", "nvidia-cdi-refresh.path"),),
        undo=""
        if there
        else "disables the unit if it was not enabled before; the specification is removed with the toolkit",
    )


def _older_cdi(host: Host, catalogue: Catalogue) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Steps before and after the toolkit's, where the engine cannot read what it writes: it writes an older version.

    A description in /etc/cdi was written by someone else and is not changed.
    """
    used = engine_in_use(host)
    old = next((engine for engine in old_engines(host, catalogue) if engine.name == used and engine.has_cdi), None)
    in_run = [schema for path, schema in host.nvidia.cdi_schemas or () if is_refreshed(path)]
    refused = any(is_refreshed(path) for _, path, _ in unreadable(host, catalogue, (used,)))
    if old is None or (in_run and not refused):
        return (), ()
    state = state_of(host, True)
    because = (
        f"The toolkit writes CDI {old.reader.schema} from 1.19.1 on. {old.name} {old.version} refuses such a file; it "
        f"reads that version from {old.reader.since} on."
    )
    write = Step(
        id="cdi-version",
        title=f"Let the toolkit write a CDI description that {old.name} {old.version} can read",
        action=OLDER_CDI,
        state=state,
        because=explain(host, because, state),
        commands=(("install", "-D", "--mode=0644", "/dev/stdin", OLDER_CDI.path),),
        undo=f"removes {OLDER_CDI.path}",
    )
    again = Step(
        id="cdi-refresh",
        title="Write the CDI description again",
        action=REFRESH_CDI,
        state=state,
        because=explain(host, f"The description in /run/cdi has a version that {old.name} cannot read.", state),
        commands=(("systemctl", "daemon-reload"), ("systemctl", "restart", CDI_REFRESH)),
        undo="nothing: the unit writes the description at each boot",
    )
    return (write,), ((again,) if refused else ())


def _amd_note(host: Host) -> str:
    nodes = [node for node in (host.amd.kfd, *(host.amd.render or ())) if node is not None and node.group is not None]
    gids = ", ".join(f"{node.group}" for node in {node.group: node for node in nodes}.values())
    if host.docker.kind == "podman" or host.docker.rootless:
        return (
            "Containers of a rootless podman get the GPU with --device /dev/kfd --device /dev/dri --group-add "
            "keep-groups (needs crun; a group's number is not mapped there). Rootless Docker has no such option."
        )
    which = f"--group-add {gids}" if gids else "--group-add GID, the host's render group"
    return (
        f"Containers get the GPU with --device /dev/kfd --device /dev/dri {which} (as a number, because images do not "
        "have this group). AMD's container toolkit is optional and is not planned."
    )
