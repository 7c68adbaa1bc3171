"""The driver's branch and kernel module flavour: do they support the card? What the module itself says counts first."""

from __future__ import annotations

import re

from checks.catalogue import Branch, Catalogue
from checks.facts.host import Host, PciCard
from checks.model import Finding, Fix, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, kernel_log, needs
from checks.rules.driver.probe import explanation
from checks.rules.finding import by_hand, command, error, provision
from checks.rules.installed import nvidia_packages, nvidia_version
from checks.rules.other_systems import distribution, install_driver, plan_supports
from checks.rules.session import in_container

_DPKG = "/var/lib/dpkg/status"
# NVRM's messages about a card that it does not take (kernel-open/nvidia/nv-pci.c, since 515, 525 and 560)
_NOT_OPEN = r"not supported by open nvidia\.ko|Open nvidia\.ko is only ready for use on"
_NOT_PROPRIETARY = r"requires use of the NVIDIA open kernel modules"
_LEGACY = r"supported through the NVIDIA ([0-9]+)\.xx Legacy drivers"
_TOO_NEW = r"not supported by the NVIDIA ([0-9.]+) driver release"


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
    said = [finding for card in ours if (finding := _refused_flavour(host, catalogue, card))]
    if said:
        return tuple(said)
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
                    _other_flavour(host, catalogue, card, needed),
                )
            )
    return tuple(findings) or Ok(f"The {loaded} module supports the card.")


def _refused_flavour(host: Host, catalogue: Catalogue, card: PciCard) -> Finding | None:
    """What the module itself wrote about the card while it did not take it."""
    if card.driver == "nvidia":
        return None
    if found := explanation(host, card, _NOT_OPEN):
        return error(
            cards.subject(card, catalogue),
            "The open kernel module does not support this card: it has no GSP.",
            "Only cards since Turing (GTX 16, RTX 20) have one; older cards need the proprietary module.",
            [(kernel_log.SOURCE, found[0])],
            _proprietary(host, catalogue, card),
        )
    if found := explanation(host, card, _NOT_PROPRIETARY):
        return error(
            cards.subject(card, catalogue),
            "The proprietary kernel module does not support this card: it requires the open one.",
            "Cards since Blackwell (RTX 50) work only with NVIDIA's open kernel modules.",
            [(kernel_log.SOURCE, found[0])],
            _other_flavour(host, catalogue, card, "open"),
        )
    return None


def _proprietary(host: Host, catalogue: Catalogue, card: PciCard) -> Fix:
    """For a card without a GSP: of the installed branch, or of the last one that has a module for such cards."""
    version, _ = nvidia_version(host)
    last = _last_branch(catalogue, "pascal")
    newer = last is not None and cards.numbers(version)[:1] > (last,)
    return _branch_for(host, catalogue, card, last) if newer else _other_flavour(host, catalogue, card, "proprietary")


def _other_flavour(host: Host, catalogue: Catalogue, card: PciCard, needed: str) -> Fix:
    """The plan's step where there is one for this card; else the packages of the other flavour of the same branch."""
    renamed = tuple(dict.fromkeys(filter(None, (_renamed(row.name, needed) for row in nvidia_packages(host)))))
    if plan_supports(host, catalogue) and (row := cards.row_of(card, catalogue)) and row.supported:
        return provision(
            f"Run `gpu-setup apply` to install the {needed} module of the same branch"
            + (f" ({', '.join(renamed)})." if renamed else "."),
            reboot=True,
            verify=("nvidia-smi",),
        )
    if not renamed:
        what = "nvidia-open (nvidia-open-dkms)" if needed == "open" else "the proprietary driver of branch 580 (580xx)"
        return by_hand(f"Replace the module with {what} from your distribution, then reboot.", verify=("nvidia-smi",))
    return command(
        f"Install the {needed} module of the same branch; apt removes the other one. Then reboot.",
        *("apt-get", "install", *renamed),
        sudo=True,
        reboot=True,
        verify=("nvidia-smi",),
    )


