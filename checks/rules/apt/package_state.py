"""The package manager: complete installations, no conflicts, and one source for the driver."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import AptSource, Host, Package
from checks.model import Finding, Fix, Ok, Skip, Verdict, check
from checks.rules import needs
from checks.rules.driver.build import build_failure
from checks.rules.finding import by_hand, cannot_determine, command, error, provision, warning
from checks.rules.installed import next_module, nvidia_origins, nvidia_packages, origin

_DPKG = "/var/lib/dpkg/status"


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
        findings.append(_unfinished(host, host.apt.broken))
    return tuple(findings) or Ok("All packages are fully installed.")


def _finish(text: str) -> Fix:
    return command(text, "dpkg", "--configure", "-a", sudo=True, verify=("dpkg", "--audit"))


def _unfinished(host: Host, broken: tuple[str, ...]) -> Finding:
    states = {row.name: f"{row.name} {row.version}: {row.state}" for row in host.apt.packages or ()}
    return error(
        "dpkg",
        f"Not fully installed: {', '.join(broken[:5])}.",
        "apt tries these packages again each time, fails again, and reports failures for all others.",
        [(_DPKG, states.get(name, name)) for name in broken[:5]],
        _unblock(host, broken),
    )


def _unblock(host: Host, broken: tuple[str, ...]) -> Fix:
    """Finishing the installation only helps where nothing is known to stop it again."""
    names = tuple(name.split()[0] for name in broken)
    dkms = next((name for name in names if "-dkms" in name), None)
    if dkms is not None and (why := build_failure(host, dkms.partition("-")[0])):
        return command(
            f"{why} It would fail again: remove {dkms}, which unblocks apt.",
            *("apt-get", "remove", dkms),
            sudo=True,
            verify=("dpkg", "--audit"),
        )
    foreign = _to_remove(host)
    if any(row.name in names for row in foreign):
        return _remove_foreign(host, foreign)
    if dkms is not None:
        return _finish(
            f"Finish the installation. If the build of {dkms} fails again (see driver.dkms), unblock apt with: sudo "
            f"apt-get remove {dkms}"
        )
    return _finish("Finish the installation; its output shows the reason.")


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
    origins = nvidia_origins(host)
    findings = [*_other_release(host), *([_mixed(host, origins)] if len(origins) > 1 else [])]
    if findings:
        return tuple(findings)
    return Ok(
        f"All driver packages come from {next(iter(origins))}." if origins else "No NVIDIA driver package is installed."
    )


def _mixed(host: Host, origins: dict[str, list[Package]]) -> Finding:
    foreign = _to_remove(host)
    library, coming = host.nvidia.library_version, next_module(host)
    # after the next boot too
    apart = library is not None and coming is not None and not coming.fits(library)
    broken = apart or any(row.state != "installed" for row in foreign)
    return (error if broken else warning)(
        "apt",
        f"NVIDIA driver packages come from {' and '.join(sorted(origins))}.",
        "They split the driver differently and partly replace each other: module and libraries have different "
        "versions, and a reboot does not change that."
        if apart
        else "They split the driver differently and partly replace each other, so the installation stopped half-way."
        if broken
        else "They split the driver differently and partly replace each other; the next upgrade breaks the driver.",
        [
            (_DPKG, f"{name}: " + ", ".join(f"{row.name} {row.version}" for row in rows[:3]))
            for name, rows in sorted(origins.items())
        ],
        _remove_foreign(host, foreign),
    )


def _kept_origin(host: Host) -> str | None:
    """The archive to stay with: that of the kernel module, else the one with the most packages."""
    origins = nvidia_origins(host)
    owners = [
        name
        for name, rows in origins.items()
        if any(row.name.startswith(("linux-modules-nvidia-", "nvidia-dkms", "nvidia-kernel")) for row in rows)
    ]
    return owners[0] if len(owners) == 1 else max(origins, key=lambda name: len(origins[name]), default=None)


def _to_remove(host: Host) -> tuple[Package, ...]:
    """The driver packages of the archives that are not kept; empty where all come from one."""
    kept = _kept_origin(host)
    return tuple(row for name, rows in nvidia_origins(host).items() if name != kept for row in rows)


def _remove_foreign(host: Host, foreign: tuple[Package, ...]) -> Fix:
    """One source for the whole driver: apt does it in one step, unless a package is incomplete."""
    kept = _kept_origin(host)
    driver = next((row.name for row in nvidia_origins(host).get(kept or "", ()) if "nvidia-driver" in row.name), None)
    names = tuple(row.name for row in foreign)
    keep = f"Keep the driver of {kept}, which has the kernel module, and remove the packages of the other source"
    pin = "If the other repository would win again, pin it first (apt.repo-wins)."
    if driver and all(row.state == "installed" for row in foreign):
        return command(
            f"{keep}: both in one command, and read what apt is going to do. {pin}",
            *("apt-get", "install", driver, *(f"{name}-" for name in names)),
            sudo=True,
            reboot=True,
            verify=("nvidia-smi",),
        )
    then = f" and `sudo apt-get install --reinstall {driver}`" if driver else ""
    return command(
        f"{keep}. apt refuses while they are incomplete, so dpkg removes them; then run `sudo apt-get --fix-broken "
        f"install`{then}. {pin}",
        *("dpkg", "--remove", "--force-depends", "--force-remove-reinstreq", *names),
        sudo=True,
        reboot=True,
        verify=("nvidia-smi",),
    )


def _other_release(host: Host) -> list[Finding]:
    """NVIDIA's repositories of another release or distribution than this one, or of two."""
    found: dict[str, AptSource] = {}
    for row in host.apt.sources or ():
        match = re.search(r"/cuda/repos/((?:ubuntu|debian)\d+)/", row.uri)
        if match:
            found.setdefault(match[1], row)
    fitting = f"{host.os.id}{(host.os.version_id or '').replace('.', '')}"
    known = host.os.id in ("ubuntu", "debian") and host.os.version_id is not None
    wrong = {name: row for name, row in found.items() if known and name != fitting}
    if not wrong and len(found) > 1:
        wrong = found
    return [
        warning(
            f"apt source {row.uri}",
            f"NVIDIA's repository {name} is for another release than this system.",
            "Its packages depend on libraries of that release: apt reports unmet dependencies, or mixes two drivers.",
            [(row.file, row.uri), ("/etc/os-release", f"{host.os.id} {host.os.version_id or ''}".strip())],
            command(
                f"Remove it{f'; the one for this system is {fitting}' if known else ''}.",
                *("rm", row.file),
                sudo=True,
                verify=("apt-get", "update"),
            ),
        )
        for name, row in wrong.items()
    ]


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
    ours = [row for row in nvidia_packages(host) if origin(row, host.os.id) == "Ubuntu"]
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
