"""Updates that happen by themselves, and holds: do kernel and driver move together?"""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Ok, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, command, info, provision, unread, warning
from checks.rules.installed import nvidia_packages, packages

# a set that must move together: kernel, prebuilt modules, and what talks to them
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
    "Unattended upgrades move kernel and driver together",
    about="People keep upgrades from their driver by listing `nvidia-` as a blocked package. The list matches from "
    "the start of a name, so libnvidia-*, linux-modules-nvidia-* and kernels still move: the machine then starts a "
    "kernel or loads a module that the rest of the driver does not fit. All of the set, or none of it.",
    by_hand="In /etc/apt/apt.conf.d/50unattended-upgrades remove the nvidia lines from Package-Blacklist, or block "
    "all of `linux-`, `nvidia-` and `libnvidia-`. `gpu-setup update` moves them together.",
    needs=(needs.NVIDIA_CARD,),
)
def unattended(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.unattended is None:
        return unread(host, "Whether unattended upgrades run", ("apt.conf", "/etc/apt"), "Make /etc/apt readable.")
    if not host.apt.unattended:
        return Ok("Unattended upgrades are off.")
    free = still_moving(host)
    if free is None:
        return Ok("Unattended upgrades are on and block no part of the set; a restart follows each driver upgrade.")
    if not free:
        return Ok("Unattended upgrades leave kernel and driver alone.")
    return (
        warning(
            "unattended-upgrades",
            f"Unattended upgrades hold a part of the driver back and still move {' and '.join(free)}.",
            "After such a night module, library and kernel do not fit, and the card is gone.",
            [("Unattended-Upgrade::Package-Blacklist", ", ".join(host.apt.unattended_blocks or ()))],
            provision("The plan blocks the rest of the set too; `gpu-setup update` then moves it together."),
        ),
    )


def still_moving(host: Host) -> tuple[str, ...] | None:
    """Which kinds of package still move although others of the set are blocked; None where none is blocked."""
    blocked = {name for _, name in _SET for pattern in host.apt.unattended_blocks or () if _matches(pattern, name)}
    return tuple(dict.fromkeys(kind for kind, name in _SET if name not in blocked)) if blocked else None


def _matches(pattern: str, name: str) -> bool:
    """unattended-upgrades uses Python's re.match: from the start of the name, open at its end."""
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


@check(
    "apt.auto-reboot",
    "Unattended upgrades do not restart the machine by themselves",
    about="With Automatic-Reboot, unattended-upgrades restarts the machine after an upgrade that asks for it, at the "
    "time set there (often 02:00), whatever runs. A long training run does not survive that.",
    by_hand='In /etc/apt/apt.conf.d/50unattended-upgrades set `Unattended-Upgrade::Automatic-Reboot "false";`, or '
    "hold it off for one run: `systemd-inhibit --what=shutdown gpu-setup train …`.",
    needs=(needs.CARD,),
)
def auto_reboot(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.unattended is None or host.apt.unattended_reboot is None:
        return unread(host, "Whether unattended upgrades restart", ("apt.conf", "/etc/apt"), "Make /etc/apt readable.")
    if not host.apt.unattended or not host.apt.unattended_reboot:
        return Ok("Nothing restarts the machine by itself.")
    return (
        warning(
            "unattended-upgrades",
            "Unattended upgrades may restart the machine while it trains.",
            "The run ends without a word; only its last checkpoint is left.",
            [("/etc/apt/apt.conf.d", 'Unattended-Upgrade::Automatic-Reboot "true"')],
            by_hand("Set Unattended-Upgrade::Automatic-Reboot to false in /etc/apt/apt.conf.d/50unattended-upgrades."),
        ),
    )


@check(
    "apt.holds",
    "Holds keep kernel and driver together",
    about="`apt-mark hold` on a part of the set (kernel, NVIDIA's prebuilt modules, NVIDIA's libraries) lets the "
    "rest move on: the next kernel has no module, or module and library are of two versions. With DKMS a held driver "
    "is rebuilt for each kernel, so that is only said, and so is a kernel that gets no security updates.",
    by_hand="`apt-mark showhold`, then `sudo apt-mark unhold NAME …`; or hold all of the set. `gpu-setup update` moves "
    "kernel and driver together.",
    needs=(needs.CARD,),
)
def holds(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return unread(host, "What is on hold", ("dpkg",), "Make /var/lib/dpkg/status readable.")
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
            f"{', '.join(names[:3])} on hold, while {' and '.join(free)} can move."
            if free
            else f"{', '.join(names[:3])} on hold: no updates, security updates included.",
            "After the next upgrade kernel, modules and libraries do not fit each other."
            if together
            else "Meant or not, it stays at this version until the hold is taken off.",
            [("/var/lib/dpkg/status", f"{name}: hold") for name in names[:6]],
            command("Take the hold off.", "apt-mark", "unhold", *names, sudo=True, verify=("apt-mark", "showhold")),
        ),
    )
