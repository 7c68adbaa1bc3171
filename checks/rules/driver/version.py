"""The driver's version and module flavour: do they match each other, the card and the training stack?"""

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
    "The loaded driver and its libraries have the same version",
    about="An upgrade, often an unattended one, replaces the libraries while the old module is still loaded; then "
    "every call fails with `Driver/library version mismatch`. Compares /sys/module/nvidia/version with the version in "
    "the file name of libnvidia-ml.so.1, and queries NVML.",
    by_hand="Reboot. Without a reboot: stop all programs that use the card, `sudo rmmod nvidia_uvm nvidia_drm "
    "nvidia_modeset nvidia`, then `sudo modprobe nvidia`.",
    needs=(needs.NVIDIA_CARD,),
)
def mismatch(host: Host, catalogue: Catalogue) -> Verdict:
    loaded, library = host.nvidia.module_version, host.nvidia.library_version
    reported = "mismatch" in (host.nvidia.nvml_problem or "").lower()
    if not loaded and not reported:
        return Skip("NVIDIA's module is not loaded.")
    if (loaded and library and loaded != library) or reported:
        return (
            error(
                "NVIDIA driver",
                f"The loaded driver has version {loaded or '(unknown)'}, its libraries {library or 'a newer one'}.",
                "The driver was upgraded while the old module was loaded; the two versions do not work together.",
                [
                    ("/sys/module/nvidia/version", loaded or "not read"),
                    ("libnvidia-ml.so.1", library or "not read"),
                    ("NVML", host.nvidia.nvml_problem or "not queried"),
                ],
                reboot("Reboot to load the new module.", verify=("nvidia-smi",)),
            ),
        )
    if not library:
        return (
            Ok(f"The loaded driver is {loaded}; NVML responds.")
            if host.nvidia.nvml
            else Unknown(
                "Cannot determine the version of libnvidia-ml.so.1: the library is missing or its link cannot be read."
            )
        )
    return Ok(f"Both have version {loaded}.")


@check(
    "driver.too-old",
    "The driver is new enough for a training stack",
    about="Each CUDA major version needs a minimum driver branch (CUDA 13: 580). Compares the driver's version with "
    "the minimum driver of each stack that has kernels for the card. If it is below all of them, no stack runs; if it "
    "is below the preferred stack's, only an older stack runs.",
    by_hand="Install a newer branch: `sudo ubuntu-drivers list` lists them, `gpu-setup plan` selects one with modules "
    "for your kernels.",
    needs=(needs.NVIDIA_CARD,),
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
        fix = provision("Run `gpu-setup apply` to install a driver branch that the stack supports.", reboot=True)
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


def _branch(version: str, catalogue: Catalogue) -> Branch | None:
    """The row of the version's branch, or of the next older one."""
    number = (cards.numbers(version) or (0,))[0]
    older = [row for row in catalogue.branches if row.number <= number]
    return max(older, key=lambda row: row.number, default=None)


@check(
    "driver.flavour",
    "The card has the kernel module it needs (open or proprietary)",
    about="There is an open and a proprietary version of NVIDIA's kernel module. Blackwell cards (RTX 50) work only "
    "with the open one, cards before Turing only with the proprietary one; with the wrong one: `RmInitAdapter failed` "
    "and `No devices were found`. Read from /proc/driver/nvidia/version, or from the package names.",
    by_hand="Install the other flavour of the same branch, e.g. `nvidia-driver-580-open` for `nvidia-driver-580`, with "
    "its modules, in one apt command; then reboot.",
    needs=(needs.NVIDIA_CARD,),
)
def flavour(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, _ = nvidia_version(host)
    row = _branch(version, catalogue) if version else None
    if row is None:
        return Skip("No NVIDIA driver is loaded, so there is no module to check.")
    is_open, source = host.nvidia.open_module, "/proc/driver/nvidia/version"
    if is_open is None:
        names = [package.name for package in nvidia_packages(host)]
        if not names:
            return Unknown("Cannot determine whether the module is open or proprietary: it is not loaded.")
        is_open, source = any("-open" in name for name in names), _DPKG
    loaded = "open" if is_open else "proprietary"
    findings = []
    for card in ours:
        known = cards.row_of(card, catalogue)
        needed = known and (
            "open"
            if known.generation in row.open_only
            else "proprietary"
            if known.generation in row.proprietary_only
            else ""
        )
        if known and needed and needed != loaded:
            findings.append(
                error(
                    cards.subject(card, catalogue),
                    f"The card needs the {needed} kernel module, but has the {loaded} one.",
                    f"Cards of the {known.generation.capitalize()} generation do not work with the other one.",
                    [(source, f"{loaded} module, {version}")],
                    provision(
                        "Run `gpu-setup apply` to install the other module of the same branch.",
                        reboot=True,
                        verify=("nvidia-smi",),
                    ),
                )
            )
    return tuple(findings) or Ok(f"The {loaded} module supports the card.")


@check(
    "driver.dropped",
    "The driver's branch supports the card",
    about="New driver branches drop support for old generations (590 dropped Maxwell, Pascal and Volta), and old "
    "branches do not support later cards. apt does not check the card, so an upgrade can leave a V100 without a "
    "driver. From the branches in the catalogue.",
    by_hand="Install the last branch that supports the card (580 for Volta and older) and keep apt on it: "
    "`nvidia-driver-580` from Ubuntu's archive, or `nvidia-driver-pinning-580` first when using NVIDIA's repository.",
    needs=(needs.NVIDIA_CARD,),
)
def dropped(host: Host, catalogue: Catalogue) -> Verdict:
    ours = cards.training(host, catalogue, cards.NVIDIA)
    version, source = nvidia_version(host)
    row = _branch(version, catalogue) if version else None
    if row is None:
        return Skip("No NVIDIA driver is loaded, so there is no branch to check.")
    findings = [
        error(
            cards.subject(card, catalogue),
            f"Driver {version} does not support {known.generation.capitalize()} cards.",
            f"Branch {row.number} has dropped support for them."
            if known.generation in row.drops
            else f"Branch {row.number} is older than the card.",
            [(source, version)],
            provision(
                "Run `gpu-setup apply` to install a branch that supports the card; it also keeps apt on it.",
                reboot=True,
            ),
        )
        for card in ours
        if (known := cards.row_of(card, catalogue)) and not row.drives(known.generation)
    ]
    return tuple(findings) or Ok(f"Branch {row.number} supports the card.")