def _renamed(name: str, needed: str) -> str | None:
    """Ubuntu's and Debian's name of the same package for the other flavour; None for packages that come with it."""
    match = re.fullmatch(
        r"(nvidia-(?:driver|headless|headless-no-dkms)-[0-9]+(?:-server)?)(-open)?"
        r"|(linux-modules-nvidia-[0-9]+(?:-server)?)(-open)?(-(?:generic|lowlatency|oem|aws|gcp|azure|oracle)\S*)",
        name,
    )
    if match:
        head, flavour, tail = match[1] or match[3], match[2] or match[4], match[5] or ""
        other = "" if needed == "proprietary" else "-open"
        return None if (flavour or "") == other else f"{head}{other}{tail}"
    others = {"nvidia-open-kernel-dkms": "nvidia-kernel-dkms", "nvidia-open": "cuda-drivers"}
    if needed == "open":
        others = {value: key for key, value in others.items()}
    return others.get(name)


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
    said = [finding for card in ours if (finding := _ignored(host, catalogue, card))]
    if said:
        return tuple(said)
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
            _branch_for(host, catalogue, card, _last_branch(catalogue, known.generation)),
        )
        for card in ours
        if (known := cards.row_of(card, catalogue)) and not row.drives(known.generation)
        # a driver that lists the card supports it, whatever our table says
        if (gpu := cards.nvml_of(card, host)) is None or gpu.problem
    ]
    return tuple(findings) or Ok(f"Branch {row.number} supports the card.")


def _ignored(host: Host, catalogue: Catalogue, card: PciCard) -> Finding | None:
    """What the module itself wrote about a card that its branch does not support."""
    if card.driver == "nvidia":
        return None
    if found := explanation(host, card, _LEGACY):
        last = int(found[1][1])
        return error(
            cards.subject(card, catalogue),
            f"The installed driver ignores this card: {last} is the last branch that supports it.",
            "Newer branches have dropped the card's generation.",
            [(kernel_log.SOURCE, found[0])],
            _branch_for(host, catalogue, card, last),
        )
    if found := explanation(host, card, _TOO_NEW):
        branch, known = _branch(found[1][1], catalogue), cards.row_of(card, catalogue)
        old_enough = branch is not None and known is not None and branch.drives(known.generation)
        slice_of_it = old_enough and host.os.virtualisation not in (None, "none") and not in_container(host)
        return error(
            cards.subject(card, catalogue),
            f"Driver {found[1][1]} does not support this card.",
            "The module itself says so, although the branch supports such cards: this virtual machine has a vGPU, a "
            "slice of the card."
            if slice_of_it
            else "The module itself says so; usually the branch is older than the card.",
            [(kernel_log.SOURCE, found[0])],
            by_hand(
                "Ask the administrator of the host for NVIDIA's GRID driver of the host's vGPU release; public drivers "
                "do not support a vGPU. A card that is passed through whole needs a later driver.",
                verify=("nvidia-smi",),
            )
            if slice_of_it
            else install_driver(
                host, catalogue, "Run `gpu-setup apply` to install a newer branch.", verify=("nvidia-smi",)
            ),
        )
    return None


def _last_branch(catalogue: Catalogue, generation: str) -> int | None:
    """The last branch before the one that dropped the generation; None while none has."""
    dropped_by = [row.number for row in catalogue.branches if generation in row.drops]
    older = [row.number for row in catalogue.branches if row.drives(generation)]
    return max(older, default=None) if dropped_by else None


def _branch_for(host: Host, catalogue: Catalogue, card: PciCard, last: int | None) -> Fix:
    """A branch that supports the card: the plan's, or the last one by its names in the distributions."""
    known = cards.row_of(card, catalogue)
    if last is None or (plan_supports(host, catalogue) and known and known.supported):
        text = "Run `gpu-setup apply` to install a branch that supports the card; it also keeps apt on it."
        return install_driver(host, catalogue, text)
    row = distribution(host, catalogue)
    if row.driver[:1] == ("ubuntu-drivers",):
        return command(
            f"Install branch {last} and keep apt on it, then reboot.",
            *("apt-get", "install", f"nvidia-driver-{last}"),
            sudo=True,
            reboot=True,
            verify=("nvidia-smi",),
        )
    names = {"fedora": f"akmod-nvidia-{last}xx", "arch": f"nvidia-{last}xx-dkms (AUR)"}
    package = names.get(row.ids[0], f"the driver of branch {last}")
    return by_hand(f"Replace the driver with {package}, then reboot.", verify=("nvidia-smi",))
