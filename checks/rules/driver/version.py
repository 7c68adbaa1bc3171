"""The driver's version and kind: do they fit each other, the card and the training stack?"""

from __future__ import annotations

from checks.catalogue import Branch, Catalogue
from checks.facts.host import Host
from checks.model import Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import error, provision, reboot, warning
from checks.rules.installed import nvidia_packages, nvidia_version

_DPKG = "/var/lib/dpkg/status"


@check(
    "driver.mismatch",
    "The loaded driver and its libraries are of one version",
    about="An upgrade, often an unattended one, replaces the libraries while the old module stays loaded; then "
    "every call ends with `Driver/library version mismatch`. Compares /sys/module/nvidia/version with the version "
    "in the name of libnvidia-ml.so.1's file, and asks NVML.",
    by_hand="Restart. Without a restart: end everything that uses the card, `sudo rmmod nvidia_uvm nvidia_drm "
    "nvidia_modeset nvidia`, then `sudo modprobe nvidia`.",
    needs=(needs.NVIDIA_CARD,),
)
def mismatch(host: Host, catalogue: Catalogue) -> Verdict:
    loaded, library = host.nvidia.module_version, host.nvidia.library_version
    said = "mismatch" in (host.nvidia.nvml_problem or "").lower()
    if not loaded and not said:
        return Skip("NVIDIA's module is not loaded.")
    if (loaded and library and loaded != library) or said:
        return (
            error(
                "NVIDIA driver",
                f"The loaded driver is {loaded or 'of another version'}, its libraries are {library or 'newer'}.",
                "The driver was upgraded while the old module stayed in the kernel; they refuse to talk to each other.",
                [
                    ("/sys/module/nvidia/version", loaded or "not read"),
                    ("libnvidia-ml.so.1", library or "not read"),
                    ("NVML", host.nvidia.nvml_problem or "not asked"),
                ],
                reboot("Restart: the new module is loaded at boot.", verify=("nvidia-smi",)),
            ),
        )
    if not library:
        return (
            Ok(f"The loaded driver is {loaded}; NVML answers.")
            if host.nvidia.nvml
            else Unknown(
                "The version of libnvidia-ml.so.1 is not known: the library is missing or its link cannot be read."
            )
        )
    return Ok(f"Both are {loaded}.")


@check(
    "driver.too-old",
    "The driver is new enough for a training stack",
    about="Each CUDA family needs a driver branch (CUDA 13: 580). The driver's version is compared, number by "
    "number, with the floors of the stacks that have kernels for the card. Below all of them nothing runs; below "
    "the preferred one only an older stack does.",
    by_hand="Install a newer branch: `sudo ubuntu-drivers list` shows them, `gpu-setup plan` picks one with "
    "modules for your kernels.",
    needs=(needs.NVIDIA_CARD,),
)
def too_old(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, source = nvidia_version(host)
    if version is None:
        return Skip("No NVIDIA driver is loaded, so there is no version to judge.")
    findings = []
    for card in ours:
        floors = [(stack.name, stack.driver_floor) for stack in cards.stacks(card, catalogue) if stack.driver_floor]
        runs = [name for name, floor in floors if cards.numbers(version) >= cards.numbers(floor)]
        if not floors or floors[0][0] in runs:
            continue
        name, floor = floors[0]
        seen = [(source, version), (f"stack {name}", f"needs {floor} or newer")]
        fix = provision("The plan moves to a driver branch that the stack runs on.", reboot=True)
        findings.append(
            warning(
                cards.subject(card, catalogue),
                f"Driver {version} is too old for the preferred stack {name}; only {', '.join(runs)} runs.",
                "Published images and PyTorch's default builds use the newer CUDA.",
                seen,
                fix,
            )
            if runs
            else error(
                cards.subject(card, catalogue),
                f"Driver {version} is too old: {name} needs {floor}.",
                "CUDA programs end with `CUDA driver version is insufficient for CUDA runtime version`.",
                seen,
                fix,
            )
        )
    return tuple(findings) or Ok(f"Driver {version} is new enough.")


def _branch(version: str, catalogue: Catalogue) -> Branch | None:
    """The row of the version's branch, or of the nearest older one."""
    number = (cards.numbers(version) or (0,))[0]
    older = [row for row in catalogue.branches if row.number <= number]
    return max(older, key=lambda row: row.number, default=None)


@check(
    "driver.flavour",
    "The kernel module is of the kind that the card needs",
    about="NVIDIA's kernel module comes open and proprietary. Blackwell cards (RTX 50) start only with the open "
    "one, cards before Turing only with the proprietary one; the wrong kind ends in `RmInitAdapter failed` and `No "
    "devices were found`. Read from /proc/driver/nvidia/version, else from the package names.",
    by_hand="Install the other flavour of the same branch, e.g. `nvidia-driver-580-open` for `nvidia-driver-580`, "
    "with its modules, in one apt command; then restart.",
    needs=(needs.NVIDIA_CARD,),
)
def flavour(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, _ = nvidia_version(host)
    row = _branch(version, catalogue) if version else None
    if row is None:
        return Skip("No NVIDIA driver is loaded, so there is no module to judge.")
    is_open, source = host.nvidia.open_module, "/proc/driver/nvidia/version"
    if is_open is None:
        names = [package.name for package in nvidia_packages(host)]
        if not names:
            return Unknown("Whether the module is open or proprietary is not known: it is not loaded.")
        is_open, source = any("-open" in name for name in names), _DPKG
    there = "open" if is_open else "proprietary"
    findings = []
    for card in ours:
        known = cards.known(card, catalogue)
        needed = known and (
            "open"
            if known.generation in row.open_only
            else "proprietary"
            if known.generation in row.proprietary_only
            else ""
        )
        if known and needed and needed != there:
            findings.append(
                error(
                    cards.subject(card, catalogue),
                    f"The card needs the {needed} kernel module; the {there} one is there.",
                    f"Cards of the {known.generation.capitalize()} generation do not start with the other kind.",
                    [(source, f"{there} module, {version}")],
                    provision("The plan swaps the flavour and keeps the branch.", reboot=True, verify=("nvidia-smi",)),
                )
            )
    return tuple(findings) or Ok(f"The {there} module fits.")


@check(
    "driver.dropped",
    "The driver's branch still drives the card",
    about="Driver branches end support for old generations (590 ended Maxwell, Pascal and Volta) and know no later "
    "ones. apt does not look at the card, so an upgrade can leave a V100 without a driver. From the catalogue's "
    "branches.",
    by_hand="Install the last branch for the card (580 for Volta and older) and keep apt on it: "
    "`nvidia-driver-580` from Ubuntu's archive, or `nvidia-driver-pinning-580` first when using NVIDIA's "
    "repository.",
    needs=(needs.NVIDIA_CARD,),
)
def dropped(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, source = nvidia_version(host)
    row = _branch(version, catalogue) if version else None
    if row is None:
        return Skip("No NVIDIA driver is loaded, so there is no branch to judge.")
    findings = [
        error(
            cards.subject(card, catalogue),
            f"Driver {version} does not drive {known.generation.capitalize()} cards.",
            f"Branch {row.number} has ended support for them."
            if known.generation in row.drops
            else f"Branch {row.number} is older than the card.",
            [(source, version)],
            provision("The plan picks a branch that drives the card, and keeps apt on it.", reboot=True),
        )
        for card in ours
        if (known := cards.known(card, catalogue)) and not row.drives(known.generation)
    ]
    return tuple(findings) or Ok(f"Branch {row.number} drives the card.")
