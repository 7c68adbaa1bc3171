"""The container engine, and whether containers can use the card."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Docker, Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.container.cdi_schema import (
    FLAG,
    VARIABLE,
    OldEngine,
    engine_in_use,
    generate,
    gpus_by_cdi,
    is_refreshed,
    lacks_cdi,
    unreadable,
)
from checks.rules.finding import Seen, by_hand, cannot_determine, command, error, info, provision, warning
from checks.rules.installed import nvidia_driver, packages
from checks.rules.other_systems import plan_supports

# the first release whose --gpus gives NVIDIA cards (podman's release notes, podman-container-tools/podman#21156)
_PODMAN_WITH_GPUS = (5,)


@check(
    "container.engine",
    "The container engine responds",
    about="Runs `docker info` if Docker is installed. No engine is no problem: the training environment can be a venv, "
    "and without a card it always is. An engine that refuses this user is no problem either (membership in the docker "
    "group equals root access); an engine that is not running is a warning.",
    by_hand="Run `systemctl status docker` and `sudo journalctl -u docker -b`. Use `sudo docker`, or rootless Docker, "
    "instead of joining the group docker on a machine with several users.",
    needs=(needs.CONTAINER_ENGINE, needs.GPU),
    causes=("container.daemon-json",),
)
def engine(host: Host, catalogue: Catalogue) -> Verdict:
    docker = host.docker
    if docker.answers:
        return Ok(f"{docker.kind} {docker.version or ''} responds.")
    if docker.kind == "podman":
        named = (docker.path or "").endswith("/docker") or bool(packages(host, "podman-docker"))
        nvidia = cards.training(host, catalogue, cards.NVIDIA)
        if named and nvidia and () < cards.numbers(docker.version)[:1] < _PODMAN_WITH_GPUS:
            return (_gpus_ignored(docker),)
        return Ok("podman needs no daemon.")
    if docker.answers is None:
        return Unknown(f"{docker.kind} is installed; whether it responds was not checked.")
    problem = docker.problem or "no response"
    denied = "denied" in problem.lower() or "permission" in problem.lower()
    return (
        (info if denied else warning)(
            docker.kind or "docker",
            "The engine refuses this user." if denied else f"The container engine does not respond: {problem}.",
            "Images then need sudo; gpu-setup asks before it uses sudo, or trains in a venv."
            if denied
            else "gpu-setup cannot build or run the training image and uses a venv instead.",
            [("docker info", problem)],
            by_hand("Use sudo for docker commands; membership in the docker group equals root access.")
            if denied
            else command(
                "Start Docker.",
                *(("snap", "start", "docker") if docker.kind == "snap" else ("systemctl", "start", "docker")),
                sudo=True,
                verify=("docker", "info"),
            ),
        ),
    )


def _gpus_ignored(docker: Docker) -> Finding:
    return info(
        "podman-docker",
        f"`docker` is podman {docker.version} here: it ignores --gpus; use --device nvidia.com/gpu=all.",
        "podman-docker replaces the command. Before 5.0 podman accepts --gpus and does nothing: programs find no card.",
        [("podman-docker", docker.path or "installed"), ("podman", docker.version)],
        by_hand("Start containers with `--device nvidia.com/gpu=all`, or install podman 5.0 or newer."),
    )


@check(
    "container.snap",
    "Docker is not installed as a snap",
    about="Docker's snap has its configuration in /var/snap, where neither NVIDIA's nor AMD's toolkit "
    'writes, and its confinement hides devices: `could not select device driver "" with capabilities: [[gpu]]` '
    "although everything is installed. If another Docker is installed too, both want /run/docker.sock; `docker info` "
    "shows which one answers (its folder, DockerRootDir).",
    by_hand="Save what you need (the snap has its own images and volumes), then run `sudo snap remove docker`, then "
    "`sudo apt-get install docker.io`; if another Docker is installed: `sudo systemctl restart docker.socket docker`.",
    needs=(needs.CONTAINER_ENGINE,),
)
def snap(host: Host, catalogue: Catalogue) -> Verdict:
    docker = host.docker
    if docker.kind == "desktop":
        return Skip("Docker Desktop answers: see container.desktop.")
    others = [kind for kind in docker.installed if kind not in ("snap", "podman")]
    both = "snap" in docker.installed and bool(others)
    if docker.kind != "snap" and not both:
        return Ok(f"The engine is {docker.kind}.")
    if not cards.training(host, catalogue):
        return Skip(cards.none_of(host, catalogue))
    seen: list[Seen] = [("docker info", f"DockerRootDir {docker.root_dir}")] if docker.root_dir else []
    seen += [("docker", docker.path or "/snap/bin/docker"), *(("/var/lib/dpkg/status", kind) for kind in others)]
    seen += [("running", ", ".join(docker.running))] if docker.running else []
    if both:
        return (_two_dockers(docker, others[0], seen),)
    return (
        warning(
            "docker",
            "Docker is installed as a snap.",
            "What NVIDIA's and AMD's toolkits write to /etc/docker does not reach it, so `--gpus all` finds no card. "
            "Its own runtime (`--runtime=nvidia`), if it has one, is not what gpu-setup uses.",
            seen,
            command(
                "Save images and volumes, then replace the snap with docker.io.", "snap", "remove", "docker", sudo=True
            ),
        ),
    )


def _two_dockers(docker: Docker, other: str, seen: list[Seen]) -> Finding:
    """The snap beside another Docker: which of them answers, and how to leave the snap."""
    who = None if docker.root_dir is None else "the snap" if docker.kind == "snap" else other
    answers = f"and {who} answers" if who else "and which one answers could not be read"
    if who == other and "snap" not in docker.running:
        return info(
            "docker",
            f"Two Dockers are installed, {other} and a snap, {answers}.",
            "The snap can take over /run/docker.sock if it is started.",
            seen,
            command("If you do not need it: remove the snap.", "snap", "remove", "docker", sudo=True),
        )
    return warning(
        "docker",
        f"Two Dockers are installed, {other} and a snap, {answers}.",
        f"Both use /run/docker.sock. What the toolkits write to /etc/docker is read only by {other}, and each has its "
        "own images and volumes.",
        seen,
        command(
            "Save the snap's images and volumes (docker save, docker cp), then remove the snap; then `sudo systemctl "
            f"restart docker.socket docker` starts {other}.",
            *("snap", "remove", "docker"),
            sudo=True,
            verify=("docker", "info", "--format", "{{.DockerRootDir}}"),
        ),
    )


@check(
    "container.desktop",
    "Docker runs on the machine, not in Docker Desktop's VM",
    about="On Linux, Docker Desktop runs its engine in a virtual machine that has neither /dev/kfd nor the NVIDIA "
    "driver. (In WSL it gives containers the NVIDIA card with `--gpus all`.) Read from `docker info`.",
    by_hand="`sudo apt-get install docker.io`, then `docker context use default`.",
    needs=(needs.CONTAINER_ENGINE, needs.GPU),
)
def desktop(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.kind != "desktop":
        return Ok(f"The engine is {host.docker.kind}.")
    if host.wsl is not None:
        return Ok("Docker Desktop on Windows gives containers in WSL the NVIDIA card with --gpus all.")
    own = [kind for kind in host.docker.installed if kind in ("docker-ce", "docker.io")]
    return (
        warning(
            "docker",
            "Docker Desktop runs containers in a virtual machine without the card.",
            "On Linux no option passes the card through to it.",
            [("docker info", "Docker Desktop"), *(("/var/lib/dpkg/status", kind) for kind in own)],
            command(
                f"Use the system's {own[0]}." if own else "Install docker.io (gpu-setup plan), then use it.",
                *("docker", "context", "use", "default"),
                verify=("docker", "info"),
            ),
        ),
    )


@check(
    "container.daemon-json",
    "Docker's configuration file is valid",
    about="With an error in /etc/docker/daemon.json the Docker daemon does not start; often this shows only at the "
    "next reboot. The file is parsed as JSON.",
    by_hand="`python3 -m json.tool /etc/docker/daemon.json` shows the position; fix it, then run `sudo systemctl "
    "restart docker`.",
    needs=(needs.CONTAINER_ENGINE, needs.GPU),
)
def daemon_json(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.daemon_json_valid is None:
        return (
            Ok("There is no /etc/docker/daemon.json.")
            if not host.docker.daemon_json_problem
            else Unknown(f"/etc/docker/daemon.json could not be read: {host.docker.daemon_json_problem}.")
        )
    if host.docker.daemon_json_valid:
        return Ok("/etc/docker/daemon.json is valid.")
    return (
        error(
            "/etc/docker/daemon.json",
            "/etc/docker/daemon.json is not valid JSON.",
            "The Docker daemon does not start with it.",
            [("/etc/docker/daemon.json", host.docker.daemon_json_problem or "not valid JSON")],
            command(
                "Show the position of the error, then fix it in an editor.",
                *("python3", "-m", "json.tool", "/etc/docker/daemon.json"),
                sudo=True,
            ),
        ),
    )


@check(
    "container.toolkit",
    "NVIDIA's container toolkit is installed",
    about="Docker and podman give a container an NVIDIA card through nvidia-container-toolkit. Without it: "
    '`could not select device driver "" with capabilities: [[gpu]]`. Checked only if an engine and a driver are '
    "installed. AMD needs no toolkit: the device files are enough.",
    by_hand="Add NVIDIA's repository (docs.nvidia.com, container toolkit install guide), then run `sudo apt-get "
    "install nvidia-container-toolkit`, `sudo nvidia-ctk runtime configure --runtime=docker`, `sudo systemctl reload "
    "docker`.",
    needs=(needs.NVIDIA_GPU, needs.CONTAINER_ENGINE),
)
def toolkit(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.kind == "desktop":
        return Skip("Docker Desktop: see container.desktop.")
    if nvidia_driver(host) is False:
        return Skip("No NVIDIA driver is installed yet: see driver.present.")
    version = host.nvidia.container_toolkit
    found = packages(host, "nvidia-container-toolkit")
    if version or found:
        return Ok(f"nvidia-container-toolkit {version or found[0].version} is installed.")
    if host.apt.packages is None:
        return cannot_determine(
            host, "whether the toolkit is installed", ("dpkg",), "Make /var/lib/dpkg/status readable."
        )
    return (
        warning(
            host.docker.kind or "docker",
            "NVIDIA's container toolkit is not installed.",
            "The engine cannot give a container the card; until then gpu-setup trains in a venv.",
            [("/var/lib/dpkg/status", "no nvidia-container-toolkit"), ("engine", host.docker.kind)],
            provision(
                "Run `gpu-setup apply` to install the toolkit from NVIDIA's repository.",
                verify=("docker", "run", "--rm", "--gpus", "all", "ubuntu:24.04", "nvidia-smi"),
            ),
        ),
    )


@check(
    "container.runtime",
    "The engine is configured for NVIDIA's toolkit",
    about="Installing the toolkit is not enough: Docker must be configured with NVIDIA's runtime, or find a CDI "
    "specification. "
    'Otherwise `could not select device driver "" with capabilities: [[gpu]]`. podman supports only CDI. Read '
    "from the running engine, so a change in daemon.json that was not reloaded does not count.",
    by_hand="Run `sudo nvidia-ctk runtime configure --runtime=docker`, then `sudo systemctl reload docker`; for podman "
    "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, and with SELinux (Fedora, RHEL) `sudo setsebool -P "
    "container_use_devices on`.",
    needs=(needs.NVIDIA_GPU, needs.CONTAINER_ENGINE),
    causes=("container.toolkit", "container.engine", "container.daemon-json"),
)
def runtime(host: Host, catalogue: Catalogue) -> Verdict:
    docker = host.docker
    if docker.kind in ("desktop", "snap"):
        return Skip(f"The engine is {docker.kind}: see container.{docker.kind}.")
    if not (host.nvidia.container_toolkit or packages(host, "nvidia-container-toolkit")):
        return Skip("The toolkit is not installed: see container.toolkit.")
    if docker.kind != "podman" and docker.runtimes is None:
        return Skip("The engine does not respond to this user: see container.engine.")
    if "nvidia" in (docker.runtimes or ()):
        return Ok("Docker has the nvidia runtime.")
    if lacks_cdi(host, catalogue) or unreadable(host, catalogue, (engine_in_use(host),)):
        return Skip("The engine cannot read the CDI specification: see container.cdi.")
    if host.nvidia.cdi_specs and (docker.kind == "podman" or docker.cdi_dirs):
        return Ok(f"The engine uses {host.nvidia.cdi_specs[0]}.")
    if host.nvidia.cdi_specs is None:
        return cannot_determine(
            host, "whether there is a CDI specification", ("/cdi",), "Make /etc/cdi and /run/cdi readable."
        )
    argv = (
        generate(host, catalogue, "/etc/cdi/nvidia.yaml")
        if docker.kind == "podman"
        else ("nvidia-ctk", "runtime", "configure", "--runtime=docker")
    )
    return (
        warning(
            docker.kind or "docker",
            "NVIDIA's toolkit is installed, but the running engine does not use it.",
            "Containers get no card until the engine has the runtime or a CDI specification.",
            [
                ("docker info" if docker.runtimes else "engine", ", ".join(docker.runtimes or (docker.kind or "",))),
                ("/etc/cdi, /run/cdi", "no CDI specification"),
            ],
            command(
                "Write a CDI specification."
                if docker.kind == "podman"
                else "Configure it, then reload Docker: `sudo systemctl reload docker`. If it was configured before, "
                "the reload alone is enough.",
                *argv,
                sudo=True,
            ),
        ),
    )


@check(
    "container.cdi",
    "There is one up-to-date CDI specification of the card",
    about="CDI specifications in /etc/cdi and /run/cdi list the files that belong to the card. Two specifications of "
    "the same kind conflict (`unresolvable CDI devices`), and one for another driver version lists libraries that no "
    "longer exist. An engine older than the specification's cdiVersion refuses the whole file (`unknown field "
    '"additionalGids"`): NVIDIA\'s toolkit writes 0.7.0 from 1.19.1 on, which podman reads from 5.1 and Docker from '
    "26.1 on. The toolkit's service keeps the one in /run/cdi up to date.",
    by_hand="Remove the one in /etc/cdi, `sudo rm /etc/cdi/nvidia.yaml`, and write the other again: `sudo systemctl "
    "restart nvidia-cdi-refresh`, or `sudo nvidia-ctk cdi generate --output=/run/cdi/nvidia.yaml`. For an older engine "
    "add `--feature-flag=no-additional-gids-for-device-nodes`, or the line NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS="
    "no-additional-gids-for-device-nodes in /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env.",
    needs=(needs.NVIDIA_GPU, needs.CONTAINER_ENGINE),
)
def cdi(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.cdi_specs is None:
        return cannot_determine(
            host, "which CDI specifications exist", ("/cdi",), "Make /etc/cdi and /run/cdi readable."
        )
    specs = host.nvidia.cdi_specs
    in_etc = [path for path in specs if path.startswith("/etc/cdi/")]
    in_run = [path for path in specs if not path.startswith("/etc/cdi/")]
    old = lacks_cdi(host, catalogue)
    findings = [_without_cdi(old)] if old else []
    findings += [_unreadable(host, catalogue, *row) for row in unreadable(host, catalogue) if row[0].has_cdi]
    if in_etc and in_run:
        findings.append(
            warning(
                "CDI",
                "There are two CDI specifications of the card, in /etc/cdi and in /run/cdi.",
                "The engine refuses a device that is in two files, or uses the stale one.",
                [("CDI file", path) for path in specs],
                command(
                    "Remove the file in /etc/cdi.", "rm", in_etc[0], sudo=True, verify=("nvidia-ctk", "cdi", "list")
                ),
            )
        )
    for path, version in host.nvidia.cdi_versions or ():
        driver = host.nvidia.module_version
        if driver and version and version != driver:
            findings.append(
                warning(
                    f"CDI file {path}",
                    f"The CDI specification is for driver {version}; {driver} is loaded.",
                    "It lists libraries that the upgrade has removed, so containers do not start.",
                    [(path, version), ("/sys/module/nvidia/version", driver)],
                    command(
                        "Write it again.",
                        *generate(host, catalogue, path),
                        sudo=True,
                        verify=("nvidia-ctk", "cdi", "list"),
                    ),
                )
            )
    # where the driver does not answer, its missing device files are no fault of the description
    missing = dict(host.nvidia.cdi_missing or ()) if host.nvidia.nvml else {}
    findings += [_missing_node(host, catalogue, path, node) for path, node in missing.items()]
    if findings:
        return tuple(findings)
    return Ok(
        f"One CDI specification: {specs[0]}." if specs else "No CDI specification; the engine uses NVIDIA's runtime."
    )


def _without_cdi(engine: OldEngine) -> Finding:
    newer = f"Install {engine.name} {engine.reader.since} or newer"
    return warning(
        engine.name,
        f"{engine.name} {engine.version} is older than CDI, its only way to give containers an NVIDIA card.",
        f"It takes nvidia.com/gpu=all for a file: `stat nvidia.com/gpu=all: no such file or directory`. {engine.name} "
        f"has CDI from {engine.reader.since} on.",
        [(engine.name, engine.version)],
        by_hand(f"{newer} (a newer release of the system has it), or use Docker."),
    )


def _missing_node(host: Host, catalogue: Catalogue, path: str, node: str) -> Finding:
    return warning(
        f"CDI file {path}",
        f"The CDI specification names {node}, which does not exist.",
        "A card was removed, or the device files have other numbers since: containers do not start (`failed to stat "
        "CDI host device`).",
        [(path, node), (node, "missing")],
        command(
            "Write it again.",
            *generate(host, catalogue, path),
            sudo=True,
            verify=("nvidia-ctk", "cdi", "list"),
        ),
    )


def _unreadable(host: Host, catalogue: Catalogue, engine: OldEngine, path: str, schema: str) -> Finding:
    toolkit = host.nvidia.container_toolkit or "version not known"
    newer = f"Or install {engine.name} {engine.reader.since} or newer"
    newer += ", or use Docker." if engine.name == "podman" else "."
    verify = ("grep", "cdiVersion", path)
    if is_refreshed(path) and engine.name == engine_in_use(host) and plan_supports(host, catalogue):
        fix = provision(
            f"Run `gpu-setup apply`: NVIDIA's toolkit then writes a version that {engine.name} reads. {newer}",
            verify=verify,
        )
    else:
        again = "its next refresh" if is_refreshed(path) else "each driver update"
        fix = command(
            f"Write it in an older version (toolkit 1.19.1 or newer), and again after {again}, or add "
            f"{VARIABLE}={FLAG} to /etc/nvidia-container-toolkit/nvidia-cdi-refresh.env. {newer}",
            *("nvidia-ctk", "cdi", "generate", f"--feature-flag={FLAG}", f"--output={path}"),
            sudo=True,
            verify=verify,
        )
    # NVIDIA's runtime in Docker gives containers the card without this file
    return (info if "nvidia" in (host.docker.runtimes or ()) else warning)(
        f"CDI file {path}",
        f"{engine.name} {engine.version} cannot read the CDI specification: it has version {schema}.",
        f"{engine.name} reads {engine.reader.schema} only from {engine.reader.since} on and refuses the whole file: "
        "`unresolvable CDI devices`, although the file exists.",
        [(path, f"cdiVersion {schema}"), (engine.name, engine.version), ("nvidia-container-toolkit", toolkit)],
        fix,
    )


@check(
    "container.cgroup-driver",
    "Running containers keep access to the card",
    about="With Docker's systemd cgroup driver and NVIDIA's old runtime hook, running containers lose the card at "
    "every `systemctl daemon-reload`: `Failed to initialize NVML: Unknown Error` after some hours. With CDI, which the "
    "toolkit uses from 1.18 on, the engine manages the devices and containers keep them. With `no-cgroups = true` in "
    "the toolkit's config.toml, which only a rootless engine needs, containers of a root engine never get the card: "
    "the same message, or in WSL `GPU access blocked by the operating system`.",
    by_hand="Install nvidia-container-toolkit 1.18 or newer and use CDI (`--device nvidia.com/gpu=all`), or pass the "
    "device files with `--device`.",
    needs=(needs.NVIDIA_GPU,),
)
def cgroup_driver(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.cgroup_driver is None or "nvidia" not in (host.docker.runtimes or ()):
        return Skip("NVIDIA's runtime is not set up in Docker.")
    if host.nvidia.no_cgroups and host.docker.rootless is False and not gpus_by_cdi(host):
        return (_no_device_rules(host),)
    if host.docker.cgroup_driver != "systemd" or host.nvidia.cdi_specs:
        return Ok(f"Cgroup driver {host.docker.cgroup_driver}" + (", with CDI." if host.nvidia.cdi_specs else "."))
    return (
        info(
            "docker",
            "A running container can lose its card at the next `systemctl daemon-reload`.",
            "systemd then rewrites the container's device rules without the devices that the runtime hook added.",
            [("docker info", "Cgroup Driver: systemd"), ("/run/cdi", "no CDI specification")],
            command(
                "Write a CDI specification and use --device nvidia.com/gpu=all.",
                *generate(host, catalogue, "/run/cdi/nvidia.yaml"),
                sudo=True,
                verify=("nvidia-ctk", "cdi", "list"),
            ),
        ),
    )


def _no_device_rules(host: Host) -> Finding:
    """NVIDIA/nvidia-container-toolkit#381, in WSL #85."""
    return warning(
        "docker",
        "NVIDIA's toolkit is configured for a rootless engine (no-cgroups), but Docker runs as root.",
        "Containers see the card's device files and may not open them: `Failed to initialize NVML: Unknown Error`.",
        [("/etc/nvidia-container-runtime/config.toml", "no-cgroups = true"), ("docker info", "not rootless")],
        command(
            "Let the toolkit write device rules again.",
            *("nvidia-ctk", "config", "--set", "nvidia-container-cli.no-cgroups=false", "--in-place"),
            sudo=True,
            verify=("docker", "run", "--rm", "--gpus", "all", "ubuntu:24.04", "nvidia-smi"),
        ),
    )
