"""Unattended upgrades and holds: are kernel and driver upgraded together?"""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, cannot_determine, command, info, provision, warning
from checks.rules.installed import nvidia_packages, packages

# a set that must be upgraded together: kernel, prebuilt modules, and the driver's libraries
_SET = (
    ("kernel", "linux-image-6.8.0-1-generic"),
    ("kernel modules", "linux-modules-nvidia-580-open-6.8.0-1-generic"),
    ("driver", "nvidia-driver-580-open"),
    ("driver", "libnvidia-compute-580"),
)
# packages that always depend on the newest kernel of a flavour
_KERNEL_META = r"linux-(?:image-)?(?:generic|lowlatency|virtual|oem|aws|gcp|azure|oracle)(?:-hwe)?(?:-[\d.]+\w?)?$"


@check(
    "apt.unattended",
    "Unattended upgrades include kernel and driver together",
    about="A common way to block driver upgrades is to list `nvidia-` in Package-Blacklist. The list matches from the "
    "start of a name, so libnvidia-*, linux-modules-nvidia-* and kernels are still upgraded: kernel, module and "
    "libraries then have different versions. Block the whole set, or none of it.",
    by_hand="In /etc/apt/apt.conf.d/50unattended-upgrades remove the nvidia lines from Package-Blacklist, or block all "
    "of `linux-`, `nvidia-` and `libnvidia-`. `gpu-setup update` upgrades them together.",
    needs=(needs.DPKG, needs.NVIDIA_CARD),
)
def unattended(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.unattended is None:
        return cannot_determine(
            host, "whether unattended upgrades are on", ("apt.conf", "/etc/apt"), "Make /etc/apt readable."
        )
    if not host.apt.unattended:
        return Ok("Unattended upgrades are off.")
    free = still_upgraded(host)
    if free is None:
        return Ok("Unattended upgrades are on and block no part of the set; reboot after each driver upgrade.")
    if not free:
        return Ok("Unattended upgrades do not upgrade kernel or driver.")
    return (
        warning(
            "unattended-upgrades",
            f"Unattended upgrades block a part of the driver but still upgrade {' and '.join(free)}.",
            "After an unattended upgrade, module, libraries and kernel can mismatch and the GPU is unavailable.",
            [("Unattended-Upgrade::Package-Blacklist", ", ".join(host.apt.unattended_blocks or ()))],
            provision(
                "Run `gpu-setup apply` to block the rest of the set too; `gpu-setup update` then upgrades it together."
            ),
        ),
    )


def still_upgraded(host: Host) -> tuple[str, ...] | None:
    """Kinds of package that are still upgraded although others of the set are blocked; None if none is blocked."""
    blocked = {name for _, name in _SET for pattern in host.apt.unattended_blocks or () if _matches(pattern, name)}
    return tuple(dict.fromkeys(kind for kind, name in _SET if name not in blocked)) if blocked else None


def _matches(pattern: str, name: str) -> bool:
    """unattended-upgrades uses Python's re.match: it matches from the start of the name."""
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


@check(
    "apt.auto-reboot",
    "Unattended upgrades do not reboot the machine",
    about="With Automatic-Reboot, unattended-upgrades reboots the machine after an upgrade that needs it, at the "
    "configured time (often 02:00), even if a training run is in progress. The run is then lost.",
    by_hand='In /etc/apt/apt.conf.d/50unattended-upgrades set `Unattended-Upgrade::Automatic-Reboot "false";`, or '
    "block it for one run: `systemd-inhibit --what=shutdown gpu-setup train …`.",
    needs=(needs.DPKG, needs.CARD),
)
def auto_reboot(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.unattended is None or host.apt.unattended_reboot is None:
        return cannot_determine(
            host, "whether unattended upgrades reboot the machine", ("apt.conf", "/etc/apt"), "Make /etc/apt readable."
        )
    if not host.apt.unattended or not host.apt.unattended_reboot:
        return Ok("No automatic reboot is configured.")
    return (
        warning(
            "unattended-upgrades",
            "Unattended upgrades may reboot the machine during a training run.",
            "The run stops without a message; only its last checkpoint is kept.",
            [("/etc/apt/apt.conf.d", 'Unattended-Upgrade::Automatic-Reboot "true"')],
            by_hand("Set Unattended-Upgrade::Automatic-Reboot to false in /etc/apt/apt.conf.d/50unattended-upgrades."),
        ),
    )


@check(
    "apt.holds",
    "Package holds keep kernel and driver together",
    about="With `apt-mark hold` on a part of the set (kernel, NVIDIA's prebuilt modules, NVIDIA's libraries) the rest "
    "is still upgraded: the next kernel has no module, or module and library have different versions. With DKMS a held "
    "driver is rebuilt for each kernel, so that is informational only; so is a held kernel, which gets no security "
    "updates.",
    by_hand="Run `apt-mark showhold`, then `sudo apt-mark unhold NAME …`; or hold the whole set. `gpu-setup update` "
    "upgrades kernel and driver together.",
    needs=(needs.DPKG, needs.CARD),
)
def holds(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return cannot_determine(host, "which packages are on hold", ("dpkg",), "Make /var/lib/dpkg/status readable.")
    parts = {
        "kernel": [row for row in host.apt.packages if re.match(_KERNEL_META, row.name) and row.state == "installed"],
        "prebuilt modules": list(packages(host, "linux-modules-nvidia-")),
        "driver": [
            row
            for row in (*nvidia_packages(host), *packages(host, "libnvidia-compute", "nvidia-utils"))
            if not row.name.startswith("linux-")
        ],
    }
    held = {part: [row.name for row in rows if row.held] for part, rows in parts.items()}
    names = [name for some in held.values() for name in some]
    if not names:
        return Ok("Neither kernel nor driver is on hold.")
    free = [part for part, rows in parts.items() if rows and not held[part]]
    together = bool(parts["prebuilt modules"]) and bool(free)
    return (
        (warning if together else info)(
            "apt",
            f"{', '.join(names[:3])} on hold, but {' and '.join(free)} can be upgraded."
            if free
            else f"{', '.join(names[:3])} on hold: no updates, security updates included.",
            "After the next upgrade kernel, modules and libraries can have different versions."
            if together
            else "The package is kept at this version until the hold is removed.",
            [("/var/lib/dpkg/status", f"{name}: hold") for name in names[:6]],
            command("Remove the hold.", "apt-mark", "unhold", *names, sudo=True, verify=("apt-mark", "showhold")),
        ),
    )
