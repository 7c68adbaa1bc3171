"""Where NVIDIA's driver comes from: one archive, of this release, and none that replaces it."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import AptSource, Host, Package
from checks.model import Finding, Fix, Ok, Verdict, check
from checks.rules import needs
from checks.rules.finding import by_hand, cannot_determine, command, error, provision, warning
from checks.rules.installed import next_module, nvidia_origins, nvidia_packages, origin
from checks.rules.other_systems import plan_supports

_DPKG = "/var/lib/dpkg/status"
# Ubuntu's and the PPA's packages, and NVIDIA's up to 580, have the branch in their names: libnvidia-compute-580
_BRANCH = r"-([0-9]{3})(?=-|:|$)"


@check(
    "apt.mixed-sources",
    "The NVIDIA driver comes from one archive",
    about="Ubuntu, NVIDIA and the PPA split the same driver into different packages. If they are mixed, apt reports "
    "`held broken packages`, or module and library have different versions. The source is recognised by the format of "
    "the package versions.",
    by_hand="Choose one source. `dpkg -l '*nvidia*'` shows the versions; remove the driver packages of the other "
    "source (`sudo apt-get remove`), disable its repository, and install the rest again in one command.",
    needs=(needs.DPKG, needs.NVIDIA_CARD),
)
def mixed_sources(host: Host, catalogue: Catalogue) -> Verdict:
    if host.apt.packages is None:
        return cannot_determine(
            host, "which archive the driver packages come from", ("dpkg",), "Make /var/lib/dpkg/status readable."
        )
    origins = nvidia_origins(host)
    findings = [*_other_release(host), *([_mixed(host, catalogue, origins)] if len(origins) > 1 else [])]
    if findings:
        return tuple(findings)
    return Ok(
        f"All driver packages come from {next(iter(origins))}." if origins else "No NVIDIA driver package is installed."
    )


def _mixed(host: Host, catalogue: Catalogue, origins: dict[str, list[Package]]) -> Finding:
    foreign = foreign_packages(host)
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
        remove_foreign(host, catalogue, foreign),
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


def foreign_packages(host: Host) -> tuple[Package, ...]:
    """The driver packages of the archives that are not kept; empty where all come from one."""
    kept = _kept_origin(host)
    return tuple(row for name, rows in nvidia_origins(host).items() if name != kept for row in rows)


def remove_foreign(host: Host, catalogue: Catalogue, foreign: tuple[Package, ...]) -> Fix:
    """One source for the whole driver: apt does it in one step, unless a package is incomplete, or has a name that the
    kept source has too: removing such a package would remove the driver that needs it."""
    kept = _kept_origin(host)
    driver = next((row.name for row in nvidia_origins(host).get(kept or "", ()) if "nvidia-driver" in row.name), None)
    names = tuple(row.name for row in foreign)
    keep = f"Keep the driver of {kept}, which has the kernel module, and remove the packages of the other source"
    branches = {branch for row in nvidia_origins(host).get(kept or "", ()) for branch in re.findall(_BRANCH, row.name)}
    if shared := [row.name for row in foreign if branches.intersection(re.findall(_BRANCH, row.name))]:
        return _replace_foreign(host, catalogue, kept, shared)
    pin = "If the other repository would win again, pin it first (apt.repo-wins)."
    if driver and all(row.state == "installed" for row in foreign):
        return command(
            f"{keep}: both in one command, and read what apt is going to do. {pin}",
            *("apt-get", "install", driver, *(f"{name}-" for name in names)),
            sudo=True,
            reboot=True,
        )
    then = f" and `sudo apt-get install --reinstall {driver}`" if driver else ""
    return command(
        f"{keep}. apt refuses while they are incomplete, so dpkg removes them; then run `sudo apt-get --fix-broken "
        f"install`{then}. {pin}",
        *("dpkg", "--remove", "--force-depends", "--force-remove-reinstreq", *names),
        sudo=True,
        reboot=True,
    )


def _replace_foreign(host: Host, catalogue: Catalogue, kept: str | None, shared: list[str]) -> Fix:
    names = " and ".join(shared[:4])
    if plan_supports(host, catalogue):
        return provision(
            f"Run `gpu-setup apply`: it keeps the driver of {kept}, which has the kernel module, and replaces {names} "
            f"by the versions of {kept}, in one transaction.",
            reboot=True,
        )
    return by_hand(
        f"Keep the driver of {kept}, which has the kernel module, and replace {names} by its versions: `apt-cache "
        f"policy {shared[0]}` lists them, `sudo apt-get install --allow-downgrades {shared[0]}=VERSION` installs one. "
        "Name all of them in one command, then reboot."
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
            "Its packages have a higher priority than Ubuntu's. They build modules with DKMS, which Secure Boot, where "
            "it is on, refuses.",
            [(theirs[0].file, theirs[0].uri), (_DPKG, f"{ours[0].name} {ours[0].version}")],
            provision("Run `gpu-setup apply` to pin that repository's driver packages to -1."),
        ),
    )
