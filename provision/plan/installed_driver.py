"""The NVIDIA driver that is already installed, and whether it can be kept."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from provision.plan.driver_branch import SUPPORTED_KINDS, is_below, unsuitable_reason
from provision.plan.driver_set import tag_of
from provision.plan.kernels import version_numbers
from provision.plan.package_steps import first_names, found
from provision.plan.plan_cards import PlannedCard
from provision.target import DriverSource, PlanTarget

DESKTOP = ("nvidia.archive.desktop.open", "nvidia.archive.desktop.proprietary")
HEADLESS = ("nvidia.archive.headless.open", "nvidia.archive.headless.proprietary")
ARCHIVE = (*DESKTOP, *HEADLESS)
SERVER = "-server"
VENDOR = ("nvidia.repo.pinning", "nvidia.repo.desktop.open", "nvidia.repo.desktop.proprietary")


class InstalledDriver(NamedTuple):
    """`packages`: its meta packages; `version`: of the loaded module; `runfile`: from NVIDIA's .run file.

    `family`: `-server` for Ubuntu's packages of that name, which get separate updates; empty for the others.
    """

    source: DriverSource | None
    branch: int | None
    packages: tuple[str, ...]
    version: str | None
    open: bool | None
    runfile: bool
    family: str = ""


def installed_driver(host: Host, catalogue: Catalogue) -> InstalledDriver:
    """From dpkg's database and the loaded module."""
    vendor = found(host, first_names(catalogue, VENDOR))
    archive = found(host, first_names(catalogue, ARCHIVE))
    version = host.nvidia.module_version
    packaged = [branch for _, branch in vendor or archive if branch is not None]
    return InstalledDriver(
        source=DriverSource.NVIDIA if vendor else DriverSource.ARCHIVE if archive else None,
        branch=version_numbers(version)[0] if version and version_numbers(version) else max(packaged, default=None),
        packages=tuple(name for name, _ in vendor or archive),
        version=version,
        open=host.nvidia.open_module,
        runfile=host.nvidia.runfile is True,
        family=SERVER if not vendor and any((tag_of(name) or "").endswith(SERVER) for name, _ in archive) else "",
    )


def replace_reason(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    current: InstalledDriver,
    lowest: str | None,
) -> str | None:
    """Why the loaded driver must be replaced; None when it supports every GPU and is what was requested."""
    if current.version is None:
        return "no NVIDIA kernel module is loaded"
    if is_below(current.version, lowest):
        return f"the loaded driver {current.version} is older than {lowest}, which training needs"
    row = catalogue.branch(current.branch) if current.branch is not None else None
    if row and (reason := unsuitable_reason(row, current.open, generations(cards))):
        return f"the loaded driver is {current.version}, but {reason}"
    if host.nvidia.nvml_problem == "absent":
        return f"module {current.version} is loaded, but its libraries are not installed"
    if target.branch not in (None, current.branch):
        return f"branch {target.branch} was requested and {current.branch} is loaded"
    if target.source is not DriverSource.AUTO and current.source not in (None, target.source):
        return f"the driver's packages are from another source, and the source {target.source.value} was requested"
    return None


def unfinished_branch(
    catalogue: Catalogue, cards: tuple[PlannedCard, ...], current: InstalledDriver, lowest: str | None
) -> int | None:
    """The branch whose packages are installed but not loaded, if it is suitable: its installation is finished."""
    row = catalogue.branch(current.branch) if current.version is None and current.branch is not None else None
    if row is None or row.kind not in SUPPORTED_KINDS or unsuitable_reason(row, None, generations(cards)):
        return None
    return None if lowest and row.number < version_numbers(lowest)[0] else row.number


def generations(cards: tuple[PlannedCard, ...]) -> frozenset[str]:
    return frozenset(seen.card.generation for seen in cards)
