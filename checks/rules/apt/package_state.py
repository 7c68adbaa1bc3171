"""The package manager: complete installations, no conflicts, and one source for the driver."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host, Package
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, cannot_determine, command, error, provision, warning
from checks.rules.installed import nvidia_packages, packages

_DPKG = "/var/lib/dpkg/status"
# Ubuntu writes 580.95.05-0ubuntu0.24.04.2, NVIDIA 580.95.05-1ubuntu1 (before 575: -0ubuntu1), the PPA …~gpu24.04.1
_UBUNTU_VERSION = r"-\d+ubuntu\d+\.\d\d\.\d\d"
_NVIDIA_VERSION = r"-[01]ubuntu1$|-1$"


@check(
    "apt.dpkg",
    "No package installation is incomplete",
    about="After an interrupted or failed installation apt refuses every further one, or reports failures for packages "
    "without any problem. From /var/lib/dpkg/updates and the states in /var/lib/dpkg/status.",
    by_hand="Run `sudo dpkg --configure -a`, then `sudo apt-get --fix-broken install`. If a driver's DKMS build fails, "
    "remove that package first.",
)
def dpkg(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.broken is None and not host.apt.interrupted:
        if host.apt.packages is None and not any("dpkg" in gap.source for gap in host.unread):
            return Skip("This system has no dpkg.")
        return cannot_determine(
            host, "whether all packages are fully installed", ("dpkg",), "Make /var/lib/dpkg readable."
        )
    findings: list[Finding] = []
    repair = ("dpkg", "--configure", "-a")
    if host.apt.interrupted:
        findings.append(
            error(
                "dpkg",
                "dpkg was interrupted.",
                "apt refuses every installation until this one is finished.",
                [("/var/lib/dpkg/updates", "not empty")],
                command("Finish the installation.", *repair, sudo=True, verify=("dpkg", "--audit")),
            )
        )
    if host.apt.broken:
        findings.append(
            error(
                "dpkg",
                f"Not fully installed: {', '.join(host.apt.broken[:5])}.",
                "apt tries these packages again each time, fails again, and reports failures for all others.",
                [(_DPKG, name) for name in host.apt.broken[:5]],
                command(
                    _finish(host.apt.broken),
                    *repair,
                    sudo=True,
                    verify=("dpkg", "--audit"),
                ),
            )
        )
    return tuple(findings) or Ok("All packages are fully installed.")


def _finish(broken: tuple[str, ...]) -> str:
    """A module that does not compile fails again each time: only removing its package unblocks apt."""
    dkms_package = next((name.split()[0] for name in broken if "-dkms" in name), None)
    if dkms_package is None:
        return "Finish the installation; its output shows the reason."
    return (
        f"Finish the installation. If the build of {dkms_package} fails again (see driver.dkms), unblock apt with: "
        f"sudo apt-get remove {dkms_package}"
    )


@check(
    "apt.lock",
    "No other program holds the package lock",
    about="unattended-upgrades and apt-daily hold dpkg's lock for some minutes after boot; a second program fails with "
    "`Could not get lock`. From the holders of /var/lib/dpkg/lock-frontend in /proc/locks.",
    by_hand="Wait, or run `sudo apt-get -o DPkg::Lock::Timeout=600 …`. Never delete the lock files.",
)
def lock(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.apt.lock_holder:
        if any("lock" in gap.source for gap in host.unread):
            return cannot_determine(
                host, "whether another program holds the package lock", ("lock",), "Run the doctor with sudo."
            )
        return Ok("The package lock is free.")
    return (
        warning(
            "apt",
            f"{host.apt.lock_holder} is installing packages right now.",
            "Other installations fail until it is done.",
            [("/var/lib/dpkg/lock-frontend", host.apt.lock_holder)],
            by_hand("Wait some minutes. gpu-setup apply waits automatically; never delete the lock files."),
        ),
    )


def _origin(package: Package) -> str | None:
    if package.name.startswith("linux-"):
        return "Ubuntu"
    if "~gpu" in package.version:
        return "the graphics-drivers PPA"
    if re.search(_UBUNTU_VERSION, package.version):
        return "Ubuntu"
    return "NVIDIA" if re.search(_NVIDIA_VERSION, package.version) else None


@check(
    "apt.mixed-sources",
    "The NVIDIA driver comes from one archive",
    about="Ubuntu, NVIDIA and the PPA split the same driver into different packages. If they are mixed, apt reports "
    "`held broken packages`, or module and library have different versions. The source is recognised by the format of "
    "the package versions.",
    by_hand="Choose one source. `dpkg -l '*nvidia*'` shows the versions; remove the driver packages of the other "
    "source (`sudo apt-get remove`), disable its repository, and install the rest again in one command.",
    needs=(needs.NVIDIA_CARD,),
)
def mixed_sources(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return cannot_determine(
            host, "which archive the driver packages come from", ("dpkg",), "Make /var/lib/dpkg/status readable."
        )
    owners: dict[str, list[Package]] = {}
    for package in (*nvidia_packages(host), *packages(host, "libnvidia-compute", "libnvidia-gl", "nvidia-utils")):
        if (origin := _origin(package)) is not None:
            owners.setdefault(origin, []).append(package)
    if len(owners) < 2:
        return Ok(
            f"All driver packages come from {next(iter(owners))}."
            if owners
            else "No NVIDIA driver package is installed."
        )
    return (
        warning(
            "apt",
            f"NVIDIA driver packages come from {' and '.join(sorted(owners))}.",
            "They split the driver differently and partly replace each other; the next upgrade breaks the driver.",
            [
                (_DPKG, f"{origin}: " + ", ".join(f"{row.name} {row.version}" for row in rows[:3]))
                for origin, rows in sorted(owners.items())
            ],
            provision("Run `gpu-setup apply` to install all driver packages from one source.", reboot=True),
        ),
    )


@check(
    "apt.repo-wins",
    "NVIDIA's repository does not replace Ubuntu's driver",
    about="NVIDIA's CUDA repository sets its pin priority to 600, above Ubuntu's 500: the next upgrade replaces a "
    "driver from Ubuntu's archive with NVIDIA's packages, including DKMS. A pin of -1 on its driver packages prevents "
    "this and keeps the toolkit.",
    by_hand="Write /etc/apt/preferences.d/no-nvidia-driver with `Package: *nvidia* libcuda1* cuda-drivers*`, `Pin: "
    "origin developer.download.nvidia.com`, `Pin-Priority: -1`.",
    needs=(needs.NVIDIA_CARD,),
)
def repo_wins(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return cannot_determine(host, "which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    theirs = [row for row in host.apt.sources if row.owner == "nvidia"]
    ours = [row for row in nvidia_packages(host) if _origin(row) == "Ubuntu"]
    if not theirs or not ours:
        return Ok("Only one archive offers the installed driver.")
    pins = [pin for pin in host.apt.pins or () if (pin.priority or 0) < 0 and "nvidia" in f"{pin.packages} {pin.pin}"]
    if pins:
        return Ok(f"{pins[0].file} keeps Ubuntu's driver.")
    return (
        warning(
            "apt",
            "The next upgrade replaces the driver with packages from NVIDIA's repository.",
            "Its packages have a higher priority than Ubuntu's. They build modules with DKMS, which Secure Boot then "
            "refuses.",
            [(theirs[0].file, theirs[0].uri), (_DPKG, f"{ours[0].name} {ours[0].version}")],
            provision("Run `gpu-setup apply` to pin that repository's driver packages to -1."),
        ),
    )


@check(
    "apt.signed-by-conflict",
    "Each repository has one key",
    about="Two files that list the same repository with different Signed-By values (or one without) stop apt "
    "completely: `Conflicting values set for option Signed-By`. Common with old files of NVIDIA's container toolkit.",
    by_hand="Run `grep -rl nvidia.github.io /etc/apt/sources.list.d` (or search for the repository in the message), "
    "delete the older file, then run `sudo apt-get update`.",
)
def signed_by_conflict(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        if host.apt.packages is None and not host.unread:
            return Skip("This system has no apt.")
        return cannot_determine(host, "which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    entries: dict[tuple[str, str], dict[str | None, str]] = {}
    for row in host.apt.sources:
        place = (row.uri.partition("://")[2].rstrip("/"), (row.suite or "").rstrip("/"))
        entries.setdefault(place, {}).setdefault(row.signed_by, row.file)
    findings = [
        error(
            f"apt source {uri} {suite}".strip(),
            "The same repository is listed with different keys.",
            "apt stops with `Conflicting values set for option Signed-By` and installs nothing.",
            [(file, f"Signed-By: {key or 'none'}") for key, file in keys.items()],
            command(
                "Delete the older file (the one without a key)." if None in keys else "Delete one of the files.",
                *("rm", keys.get(None) or next(iter(keys.values()))),
                sudo=True,
                verify=("apt-get", "update"),
            ),
        )
        for (uri, suite), keys in entries.items()
        if len(keys) > 1 and len(set(keys.values())) > 1
    ]
    return tuple(findings) or Ok("No repository is listed with two keys.")


@check(
    "apt.amd-sources",
    "AMD's repositories belong to one release",
    about="AMD has used three repositories (repo.radeon.com up to 7.2, repo.amd.com for 7.14, stable.repo.amd.com for "
    "10). With files for several of them, or for two releases, apt installs parts of each: unmet dependencies, 404.",
    by_hand="Run `grep -rlE 'radeon|repo.amd.com' /etc/apt/sources.list.d`, keep the file you want, move the others to "
    "another folder, then run `sudo apt-get update`.",
    needs=(needs.AMD_CARD,),
)
def amd_sources(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return cannot_determine(host, "which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    releases: dict[str, tuple[str, str]] = {}
    for row in host.apt.sources:
        found = re.search(
            r"radeon\.com/rocm/apt/([\d.]+|latest)|://(stable\.repo\.amd\.com|repo\.amd\.com)/rocm", row.uri
        )
        if found:
            releases.setdefault(found[1] or found[2], (row.file, row.uri))
    if len(releases) < 2:
        return Ok("AMD's repositories belong to one release." if releases else "No AMD repository is enabled.")
    return (
        warning(
            "apt",
            f"ROCm repositories of several releases are enabled: {', '.join(releases)}.",
            "apt installs parts of each, which do not work together.",
            list(releases.values()),
            by_hand("Keep one file and move the others out of /etc/apt/sources.list.d.", verify=("apt-get", "update")),
        ),
    )
