"""The version of the driver: do module, libraries and the training stack match?"""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, provision, reboot, warning
from checks.rules.installed import NextModule, next_module, nvidia_origins, nvidia_packages, nvidia_version, packages
from checks.rules.other_systems import install_driver
from checks.rules.session import in_container
from checks.rules.wsl import UPDATE_WINDOWS


@check(
    "driver.mismatch",
    "The loaded driver and its libraries have the same version",
    about="An upgrade, often an unattended one, replaces the libraries while the old module is still loaded; then "
    "every call fails with `Driver/library version mismatch`. Compares /sys/module/nvidia/version with the version in "
    "the file name of libnvidia-ml.so.1, and queries NVML.",
    by_hand="Reboot. Without a reboot: stop all programs that use the card, `sudo rmmod nvidia_uvm nvidia_drm "
    "nvidia_modeset nvidia`, then `sudo modprobe nvidia`.",
    needs=(needs.NVIDIA_CARD,),
    causes=("apt.mixed-sources", "driver.dkms", "driver.runfile"),
)
def mismatch(host: Host, catalogue: Catalogue) -> Verdict:
    loaded, library = host.nvidia.module_version, host.nvidia.library_version
    reported = "mismatch" in (host.nvidia.nvml_problem or "").lower()
    if not loaded and not reported:
        return Skip("NVIDIA's module is not loaded.")
    if (loaded and library and loaded != library) or reported:
        return (_two_versions(host, loaded, library),)
    if not library:
        return (
            Ok(f"The loaded driver is {loaded}; NVML responds.")
            if host.nvidia.nvml
            else Unknown(
                "Cannot determine the version of libnvidia-ml.so.1: the library is missing or its link cannot be read."
            )
        )
    return Ok(f"Both have version {loaded}.")


def _two_versions(host: Host, loaded: str | None, library: str | None) -> Finding:
    coming = next_module(host)
    seen: list[tuple[str, object]] = [
        ("/sys/module/nvidia/version", loaded or "not read"),
        ("libnvidia-ml.so.1", library or "not read"),
        ("NVML", host.nvidia.nvml_problem or "not queried"),
    ]
    if coming is not None:
        seen.append((f"module of kernel {coming.kernel}", coming.version or coming.branch or "none"))
    why, fix = _how_to_match(host, loaded, library, coming)
    return error(
        "NVIDIA driver",
        f"NVML reports a version mismatch, although the module and libnvidia-ml.so.1 are both {loaded}."
        if loaded == library
        else f"The loaded driver has version {loaded or '(unknown)'}, its libraries {library or 'another one'}.",
        why,
        seen,
        fix,
    )


def _how_to_match(host: Host, loaded: str | None, library: str | None, coming: NextModule | None) -> tuple[str, Fix]:
    """Why the versions differ and what makes them equal: a reboot only where the module of the next boot fits."""
    if in_container(host):
        return (
            "A container gets the libraries from its host when it starts; the host's driver has changed since then.",
            by_hand("Restart the container; if the versions still differ, reboot its host.", verify=("nvidia-smi",)),
        )
    if host.nvidia.runfile and nvidia_packages(host):
        return (
            "NVIDIA's .run installer and packages have both written the driver, each its own version.",
            command(
                "Remove the .run installer's files, then install the driver's packages again.",
                "/usr/bin/nvidia-uninstall",
                sudo=True,
                reboot=True,
                verify=("nvidia-smi",),
            ),
        )
    if loaded and loaded == library:
        return (
            "Another copy of the library has another version: from a .run installer, a container's or an older path.",
            by_hand(
                "List the copies with `ldconfig -p | grep libnvidia-ml` and remove those of another version.",
                verify=("nvidia-smi",),
            ),
        )
    if coming is not None and not (coming.version or coming.branch):
        return (
            f"The driver was upgraded while the old module was loaded, and kernel {coming.kernel} has no new one.",
            provision("Do not reboot yet: run `gpu-setup apply` to install the module first.", verify=("nvidia-smi",)),
        )
    if coming is None or library is None or coming.fits(library):
        return (
            "The driver was upgraded while the old module was loaded; the two versions do not work together.",
            reboot("Reboot to load the new module.", verify=("nvidia-smi",)),
        )
    others = [row for row in packages(host, "libnvidia-", "nvidia-utils") if row.version.startswith(f"{library}-")]
    mixed = len(nvidia_origins(host)) > 1
    return (
        f"A reboot does not help: on disk the module stays {coming.version or coming.branch}, the libraries {library}. "
        + ("Packages of two sources are mixed." if mixed else "Module and library packages are of two versions."),
        by_hand(
            "Bring module and libraries to one version from one source: see apt.mixed-sources."
            if mixed
            else f"Install module and libraries in one command, or go back to {coming.version or coming.branch}: "
            f"{', '.join(row.name for row in others[:4]) or 'libnvidia-compute'} has {library}.",
            verify=("nvidia-smi",),
        ),
    )


@check(
    "driver.too-old",
    "The driver is new enough for a training stack",
    about="Each CUDA major version needs a minimum driver branch (CUDA 13: 580). Compares the driver's version with "
    "the minimum driver of each stack that has kernels for the card. If it is below all of them, no stack runs; if it "
    "is below the preferred stack's, only an older stack runs.",
    by_hand="Install a newer branch: `sudo ubuntu-drivers list` lists them, `gpu-setup plan` selects one with modules "
    "for your kernels. In WSL: update NVIDIA's driver in Windows.",
    needs=(needs.NVIDIA_GPU,),
    causes=("driver.dkms",),
)
def too_old(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, source = nvidia_version(host)
    if version is None:
        return Skip("No NVIDIA driver is loaded, so there is no version to check.")
    findings = []
    for card in ours:
        floors = [(stack.name, stack.driver_floor) for stack in cards.stacks(card, catalogue) if stack.driver_floor]
        runs = [name for name, floor in floors if cards.numbers(version) >= cards.numbers(floor)]
        if not floors or floors[0][0] in runs:
            continue
        name, floor = floors[0]
        seen = [(source, version), (f"stack {name}", f"needs {floor} or newer")]
        fix = (
            by_hand(UPDATE_WINDOWS + ".")
            if host.wsl is not None
            else install_driver(
                host, catalogue, "Run `gpu-setup apply` to install a driver branch that the stack supports."
            )
        )
        findings.append(
            warning(
                cards.subject(card, catalogue),
                f"Driver {version} is too old for the preferred stack {name}; only {', '.join(runs)} works.",
                "Published images and PyTorch's default builds use the newer CUDA.",
                seen,
                fix,
            )
            if runs
            else error(
                cards.subject(card, catalogue),
                f"Driver {version} is too old: {name} needs {floor}.",
                "CUDA programs fail with `CUDA driver version is insufficient for CUDA runtime version`.",
                seen,
                fix,
            )
        )
    return tuple(findings) or Ok(f"Driver {version} is new enough.")
