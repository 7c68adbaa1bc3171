"""The container engine, and whether the card gets into containers."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, info, provision, unread, warning
from checks.rules.installed import nvidia_driver, packages


@check(
    "container.engine",
    "A container engine answers",
    about="Docker is asked with `docker info`, only where it is installed. No engine is fine: the training "
    "environment can be a venv, and without a card it is. An engine that refuses this user is fine as well (the "
    "group docker is root by another name); one that does not run is a warning.",
    by_hand="`systemctl status docker`, `sudo journalctl -u docker -b`. Use `sudo docker`, or rootless Docker, "
    "instead of joining the group docker on a machine with several users.",
    needs=(needs.CONTAINER_ENGINE, needs.CARD),
    causes=("container.daemon-json",),
)
def engine(host: Host, catalogue: Catalogue) -> Verdict:
    docker = host.docker
    if docker.answers:
        return Ok(f"{docker.kind} {docker.version or ''} answers.")
    if docker.kind == "podman":
        return Ok("podman needs no daemon that answers.")
    if docker.answers is None:
        return Unknown(f"{docker.kind} is installed; whether it answers was not asked.")
    problem = docker.problem or "no answer"
    denied = "denied" in problem.lower() or "permission" in problem.lower()
    return (
        (info if denied else warning)(
            docker.kind or "docker",
            "The engine refuses this user." if denied else f"The container engine does not answer: {problem}.",
            "Images then need sudo; gpu-setup asks for it, or trains in a venv."
            if denied
            else "gpu-setup cannot build or run the training image and uses a venv instead.",
            [("docker info", problem)],
            by_hand("Use sudo for docker commands; joining the group docker gives root away.")
            if denied
            else command("Start it.", "systemctl", "start", "docker", sudo=True, verify=("docker", "info")),
        ),
    )


@check(
    "container.snap",
    "Docker is not the snap",
    about="The snap of Docker keeps its configuration in /var/snap, where neither NVIDIA's nor AMD's toolkit "
    'writes, and its confinement hides devices: `could not select device driver "" with capabilities: [[gpu]]` '
    "although everything is installed.",
    by_hand="Save what you need (its images and volumes are its own), `sudo snap remove docker`, then "
    "`sudo apt-get install docker.io`.",
    needs=(needs.CONTAINER_ENGINE,),
)
def snap(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.kind != "snap":
        return Ok(f"The engine is {host.docker.kind}.")
    if not cards.training(host, catalogue):
        return Skip(cards.none_of(host, catalogue))
    return (
        warning(
            "docker",
            "Docker is installed as a snap.",
            "The card does not reach its containers: the toolkits configure /etc/docker, which the snap does not read.",
            [("docker", host.docker.path or "/snap/bin/docker")],
            command(
                "Save images and volumes, then replace the snap by docker.io.", "snap", "remove", "docker", sudo=True
            ),
        ),
    )


@check(
    "container.desktop",
    "Docker runs on the machine itself",
    about="Docker Desktop runs its engine in a virtual machine that has neither /dev/kfd nor the NVIDIA driver. "
    "Read from the engine's own description.",
    by_hand="`sudo apt-get install docker.io`, then `docker context use default`.",
    needs=(needs.CONTAINER_ENGINE, needs.CARD),
)
def desktop(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.kind != "desktop":
        return Ok(f"The engine is {host.docker.kind}.")
    return (
        warning(
            "docker",
            "Docker Desktop runs containers in a virtual machine without the card.",
            "No option hands the card through to it on Linux.",
            [("docker info", "Docker Desktop")],
            command("Use the system's own engine.", "docker", "context", "use", "default", verify=("docker", "info")),
        ),
    )


@check(
    "container.daemon-json",
    "Docker's configuration file is valid",
    about="A mistake in /etc/docker/daemon.json keeps the Docker daemon from starting, often only at the next "
    "restart. The file is parsed as JSON.",
    by_hand="`python3 -m json.tool /etc/docker/daemon.json` shows the place; mend it, then `sudo systemctl restart "
    "docker`.",
    needs=(needs.CONTAINER_ENGINE, needs.CARD),
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
            [("/etc/docker/daemon.json", host.docker.daemon_json_problem or "does not parse")],
            command(
                "See where, and mend it in an editor.",
                *("python3", "-m", "json.tool", "/etc/docker/daemon.json"),
                sudo=True,
            ),
        ),
    )


@check(
    "container.toolkit",
    "NVIDIA's container toolkit is installed",
    about="Docker and podman hand an NVIDIA card to a container through nvidia-container-toolkit. Without it: "
    '`could not select device driver "" with capabilities: [[gpu]]`. Only judged where an engine and a driver are '
    "installed. AMD needs no toolkit: the device files are enough.",
    by_hand="Add NVIDIA's repository for it (docs.nvidia.com, container toolkit install guide), `sudo apt-get "
    "install nvidia-container-toolkit`, `sudo nvidia-ctk runtime configure --runtime=docker`, `sudo systemctl "
    "reload docker`.",
    needs=(needs.NVIDIA_CARD, needs.CONTAINER_ENGINE),
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
        return unread(host, "Whether the toolkit is installed", ("dpkg",), "Make /var/lib/dpkg/status readable.")
    return (
        warning(
            host.docker.kind or "docker",
            "NVIDIA's container toolkit is not installed.",
            "The engine cannot hand the card to a container; gpu-setup trains in a venv until it can.",
            [("/var/lib/dpkg/status", "no nvidia-container-toolkit"), ("engine", host.docker.kind)],
            provision(
                "The plan adds the toolkit and its repository.",
                verify=("docker", "run", "--rm", "--gpus", "all", "ubuntu:24.04", "nvidia-smi"),
            ),
        ),
    )


@check(
    "container.runtime",
    "The engine knows NVIDIA's toolkit",
    about="Installing the toolkit is not enough: Docker must be told of NVIDIA's runtime, or find a CDI description. "
    'Otherwise `could not select device driver "" with capabilities: [[gpu]]`. podman knows CDI only. Asked of the '
    "engine itself, so a change in daemon.json that was not reloaded counts as missing.",
    by_hand="`sudo nvidia-ctk runtime configure --runtime=docker`, then `sudo systemctl reload docker`; for podman "
    "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
    needs=(needs.NVIDIA_CARD, needs.CONTAINER_ENGINE),
    causes=("container.toolkit", "container.engine", "container.daemon-json"),
)
def runtime(host: Host, catalogue: Catalogue) -> Verdict:
    docker = host.docker
    if docker.kind in ("desktop", "snap"):
        return Skip(f"The engine is {docker.kind}: see container.{docker.kind}.")
    if not (host.nvidia.container_toolkit or packages(host, "nvidia-container-toolkit")):
        return Skip("The toolkit is not installed: see container.toolkit.")
    if docker.kind != "podman" and docker.runtimes is None:
        return Skip("The engine does not answer this user: see container.engine.")
    if "nvidia" in (docker.runtimes or ()):
        return Ok("Docker has the runtime nvidia.")
    if host.nvidia.cdi_specs and (docker.kind == "podman" or docker.cdi_dirs):
        return Ok(f"The engine finds {host.nvidia.cdi_specs[0]}.")
    if host.nvidia.cdi_specs is None:
        return unread(host, "Whether there is a CDI description", ("/cdi",), "Make /etc/cdi and /run/cdi readable.")
    argv = (
        ("nvidia-ctk", "cdi", "generate", "--output=/etc/cdi/nvidia.yaml")
        if docker.kind == "podman"
        else ("nvidia-ctk", "runtime", "configure", "--runtime=docker")
    )
    return (
        warning(
            docker.kind or "docker",
            "NVIDIA's toolkit is installed, but the engine does not know it.",
            "Containers get no card until the engine has the runtime or a CDI description.",
            [
                ("docker info" if docker.runtimes else "engine", ", ".join(docker.runtimes or (docker.kind or "",))),
                ("/etc/cdi, /run/cdi", "no description of the card"),
            ],
            command(
                "Describe the card." if docker.kind == "podman" else "Set it up, then reload Docker.", *argv, sudo=True
            ),
        ),
    )


@check(
    "container.cdi",
    "There is one fresh CDI description of the card",
    about="CDI files in /etc/cdi and /run/cdi tell the engine which files belong to the card. The same kind in "
    "both is a conflict (`unresolvable CDI devices`), and one written for another driver version names libraries "
    "that are gone. The toolkit's service keeps the one in /run/cdi fresh.",
    by_hand="Remove the hand-made one, `sudo rm /etc/cdi/nvidia.yaml`, and write the other anew: "
    "`sudo systemctl restart nvidia-cdi-refresh`, or `sudo nvidia-ctk cdi generate --output=/run/cdi/nvidia.yaml`.",
    needs=(needs.NVIDIA_CARD, needs.CONTAINER_ENGINE),
)
def cdi(host: Host, catalogue: Catalogue) -> Verdict:
    if host.nvidia.cdi_specs is None:
        return unread(host, "Which CDI files there are", ("/cdi",), "Make /etc/cdi and /run/cdi readable.")
    specs = host.nvidia.cdi_specs
    by_hand_made = [path for path in specs if path.startswith("/etc/cdi/")]
    made = [path for path in specs if not path.startswith("/etc/cdi/")]
    findings: list[Finding] = []
    if by_hand_made and made:
        findings.append(
            warning(
                "CDI",
                "The card is described twice, in /etc/cdi and in /run/cdi.",
                "The engine refuses a device that two files describe, or takes the stale one.",
                [("CDI file", path) for path in specs],
                command(
                    "Remove the hand-made file.", "rm", by_hand_made[0], sudo=True, verify=("nvidia-ctk", "cdi", "list")
                ),
            )
        )
    for path, version in host.nvidia.cdi_versions or ():
        driver = host.nvidia.module_version
        if driver and version and version != driver:
            findings.append(
                warning(
                    f"CDI file {path}",
                    f"The description is for driver {version}; {driver} is loaded.",
                    "It names libraries that the upgrade has removed, so containers do not start.",
                    [(path, version), ("/sys/module/nvidia/version", driver)],
                    command(
                        "Write it anew.",
                        *("nvidia-ctk", "cdi", "generate", f"--output={path}"),
                        sudo=True,
                        verify=("nvidia-ctk", "cdi", "list"),
                    ),
                )
            )
    if findings:
        return tuple(findings)
    return Ok(f"One description: {specs[0]}." if specs else "No CDI description; the engine uses NVIDIA's runtime.")


@check(
    "container.cgroup-driver",
    "Running containers keep their card",
    about="With Docker's systemd cgroup driver and NVIDIA's old runtime hook, every `systemctl daemon-reload` "
    "takes the card from running containers: `Failed to initialize NVML: Unknown Error` after some hours. With "
    "CDI, which the toolkit writes from 1.18 on, the engine knows the devices and they stay.",
    by_hand="Install nvidia-container-toolkit 1.18 or newer and use CDI (`--device nvidia.com/gpu=all`), or name "
    "the nodes with `--device`.",
    needs=(needs.NVIDIA_CARD,),
)
def cgroup_driver(host: Host, catalogue: Catalogue) -> Verdict:
    if host.docker.cgroup_driver is None or "nvidia" not in (host.docker.runtimes or ()):
        return Skip("NVIDIA's runtime is not set up in Docker.")
    if host.docker.cgroup_driver != "systemd" or host.nvidia.cdi_specs:
        return Ok(f"Cgroup driver {host.docker.cgroup_driver}" + (", with CDI." if host.nvidia.cdi_specs else "."))
    return (
        info(
            "docker",
            "A running container can lose its card at the next `systemctl daemon-reload`.",
            "systemd then writes the container's device rules anew and does not know what the runtime hook added.",
            [("docker info", "Cgroup Driver: systemd"), ("/run/cdi", "no description of the card")],
            command(
                "Describe the card for CDI and use --device nvidia.com/gpu=all.",
                *("nvidia-ctk", "cdi", "generate", "--output=/run/cdi/nvidia.yaml"),
                sudo=True,
                verify=("nvidia-ctk", "cdi", "list"),
            ),
        ),
    )
