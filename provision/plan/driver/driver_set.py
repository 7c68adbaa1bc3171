"""The packages that belong to NVIDIA's kernel module: which are installed, and which a new driver replaces."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host, Package
from checks.rules.installed import origin
from provision.model import AptInstall
from provision.plan.package_steps import first_names, found, names
from provision.target import DriverSource

# `nvidia-driver-580-server-open`, `libnvidia-gl-580:i386`, `nvidia-firmware-580-580.173.02`: the first is the branch
_BRANCH = re.compile(r"-([0-9]{3})(-server)?(?=[-:]|$)")
_PREBUILT = re.compile(r"linux-(?:modules|objects|signatures)-nvidia-")
_MODULES = re.compile(r"linux-modules-nvidia-(([0-9]{3})(?:-server)?(?:-open)?)-(.+)")
# NVIDIA's driver versions, which identify its packages without a branch in their names
_VERSION = re.compile(r"(?:[0-9]+:)?([0-9]{3})[.-][0-9]")


# programs beside the driver: those of the other source work with it
_TOOLS = ("nvidia-settings", "nvidia-modprobe", "nvidia-xconfig", "nvidia-persistenced")
ORIGINS = {DriverSource.ARCHIVE: "Ubuntu", DriverSource.NVIDIA: "NVIDIA"}
_ORIGIN_OF = {"ubuntu": "Ubuntu", "nvidia": "NVIDIA"}


class NewDriver(NamedTuple):
    """The driver to install. `tag`: its branch as in package names (`595`, `580-server`)."""

    source: DriverSource
    tag: str
    packages: tuple[str, ...]
    open_module: bool


def members(host: Host, catalogue: Catalogue) -> tuple[Package, ...]:
    """Every installed package of the set, half-configured ones too; other architectures are called `name:i386`."""
    ours, others = names(catalogue, "nvidia.driver-set"), names(catalogue, "nvidia.driver-set.not")
    return tuple(
        package
        for package in host.apt.packages or ()
        if package.state not in ("config-files", "not-installed")
        and any(fnmatchcase(_plain(package.name), pattern) for pattern in ours)
        and not any(fnmatchcase(_plain(package.name), pattern) for pattern in others)
    )


def foreign_packages(host: Host, catalogue: Catalogue, source: DriverSource) -> tuple[Package, ...]:
    """Packages of the set that are known to come from another source than this one."""
    return tuple(
        package
        for package in members(host, catalogue)
        if origin(package, host.os.id) not in (None, ORIGINS[source]) and package.name not in _TOOLS
    )


def is_prebuilt(name: str) -> bool:
    """Whether the package holds Canonical's build of the module for one kernel, or follows such packages."""
    return _PREBUILT.match(name) is not None


def is_from(name: str, version: str, source: str) -> bool:
    """Whether this version of a package may be of `ubuntu` or `nvidia`, by its form."""
    return origin(Package(name=name, version=version, state="installed"), "ubuntu") in (None, _ORIGIN_OF[source])


def replaced_packages(host: Host, catalogue: Catalogue, driver: NewDriver, metas: tuple[str, ...]) -> tuple[str, ...]:
    """Packages of another driver, removed in the new one's transaction: removing its meta package would keep libraries.

    `metas`: keys of meta packages that the new driver does not need. From 590 on, names of NVIDIA's packages have no
    number; before, they are the same as Ubuntu's, so packages of the same branch are replaced by name.
    """
    source, tag, wanted, open_module = driver
    unwanted = {name for name, _ in found(host, first_names(catalogue, metas))} - set(wanted)
    numbered = any(tag_of(name) for name in wanted)
    foreign = {package.name for package in foreign_packages(host, catalogue, source)}
    replaced = []
    for package in members(host, catalogue):
        name, other_tag = package.name, tag_of(package.name)
        if name in wanted:
            continue
        if other_tag is None:
            # NVIDIA's packages have the driver's version and no number; Ubuntu's nvidia-settings has an older version
            is_replaced = source is DriverSource.ARCHIVE and (
                name in foreign or _leading(package.version) in _vendors(host, catalogue)
            )
        elif source is DriverSource.NVIDIA and not numbered:
            is_replaced = not name.startswith("nvidia-driver-pinning")
        else:
            is_replaced = other_tag != tag
        if is_prebuilt(name) and (source is DriverSource.NVIDIA or ("-open" in name) != open_module):
            is_replaced = True
        if is_replaced or name in unwanted:
            replaced.append(name)
    return tuple(replaced)


def tag_of(name: str) -> str | None:
    """`580`, `580-server`; None for a name without a branch."""
    match = _BRANCH.search(name)
    return f"{match[1]}{match[2] or ''}" if match else None


def module_package(action: AptInstall) -> re.Match[str] | None:
    """The first package of prebuilt modules: 1 branch with its family and kind, 2 branch, 3 kernel or its flavour."""
    return next((match for wanted in action.packages if (match := _MODULES.fullmatch(wanted.name))), None)


def i386_packages(host: Host, catalogue: Catalogue, tag: str) -> tuple[str, ...]:
    """32-bit libraries for the driver `tag`: those that are installed for another driver, or that Steam needs."""
    there = tuple(
        dict.fromkeys(
            _BRANCH.sub(f"-{tag}", package.name, count=1)
            for package in members(host, catalogue)
            if package.name.endswith(":i386") and tag_of(package.name)
        )
    )
    if there:
        return there
    patterns = names(catalogue, "needs-i386")
    asks = any(
        fnmatchcase(package.name, pattern)
        for package in host.apt.packages or ()
        for pattern in patterns
        if package.state == "installed"
    )
    return catalogue.package("nvidia.archive.i386").fill(branch=tag) if asks else ()


def _vendors(host: Host, catalogue: Catalogue) -> frozenset[str]:
    """Branches of NVIDIA's packages that are installed."""
    keys = ("nvidia.repo.pinning", "nvidia.repo.desktop.open", "nvidia.repo.desktop.proprietary")
    there = {name for name, _ in found(host, first_names(catalogue, keys))}
    return frozenset(_leading(package.version) for package in members(host, catalogue) if package.name in there) - {""}


def _leading(version: str) -> str:
    match = _VERSION.match(version)
    return match[1] if match else ""


def _plain(name: str) -> str:
    return name.partition(":")[0]
