"""Rollback of packages: remove what was added, reinstall what was replaced or removed, restore marks. Never purges."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from checks.facts.host import Host
from provision.apply.journal import JournalEntry
from provision.apply.package_actions import PackageChanges, kept_archive
from provision.apply_context import ApplyContext
from provision.model import AptInstall, AptMark, AptRemove, KernelModule, State, Step, WantedPackage
from provision.system import dpkg

# the packages that make a kernel bootable, by the release in their names
_KERNEL = re.compile(r"linux-(?:image|image-unsigned|modules|modules-extra)-([0-9][0-9a-z.~+-]*)")


def added_packages(started_entries: tuple[JournalEntry, ...]) -> frozenset[str]:
    """Packages that were not installed before the first of these entries, and had no settings files here."""
    changes = [
        msgspec.convert(entry.facts["packages"], PackageChanges)
        for entry in started_entries
        if "packages" in entry.facts
    ]
    before, _, _ = first_state(started_entries)
    known = {name for change in changes[:1] for name in change.configured}
    seen = {name for change in changes[:1] for name in change.install}
    for change in changes[1:]:
        known |= set(change.configured) - seen
        seen |= set(change.install)
    return frozenset(name for name, version in before.items() if version is None) - known


def first_state(
    started_entries: tuple[JournalEntry, ...],
) -> tuple[dict[str, str | None], dict[str, str], dict[str, bool]]:
    """Of every changed package: its version before (None: not installed), our version, and its mark before (auto)."""
    before: dict[str, str | None] = {}
    ours: dict[str, str] = {}
    auto: dict[str, bool] = {}
    for entry in started_entries:
        if "packages" not in entry.facts:
            continue
        change = msgspec.convert(entry.facts["packages"], PackageChanges)
        for name, version in change.install.items():
            before.setdefault(name, None)
            ours[name] = version
        for name, (old, new) in change.upgrade.items():
            before.setdefault(name, old)
            ours[name] = new
        for name, version in change.remove.items():
            before.setdefault(name, version)
        for name in change.auto:
            auto.setdefault(name, True)
        for name in change.manual:
            auto.setdefault(name, False)
    return before, ours, auto


def kept_kernels(removed: frozenset[str], host: Host) -> frozenset[str]:
    """Packages of the running kernel, and of the newest kernel if no other would be left to boot."""
    releases = {name: match[1] for name in removed if (match := _KERNEL.fullmatch(name))}
    images = {release for name, release in releases.items() if name.startswith("linux-image")}
    safe = {host.kernel.release}
    installed = host.kernel.installed or ()
    if not set(installed) - images:
        safe |= set(installed[-1:])
    return frozenset(name for name, release in releases.items() if release in safe)


def package_steps(
    started_entries: tuple[JournalEntry, ...],
    database: dpkg.DpkgDatabase,
    host: Host,
    context: ApplyContext,
    notes: list[str],
) -> list[Step]:
    before, ours, auto = first_state(started_entries)
    installed = database.installed_versions()
    added = frozenset(name for name, version in before.items() if version is None and name in installed)
    kernels = kept_kernels(added, host)
    removed = dpkg.removable(added - kernels, database)
    needed = sorted(added - kernels - removed - {name for name in added if _needed_by_kernel(name, kernels, database)})
    if needed:
        notes.append(f"{', '.join(needed)} was installed by gpu-setup and is kept: other packages need it now.")
    restored: dict[str, tuple[str, str]] = {}
    for name, version in before.items():
        if version is None or installed.get(name) == version:
            continue
        if name in installed and installed[name] != ours.get(name):
            notes.append(f"{name} has version {installed[name]}, which gpu-setup did not install: it is kept.")
            continue
        archive = kept_archive(name, version, context)
        if archive is not None:
            restored[name] = (version, archive)
        elif name in installed:
            notes.append(
                f"{name} keeps version {installed[name]}: the package file of {version} was no longer available."
            )
        else:
            notes.append(f"{name} {version} was removed and its package file was not kept: sudo apt-get install {name}")
    steps = []
    if restored:
        steps.append(_reinstall(restored, removed))
    elif removed:
        steps.append(_remove(tuple(sorted(removed))))
    if kernels:
        steps.append(_keep_kernel(kernels, host))
    marks = _marks(auto, before, removed, database)
    return [*steps, *marks]


def _needed_by_kernel(name: str, kernels: frozenset[str], database: dpkg.DpkgDatabase) -> bool:
    waiting, seen = list(kernels), set(kernels)
    while waiting:
        record = database.records.get(waiting.pop())
        for needed in dpkg.needs(record) if record else ():
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    return name in seen


def _remove(names: tuple[str, ...]) -> Step:
    return Step(
        id="packages-remove",
        title=f"Remove the {len(names)} packages that gpu-setup installed",
        action=AptRemove(packages=names),
        state=State.TODO,
        because="They were not installed before. Removed, not purged: settings and data are kept.",
        commands=(("apt-get", "remove", "--yes", *names),),
        undo="gpu-setup apply installs them again",
    )


def _reinstall(restored: Mapping[str, tuple[str, str]], removed: frozenset[str]) -> Step:
    names = tuple(sorted(restored))
    archives = tuple(restored[name][1] for name in names)
    return Step(
        id="packages-restore",
        title=f"Restore {len(names)} packages" + (f" and remove {len(removed)}" if removed else ""),
        action=AptInstall(
            packages=tuple(WantedPackage(name=name, version=restored[name][0]) for name in names),
            remove=tuple(sorted(removed)),
            files=archives,
        ),
        state=State.TODO,
        because="Their package files were kept before they were replaced or removed, so no network is needed.",
        commands=(
            ("apt-get", "install", "--yes", "--allow-downgrades", *archives, *(f"{name}-" for name in sorted(removed))),
        ),
        undo="gpu-setup apply changes them again",
    )


def _keep_kernel(kernels: frozenset[str], host: Host) -> Step:
    return Step(
        id="kernel-stays",
        title=f"Boot an older kernel, then roll back again: {host.kernel.release or 'this one'} is kept for now",
        action=KernelModule(name=", ".join(sorted(kernels)), change="keep", file=""),
        state=State.MANUAL,
        because="The running kernel, and the last one that can boot, is never removed. Hold Esc while the machine "
        "boots, choose Advanced options and an older kernel; then: gpu-setup rollback",
    )


def _marks(
    auto: Mapping[str, bool], before: Mapping[str, str | None], removed: frozenset[str], database: dpkg.DpkgDatabase
) -> list[Step]:
    installed = database.installed_versions()
    kept = [name for name, version in before.items() if version is not None] + [
        name for name in auto if name not in before
    ]
    to_auto = tuple(sorted({name for name in kept if auto.get(name) is True and name in installed} - database.auto))
    to_manual = tuple(sorted({name for name in kept if auto.get(name) is False} & database.auto - removed))
    if not (to_auto or to_manual):
        return []
    commands = tuple(("apt-mark", kind, *names) for kind, names in (("auto", to_auto), ("manual", to_manual)) if names)
    return [
        Step(
            id="package-marks",
            title="Restore apt's marks: installed by request, or as a dependency",
            action=AptMark(auto=to_auto, manual=to_manual),
            state=State.TODO,
            because="These marks decide what apt's autoremove removes.",
            commands=commands,
        )
    ]
