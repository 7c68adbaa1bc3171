"""The package manager: complete installations, free locks, no conflicts."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Fix, Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.apt.driver_source import foreign_packages, remove_foreign
from checks.rules.driver.build import build_failure, does_not_build
from checks.rules.finding import by_hand, cannot_determine, command, error, info, warning
from checks.rules.installed import from_amd, packages

_DPKG = "/var/lib/dpkg/status"
# the releases that AMD has repositories for (repo.radeon.com/rocm/apt, rocm.docs.amd.com)
_LTS = {"focal": "20.04", "jammy": "22.04", "noble": "24.04", "resolute": "26.04"}


@check(
    "apt.dpkg",
    "No package installation is incomplete",
    about="After an interrupted or failed installation apt refuses every further one, or reports failures for packages "
    "without any problem. From /var/lib/dpkg/updates and the states in /var/lib/dpkg/status.",
    by_hand="Run `sudo dpkg --configure -a`, then `sudo apt-get --fix-broken install`. If a driver's DKMS build fails, "
    "remove that package first.",
    causes=("kernel.amdgpu-dkms", "driver.dkms", "apt.mixed-sources"),
)
def dpkg(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.broken is None and not host.apt.interrupted:
        if host.apt.packages is None and not any("dpkg" in gap.source for gap in host.unread):
            return Skip("This system has no dpkg.")
        return cannot_determine(
            host, "whether all packages are fully installed", ("dpkg",), "Make /var/lib/dpkg readable."
        )
    findings: list[Finding] = []
    if host.apt.interrupted:
        findings.append(
            error(
                "dpkg",
                "dpkg was interrupted.",
                "apt refuses every installation until this one is finished.",
                [("/var/lib/dpkg/updates", "not empty")],
                _finish("Finish the installation."),
            )
        )
    if host.apt.broken:
        findings.append(_unfinished(host, catalogue, host.apt.broken))
    return tuple(findings) or Ok("All packages are fully installed.")


def _finish(text: str) -> Fix:
    return command(text, "dpkg", "--configure", "-a", sudo=True, verify=("dpkg", "--audit"))


def _unfinished(host: Host, catalogue: Catalogue, broken: tuple[str, ...]) -> Finding:
    states = {row.name: f"{row.name} {row.version}: {row.state}" for row in host.apt.packages or ()}
    return error(
        "dpkg",
        f"Not fully installed: {', '.join(broken[:5])}.",
        "apt tries these packages again each time, fails again, and reports failures for all others.",
        [(_DPKG, states.get(name, name)) for name in broken[:5]],
        _unblock(host, catalogue, broken),
    )


def _unblock(host: Host, catalogue: Catalogue, broken: tuple[str, ...]) -> Fix:
    """Finishing the installation only helps where nothing is known to stop it again."""
    names = tuple(name.split()[0] for name in broken)
    dkms = next((name for name in names if "-dkms" in name), None)
    if dkms is None and any(name.startswith(("linux-headers-", "linux-image-")) for name in names):
        # a kernel's packages run DKMS, and fail with it (ROCm/legacy-rocm-build#3701)
        dkms = next((row.name for row in packages(host, "amdgpu-dkms", "nvidia-dkms") if _fails(host, row.name)), None)
        other = next((row for row in host.kernel.dkms or () if does_not_build(row)), None)
        if dkms is None and other is not None:
            return by_hand(
                f"The DKMS build of {other.module} {other.version} stops the kernel's packages: update or remove its "
                f"package (usually {other.module}-dkms), then run sudo dpkg --configure -a.",
                verify=("dpkg", "--audit"),
            )
    if dkms is not None and (why := build_failure(host, dkms.partition("-")[0])):
        return command(
            f"{why} It would fail again: remove {dkms}, which unblocks apt.",
            *("apt-get", "remove", dkms),
            sudo=True,
            verify=("dpkg", "--audit"),
        )
    foreign = foreign_packages(host)
    if any(row.name in names for row in foreign):
        return remove_foreign(host, catalogue, foreign)
    if dkms is not None:
        return _finish(
            f"Finish the installation. If the build of {dkms} fails again (see driver.dkms), unblock apt with: sudo "
            f"apt-get remove {dkms}"
        )
    return _finish("Finish the installation; its output shows the reason.")


def _fails(host: Host, package: str) -> bool:
    return build_failure(host, package.partition("-")[0]) is not None


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
    findings = _for_another_ubuntu(host)
    if len(releases) > 1:
        findings.append(
            warning(
                "apt",
                f"ROCm repositories of several releases are enabled: {', '.join(releases)}.",
                "apt installs parts of each, which do not work together.",
                list(releases.values()),
                by_hand(
                    "Keep one file and move the others out of /etc/apt/sources.list.d.", verify=("apt-get", "update")
                ),
            )
        )
    if findings:
        return tuple(findings)
    return Ok("AMD's repositories belong to one release." if releases else "No AMD repository is enabled.")


def _for_another_ubuntu(host: Host) -> list[Finding]:
    """AMD's repository for an LTS release on another Ubuntu; beside packages of Ubuntu's own ROCm it mixes two."""
    if host.os.id != "ubuntu" or host.os.version_id is None:
        return []
    for row in host.apt.sources or ():
        named = re.search(r"/ubuntu(\d\d)(\d\d)(?:/|$)", row.uri)
        release = f"{named[1]}.{named[2]}" if named else _LTS.get(row.suite or "")
        if row.owner not in ("amd-rocm", "amd-graphics") or release in (None, host.os.version_id):
            continue
        ubuntus = [one for one in packages(host, "librocm", "rocm", "hip", "libamdhip") if not from_amd(one)]
        return [
            (warning if ubuntus else info)(
                f"apt source {row.uri}",
                f"AMD's repository is for Ubuntu {release} ({row.suite}), this is Ubuntu {host.os.version_id}.",
                "Its packages are built for the other release; together with Ubuntu's own ROCm they do not work."
                if ubuntus
                else "Its packages are built for the other release; some may not be installable.",
                [(row.file, row.uri), *(("/var/lib/dpkg/status", f"{one.name} {one.version}") for one in ubuntus[:4])],
                by_hand(
                    "Use ROCm from one source: the training environment brings its own. Remove this repository and its "
                    "packages, or Ubuntu's ROCm packages.",
                    verify=("apt-get", "update"),
                ),
            )
        ]
    return []
