"""Rootless container engines: device rules, and user namespaces under AppArmor."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.container.cdi_schema import gpus_by_cdi
from checks.rules.finding import Seen, by_hand, command, info, warning
from checks.rules.session import in_container


@check(
    "container.rootless",
    "Rootless Docker can give containers the card",
    about="Rootless Docker cannot write device rules (cgroups). NVIDIA's old runtime hook then fails with "
    "`bpf_prog_query … operation not permitted`, unless `no-cgroups` is set or CDI is used. AMD's toolkit does not "
    "support rootless engines; passing the device files with the host's groups works.",
    by_hand="Run `sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place` and `nvidia-ctk runtime "
    "configure --runtime=docker --config=$HOME/.config/docker/daemon.json`, or use CDI: `--device nvidia.com/gpu=all`. "
    "AMD: `--device=/dev/kfd --device=/dev/dri --group-add keep-groups` with podman.",
    needs=(needs.GPU, needs.CONTAINER_ENGINE),
)
def rootless(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue)
    if not host.docker.rootless:
        return Ok("Docker does not run rootless.")
    seen: list[tuple[str, object]] = [("docker info", "SecurityOptions: rootless")]
    if any(card.vendor == cards.NVIDIA for card in ours):
        if host.nvidia.no_cgroups or gpus_by_cdi(host):
            return Ok("Rootless, with no-cgroups set, or with CDI for --gpus too.")
        if host.nvidia.cdi_specs:
            return (_only_by_name(host, seen),)
        return (
            warning(
                "docker",
                "Docker runs rootless, and NVIDIA's runtime tries to write device rules.",
                "Containers with the card fail with `bpf_prog_query … operation not permitted`.",
                [*seen, ("/etc/nvidia-container-runtime/config.toml", "no-cgroups is not set")],
                command(
                    "Configure the runtime not to write device rules, or use CDI.",
                    *("nvidia-ctk", "config", "--set", "nvidia-container-cli.no-cgroups", "--in-place"),
                    sudo=True,
                ),
            ),
        )
    return (
        info(
            "docker",
            "Docker runs rootless; AMD's container toolkit does not support that.",
            "The card's device files belong to groups that a rootless container does not have by default.",
            seen,
            by_hand("Use the system's Docker, or podman with --group-add keep-groups; or train in the venv."),
        ),
    )


def _only_by_name(host: Host, seen: list[Seen]) -> Finding:
    """NVIDIA/nvidia-container-toolkit#1487: --gpus takes NVIDIA's hook although a CDI specification exists."""
    return info(
        "docker",
        "Docker runs rootless: `--gpus all` fails; --device nvidia.com/gpu=all gives containers the card.",
        "--gpus uses NVIDIA's hook, which may not write device rules: `bpf_prog_query … operation not permitted`.",
        [*seen, ("CDI file", (host.nvidia.cdi_specs or ("",))[0]), ("docker", host.docker.version)],
        by_hand(
            "Use the CDI name, as gpu-setup does. If no engine runs as root here, `sudo nvidia-ctk config --set "
            "nvidia-container-cli.no-cgroups --in-place` makes --gpus work too."
        ),
    )


@check(
    "container.userns",
    "AppArmor lets the rootless engine create user namespaces",
    about="Ubuntu 24.04 allows user namespaces only for programs with an AppArmor profile. A rootless engine from "
    "another source (in ~/bin, by Docker's install script) has no profile: `operation not permitted` from rootlesskit "
    "or newuidmap. Checked only if such an engine is installed and no engine responds.",
    by_hand="Write a profile for that program: /etc/apparmor.d/home.bin.rootlesskit as Docker's rootless guide shows, "
    "then `sudo systemctl restart apparmor`. Do not turn off kernel.apparmor_restrict_unprivileged_userns: it protects "
    "the rest of the system.",
    needs=(needs.GPU,),
)
def userns(host: Host, catalogue: Catalogue) -> Verdict:
    kit = host.docker.rootless_kit
    if kit is None or in_container(host):
        return Skip("No rootless engine is installed.")
    if host.kernel.userns_restricted is None:
        return Skip("This kernel does not restrict user namespaces by AppArmor.")
    if not host.kernel.userns_restricted or host.docker.answers:
        return Ok(
            "User namespaces are not restricted." if not host.kernel.userns_restricted else "The engine responds."
        )
    if host.docker.userns_profiles is None:
        return Unknown("Cannot determine which AppArmor profiles exist: /etc/apparmor.d cannot be read.")
    own = not kit.startswith(("/usr/bin/", "/bin/"))
    # the distribution's profile is for /usr/bin; a profile for another folder has that folder in its name
    if any("rootlesskit" in name and (not own or name != "rootlesskit") for name in host.docker.userns_profiles):
        return Ok(f"There is a profile for {kit}.")
    return (
        warning(
            kit,
            "AppArmor has no profile for the rootless engine's rootlesskit.",
            "It cannot create user namespaces, so the engine does not start.",
            [
                ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1),
                ("/etc/apparmor.d", ", ".join(host.docker.userns_profiles) or "no profile for rootlesskit"),
            ],
            by_hand("Write a profile for this program: gpu-setup doctor --explain container.userns."),
        ),
    )
