"""The package manager: whole, and of one mind about where the driver comes from."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host, Package
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, command, error, provision, unread, warning
from checks.rules.installed import nvidia_packages, packages

_DPKG = "/var/lib/dpkg/status"
# Ubuntu writes 580.95.05-0ubuntu0.24.04.2, NVIDIA 580.95.05-1ubuntu1 (before 575: -0ubuntu1), the PPA …~gpu24.04.1
_UBUNTUS = r"-\d+ubuntu\d+\.\d\d\.\d\d"
_NVIDIAS = r"-[01]ubuntu1$|-1$"


@check(
    "apt.dpkg",
    "No installation was left half done",
    about="After an interrupted or failed installation apt refuses everything, or reports a failure for packages "
    "that are fine. From /var/lib/dpkg/updates and the states in /var/lib/dpkg/status.",
    by_hand="`sudo dpkg --configure -a`, then `sudo apt-get --fix-broken install`. If a driver's DKMS build is "
    "what fails, remove that package first.",
)
def dpkg(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.broken is None and not host.apt.interrupted:
        if host.apt.packages is None and not any("dpkg" in gap.source for gap in host.unread):
            return Skip("This system has no dpkg.")
        return unread(host, "Whether dpkg is whole", ("dpkg",), "Make /var/lib/dpkg readable.")
    findings: list[Finding] = []
    repair = ("dpkg", "--configure", "-a")
    if host.apt.interrupted:
        findings.append(
            error(
                "dpkg",
                "dpkg was interrupted.",
                "apt refuses every installation until it is finished.",
                [("/var/lib/dpkg/updates", "not empty")],
                command("Finish it.", *repair, sudo=True, verify=("dpkg", "--audit")),
            )
        )
    if host.apt.broken:
        findings.append(
            error(
                "dpkg",
                f"Not fully installed: {', '.join(host.apt.broken[:5])}.",
                "apt tries these again each time, fails again, and reports failure for everything else.",
                [(_DPKG, name) for name in host.apt.broken[:5]],
                command(
                    _finish(host.apt.broken),
                    *repair,
                    sudo=True,
                    verify=("dpkg", "--audit"),
                ),
            )
        )
    return tuple(findings) or Ok("dpkg is whole.")


def _finish(broken: tuple[str, ...]) -> str:
    """A module that does not compile fails each time again: then only removing its package frees apt."""
    built_here = next((name.split()[0] for name in broken if "-dkms" in name), None)
    if built_here is None:
        return "Finish the installation; its output names the reason."
    return (
        f"Finish the installation. If the build of {built_here} fails again (see driver.dkms), free apt with: "
        f"sudo apt-get remove {built_here}"
    )


@check(
    "apt.lock",
    "No other program holds the package lock",
    about="unattended-upgrades and apt-daily hold dpkg's lock for some minutes after a start; a second program "
    "fails with `Could not get lock`. From the holders of /var/lib/dpkg/lock-frontend in /proc/locks.",
    by_hand="Wait, or `sudo apt-get -o DPkg::Lock::Timeout=600 …`. Never delete the lock files.",
)
def lock(host: Host, catalogue: Catalogue) -> Verdict:
    if not host.apt.lock_holder:
        if any("lock" in gap.source for gap in host.unread):
            return unread(host, "Whether the package lock is held", ("lock",), "Run the doctor with sudo.")
        return Ok("The package lock is free.")
    return (
        warning(
            "apt",
            f"{host.apt.lock_holder} is installing packages right now.",
            "Other installations fail until it is done.",
            [("/var/lib/dpkg/lock-frontend", host.apt.lock_holder)],
            by_hand("Wait some minutes. gpu-setup apply waits by itself; never delete the lock files."),
        ),
    )


def _origin(package: Package) -> str | None:
    if package.name.startswith("linux-"):
        return "Ubuntu"
    if "~gpu" in package.version:
        return "the graphics-drivers PPA"
    if re.search(_UBUNTUS, package.version):
        return "Ubuntu"
    return "NVIDIA" if re.search(_NVIDIAS, package.version) else None


@check(
    "apt.mixed-sources",
    "The NVIDIA driver comes from one archive",
    about="Ubuntu, NVIDIA and the PPA build the same driver with different package borders. Mixed, apt reports "
    "`held broken packages`, or module and library are of two versions. Told apart by the form of the packages' "
    "versions.",
    by_hand="Choose one source. `dpkg -l '*nvidia*'` shows the versions; remove the driver packages of the other "
    "source (`sudo apt-get remove`), disable its repository, and install the rest again in one command.",
    needs=(needs.NVIDIA_CARD,),
)
def mixed_sources(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return unread(host, "Where the driver's packages come from", ("dpkg",), "Make /var/lib/dpkg/status readable.")
    owners: dict[str, list[Package]] = {}
    for package in (*nvidia_packages(host), *packages(host, "libnvidia-compute", "libnvidia-gl", "nvidia-utils")):
        if (origin := _origin(package)) is not None:
            owners.setdefault(origin, []).append(package)
    if len(owners) < 2:
        return Ok(f"All of it comes from {next(iter(owners))}." if owners else "No NVIDIA driver package is installed.")
    return (
        warning(
            "apt",
            f"NVIDIA driver packages come from {' and '.join(sorted(owners))}.",
            "They are cut differently and replace each other in part; the next upgrade breaks the driver.",
            [
                (_DPKG, f"{origin}: " + ", ".join(f"{row.name} {row.version}" for row in rows[:3]))
                for origin, rows in sorted(owners.items())
            ],
            provision("The plan names one source and moves every driver package to it.", reboot=True),
        ),
    )


@check(
    "apt.repo-wins",
    "NVIDIA's repository does not swap Ubuntu's driver",
    about="NVIDIA's CUDA repository comes with a pin of 600, above Ubuntu's 500: the next upgrade takes a driver "
    "that came from Ubuntu's archive over to NVIDIA's packages, DKMS and all. A pin of -1 on its driver packages "
    "keeps the toolkit and leaves the driver alone.",
    by_hand="Write /etc/apt/preferences.d/no-nvidia-driver with `Package: *nvidia* libcuda1* cuda-drivers*`, "
    "`Pin: origin developer.download.nvidia.com`, `Pin-Priority: -1`.",
    needs=(needs.NVIDIA_CARD,),
)
def repo_wins(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return unread(host, "Which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    theirs = [row for row in host.apt.sources if row.owner == "nvidia"]
    ours = [row for row in nvidia_packages(host) if _origin(row) == "Ubuntu"]
    if not theirs or not ours:
        return Ok("Only one archive offers the installed driver.")
    kept = [pin for pin in host.apt.pins or () if (pin.priority or 0) < 0 and "nvidia" in f"{pin.packages} {pin.pin}"]
    if kept:
        return Ok(f"{kept[0].file} keeps the driver where it is.")
    return (
        warning(
            "apt",
            "The next upgrade takes the driver over to NVIDIA's repository.",
            "Its packages outrank Ubuntu's. They build modules by DKMS, which Secure Boot then refuses.",
            [(theirs[0].file, theirs[0].uri), (_DPKG, f"{ours[0].name} {ours[0].version}")],
            provision("The plan pins that repository's driver packages to -1."),
        ),
    )


@check(
    "apt.signed-by-conflict",
    "Each repository has one key",
    about="Two files that name the same repository with different Signed-By (or one without) stop apt altogether: "
    "`Conflicting values set for option Signed-By`. Frequent with old files of NVIDIA's container toolkit.",
    by_hand="`grep -rl nvidia.github.io /etc/apt/sources.list.d` (or the repository in question), delete the older "
    "file, `sudo apt-get update`.",
)
def signed_by_conflict(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        if host.apt.packages is None and not host.unread:
            return Skip("This system has no apt.")
        return unread(host, "Which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    entries: dict[tuple[str, str], dict[str | None, str]] = {}
    for row in host.apt.sources:
        place = (row.uri.partition("://")[2].rstrip("/"), (row.suite or "").rstrip("/"))
        entries.setdefault(place, {}).setdefault(row.signed_by, row.file)
    findings = [
        error(
            f"apt source {uri} {suite}".strip(),
            "The same repository is listed with different keys.",
            "apt stops at `Conflicting values set for option Signed-By` and installs nothing at all.",
            [(file, f"Signed-By: {key or 'none'}") for key, file in keys.items()],
            command(
                "Delete the older file; this is the one without a key." if None in keys else "Delete one of the files.",
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
    "AMD's repositories are of one release",
    about="AMD has used three layouts (repo.radeon.com up to 7.2, repo.amd.com for 7.14, stable.repo.amd.com for "
    "10). Files of several of them, or of two releases, make apt pick parts of each: unmet dependencies, 404.",
    by_hand="`grep -rlE 'radeon|repo.amd.com' /etc/apt/sources.list.d`, keep the one you want, move the others "
    "away, `sudo apt-get update`.",
    needs=(needs.AMD_CARD,),
)
def amd_sources(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.sources is None:
        return unread(host, "Which repositories are enabled", ("/etc/apt",), "Make /etc/apt readable.")
    releases: dict[str, tuple[str, str]] = {}
    for row in host.apt.sources:
        found = re.search(
            r"radeon\.com/rocm/apt/([\d.]+|latest)|://(stable\.repo\.amd\.com|repo\.amd\.com)/rocm", row.uri
        )
        if found:
            releases.setdefault(found[1] or found[2], (row.file, row.uri))
    if len(releases) < 2:
        return Ok("AMD's repositories are of one release." if releases else "No AMD repository is enabled.")
    return (
        warning(
            "apt",
            f"ROCm repositories of several releases are enabled: {', '.join(releases)}.",
            "apt takes parts of each, which do not fit together.",
            list(releases.values()),
            by_hand("Keep one file and move the others out of /etc/apt/sources.list.d.", verify=("apt-get", "update")),
        ),
    )
