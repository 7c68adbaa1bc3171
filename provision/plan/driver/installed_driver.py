"""The NVIDIA driver that is already installed, and whether it can be kept."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules import next_boot
from checks.rules.installed import next_module, nvidia_origins
from provision.plan.driver.driver_branch import SUPPORTED_KINDS, is_below, unsuitable_reason
from provision.plan.driver.driver_set import members, tag_of
from provision.plan.driver.kernels import kernel_without_module, version_numbers
from provision.plan.driver.secure_boot import is_enforced
from provision.plan.package_steps import PRESENT, first_names, found
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
        open=_is_open(host, tuple(name for name, _ in vendor or archive)),
        runfile=host.nvidia.runfile is True,
        family=SERVER if not vendor and any((tag_of(name) or "").endswith(SERVER) for name, _ in archive) else "",
    )


def _is_open(host: Host, packages: tuple[str, ...]) -> bool | None:
    """Of the loaded module; else of the one that the next boot loads, by its folder or its packages' names."""
    file = next_boot.module_file(host, "nvidia")
    if host.nvidia.open_module is not None or file is None:
        return host.nvidia.open_module
    return "-open" in file.path or any("-open" in name for name in packages)


def replace_reason(
    host: Host,
    catalogue: Catalogue,
    target: PlanTarget,
    cards: tuple[PlannedCard, ...],
    current: InstalledDriver,
    lowest: str | None,
) -> str | None:
    """Why the driver must be replaced; None when it supports every GPU and is what was requested."""
    waits = current.version is None
    if (failed := next_boot.failed_build(host, "nvidia")) and kernel_without_module(host, "nvidia"):
        return f"DKMS could not build the driver {failed.version} for the kernel {failed.kernel}, and would fail again"
    if waits and not is_waiting(host, catalogue, cards, current):
        return "no NVIDIA kernel module is loaded"
    version = current.version or host.nvidia.library_version or ""
    state = "installed" if waits else "loaded"
    if is_below(version, lowest):
        return f"the {state} driver {version} is older than {lowest}, which training needs"
    row = catalogue.branch(current.branch) if current.branch is not None else None
    if row and (reason := unsuitable_reason(row, current.open, generations(cards))):
        return f"the {state} driver is {version}, but {reason}"
    if host.nvidia.nvml_problem == "absent":
        return f"module {version} is {state}, but its libraries are not installed"
    if mixed := mixture(host):
        return f"the driver's packages come from two sources ({mixed})"
    if host.nvidia.nvml_problem == "mismatch" and next_boot.nvidia_matches(host) is False:
        return (
            f"the module on the disk is {next_boot.module_name(next_module(host))} and the libraries are "
            f"{host.nvidia.library_version}, so a reboot alone does not make them match"
        )
    if target.branch not in (None, current.branch):
        return f"branch {target.branch} was requested and {current.branch} is loaded"
    if target.source is not DriverSource.AUTO and current.source not in (None, target.source):
        return f"the driver's packages are from another source, and the source {target.source.value} was requested"
    return None


def mixture(host: Host) -> str:
    """The sources of the driver's packages, each with an example; empty where there is only one."""
    origins = nvidia_origins(host)
    if len(origins) < 2:
        return ""
    return "; ".join(f"{origin}: {rows[0].name} {rows[0].version}" for origin, rows in sorted(origins.items()))


def is_waiting(host: Host, catalogue: Catalogue, cards: tuple[PlannedCard, ...], current: InstalledDriver) -> bool:
    """Whether the driver is complete and only not running: for a reboot, or because something keeps it off."""
    file = next_boot.module_file(host, "nvidia")
    if file is None or next_boot.nvidia_matches(host) is not True or current.branch is None:
        return False
    if any(package.state not in PRESENT for package in members(host, catalogue)):
        return False
    if any(next_boot.failed_line(host, "nvidia", seen.pci) for seen in cards):
        return False
    built_here = file.origin not in ("prebuilt", "in-tree")
    return not (built_here and is_enforced(host) and host.firmware.mok_key_enrolled is not True)


def unfinished_branch(
    catalogue: Catalogue,
    cards: tuple[PlannedCard, ...],
    current: InstalledDriver,
    lowest: str | None,
    mixed: bool = False,
) -> int | None:
    """The branch whose packages are installed but not loaded, or mixed with others, if it is suitable."""
    number = current.branch if current.version is None or mixed else None
    row = catalogue.branch(number) if number is not None else None
    if row is None or row.kind not in SUPPORTED_KINDS or unsuitable_reason(row, None, generations(cards)):
        return None
    return None if lowest and row.number < version_numbers(lowest)[0] else row.number


def generations(cards: tuple[PlannedCard, ...]) -> frozenset[str]:
    return frozenset(seen.card.generation for seen in cards)
