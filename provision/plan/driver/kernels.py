"""Which kernels a driver must work with: meta packages, which follow updates, and releases without a meta package."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.plan.package_steps import PRESENT, names


def version_numbers(version: str) -> tuple[int, ...]:
    """`6.17.0-14-generic` and `6.17.0-14.14~24.04.1` → (6, 17, 0, 14, …): versions are never compared as text."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version))


def at_least(version: str, floor: str) -> bool:
    return version_numbers(version) >= version_numbers(floor)


def flavours(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    """Flavours of the installed kernel meta packages (`generic`, `oem-24.04` …), as dpkg lists them."""
    return tuple(flavour for flavour, _ in _metas(host, catalogue))


def kernels_to_cover(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    """What to put for {flavour} so that the running and the next kernel have a module, now and after updates.

    The flavour of each installed meta package; and the exact release of a kernel that runs now or boots next and is not
    in the series of a meta package. Empty: neither the packages nor the running release could be read.
    """
    metas = _metas(host, catalogue)
    series = {version_numbers(version)[:3] for _, version in metas}
    alone = [
        release
        for release in (host.kernel.release, host.kernel.next_boot)
        if release and version_numbers(release)[:3] not in series
    ]
    return tuple(dict.fromkeys([*(flavour for flavour, _ in metas), *alone]))


def _metas(host: Host, catalogue: Catalogue) -> tuple[tuple[str, str], ...]:
    """(flavour, version) of each installed `linux-image-FLAVOUR`; `linux-image-6.8…` and `-unsigned-…` are none."""
    prefixes = tuple(name.partition("{flavour}")[0] for name in names(catalogue, "kernel.image", flavour="{flavour}"))
    return tuple(
        (package.name.removeprefix(prefix), package.version)
        for package in host.apt.packages or ()
        if package.state in PRESENT
        for prefix in prefixes
        if package.name.startswith(prefix) and re.match(r"(?!unsigned|extra)[a-z]", package.name.removeprefix(prefix))
    )


def kernel_without_module(host: Host, module: str) -> str | None:
    """The release that boots next, if it is known to have no file for this module; None otherwise or not known."""
    kernel = host.kernel
    if kernel.modules is None or kernel.next_boot is None:
        return None
    have = {found.kernel for found in kernel.modules if found.name == module}
    return kernel.next_boot if kernel.next_boot not in have else None


def next_release(host: Host) -> str | None:
    return host.kernel.next_boot or host.kernel.release
