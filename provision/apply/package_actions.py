"""Packages: what a transaction would change, the state before it, the transaction, and the repair of a failed one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from machine.errors import OutsideFailed, Problem, Refused
from machine.events import Event
from provision.apply_context import ApplyContext
from provision.model import AptHold, AptInstall, AptMark, AptRemove, DpkgRepair, WantedPackage
from provision.plan.driver.driver_set import is_from
from provision.plan.package_steps import is_older
from provision.system import apt, apt_errors, dpkg, system_files
from provision.system.apt_simulation import AptChange

ARCHIVES = Path("/var/cache/apt/archives")


class PackageChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a transaction will change, for the journal and the rollback. `auto`, `manual`: apt's marks before it.

    `configured`: packages to install whose settings files exist from an earlier installation.
    """

    install: dict[str, str] = msgspec.field(default_factory=dict)
    upgrade: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    remove: dict[str, str] = msgspec.field(default_factory=dict)
    auto: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()


def is_installed(action: AptInstall, context: ApplyContext) -> bool:
    """Every wanted package works, none of those to remove is installed, and dpkg was not interrupted.

    A forbidden package may have been installed before for another purpose (dkms): this transaction must not install it.
    """
    found = dpkg.read(context.machine)
    there = found.installed_versions()
    exact = action.files or action.upgrade
    return (
        not found.interrupted
        and all(_is_sufficient(wanted, found.version(wanted.name)) for wanted in action.packages)
        and (not exact or all(found.version(w.name) == w.version for w in action.packages if w.version))
        and not any(name in there for name in action.remove)
        and all(_is_of_source(wanted, found.version(wanted.name), action.one_source) for wanted in action.packages)
    )


def _is_of_source(wanted: WantedPackage, version: str | None, source: str | None) -> bool:
    return source is None or version is None or is_from(wanted.name, version, source)


def _is_sufficient(wanted: WantedPackage, version: str | None) -> bool:
    return version is not None and (wanted.at_least is None or not is_older(version, wanted.at_least))


def is_removed(action: AptRemove, context: ApplyContext) -> bool:
    there = dpkg.read(context.machine).installed_versions()
    return not any(name in there for name in action.packages)


def is_marked(action: AptMark, context: ApplyContext) -> bool:
    found = dpkg.read(context.machine)
    there = found.installed_versions()
    return all(name in found.auto for name in action.auto if name in there) and not any(
        name in found.auto for name in action.manual if name in there
    )


def is_held(action: AptHold, context: ApplyContext) -> bool:
    found = dpkg.read(context.machine)
    wanted = {name for name in action.packages if name in found.records}
    return wanted <= found.held_packages() if action.change == "hold" else not wanted & found.held_packages()


def is_repaired(action: DpkgRepair, context: ApplyContext) -> bool:
    found = dpkg.read(context.machine)
    unfinished = set(found.broken_packages()) - set(action.leaving)
    return not found.interrupted and not unfinished and not half_installed(action, found)


def half_installed(action: DpkgRepair, found: dpkg.DpkgDatabase) -> tuple[str, ...]:
    """Of the packages that a later step removes, those that dpkg wants to be reinstalled first."""
    rows = ((name, found.records.get(name)) for name in action.leaving)
    return tuple(name for name, record in rows if record is not None and record.state == "half-installed")


def install_arguments(action: AptInstall) -> tuple[str, ...]:
    names = action.files or tuple(wanted.name for wanted in action.packages)
    extra = ("--allow-downgrades",) if action.files or action.one_source else ()
    return (*extra, "install", *names, *(f"{name}-" for name in action.remove))


def packages_before_install(action: AptInstall, context: ApplyContext) -> PackageChanges:
    """Ask apt what it would do, and refuse what was not approved. Keeps the package files of what is replaced.

    The package lists are updated if they are old, or older than those that the plan used.
    """
    read = not action.files and apt.are_lists_stale(context.machine, apt.FRESH_SECONDS, context.lists_stamp)
    if read:
        _read_lists(context)
    change = apt.simulate(context, install_arguments(action))
    if not action.files and not read and _other_versions(action, change):
        _read_lists(context)
        change = apt.simulate(context, install_arguments(action))
    if others := _other_versions(action, change):
        context.emit(Event("note", context.stage, f"the archive has newer versions than the plan: {', '.join(others)}"))
    if slipped := change.matching(action.forbid):
        raise Refused(
            "apply.forbidden-package",
            f"{context.title}: not started, because apt would also install {', '.join(slipped)}.",
            "This plan installs the prebuilt, signed module; a module built on this machine would replace it.",
            "gpu-setup plan shows what the archive offers now; run sudo apt-get update first if its lists are old.",
        )
    agreed = {*action.remove, *action.removes}
    if surprise := sorted(name for name in change.removes if name not in agreed):
        raise Refused(
            "apply.removes-more",
            f"{context.title}: not started, because apt would remove {', '.join(surprise[:8])}.",
            "The plan did not list this, and nothing is removed without approval.",
            "gpu-setup plan -v shows the current plan; if apt is right, remove the packages yourself first.",
        )
    return _packages_before(change, tuple(wanted.name for wanted in action.packages), context)


def _read_lists(context: ApplyContext) -> None:
    context.emit(Event("progress", context.stage, "updating the package lists"))
    apt.update(context)


def _other_versions(action: AptInstall, change: AptChange) -> tuple[str, ...]:
    """Wanted packages of which apt would now install another version than the plan names."""
    pairs = ((wanted, change.version(wanted.name) or wanted.installed) for wanted in action.packages)
    return tuple(f"{wanted.name} {now}" for wanted, now in pairs if wanted.version and now and now != wanted.version)


def packages_before_remove(action: AptRemove, context: ApplyContext) -> PackageChanges:
    there = dpkg.read(context.machine).installed_versions()
    names = tuple(name for name in action.packages if name in there)
    change = apt.simulate(context, ("remove", *names)) if names else AptChange({}, {}, {})
    if surprise := sorted(name for name in change.removes if name not in {*action.packages, *action.removes}):
        raise Refused(
            "apply.removes-more",
            f"{context.title}: not started, because apt would also remove {', '.join(surprise[:8])}.",
            "They depend on what is removed, and the plan did not list them.",
            "gpu-setup plan -v shows the current plan; if apt is right, remove them yourself first.",
        )
    return _packages_before(change, (), context)


def _packages_before(change: AptChange, named: tuple[str, ...], context: ApplyContext) -> PackageChanges:
    found = dpkg.read(context.machine)
    touched = {*named, *change.upgrades, *change.removes}
    _keep_archives({**change.removes, **{name: old for name, (old, _) in change.upgrades.items()}}, context)
    return PackageChanges(
        install=change.installs,
        upgrade=change.upgrades,
        remove=change.removes,
        auto=tuple(sorted(name for name in touched if name in found.auto)),
        manual=tuple(sorted(name for name in touched if name in found.records and name not in found.auto)),
        held=tuple(sorted(found.held_packages())),
        configured=tuple(sorted(name for name in change.installs if name in packages_with_settings_only(found))),
    )


def packages_with_settings_only(found: dpkg.DpkgDatabase) -> frozenset[str]:
    """Packages that were removed and not purged, so their settings files remain."""
    return frozenset(name for name, record in found.records.items() if record.state == "config-files")


def _needs_settings_again(arguments: tuple[str, ...], context: ApplyContext) -> bool:
    """Whether a package would be installed without its settings files, because dpkg assumes that a person deleted them.

    This happens after a rollback, which removes the settings files together with their packages.
    """
    removed, known = packages_with_settings_only(dpkg.read(context.machine)), dpkg.conffiles(context.machine)
    lost = {name for name in removed if any(system_files.read_current(path) is None for path in known.get(name, ()))}
    return bool(lost) and bool(lost & apt.simulate(context, arguments).installs.keys())


def _keep_archives(versions: dict[str, str], context: ApplyContext) -> None:
    """Keep the available package files of what is replaced or removed: archives keep only the newest version."""
    missing = [(name, version) for name, version in versions.items() if kept_archive(name, version, context) is None]
    if not missing:
        return
    context.archives.mkdir(parents=True, exist_ok=True, mode=0o755)
    wanted = []
    for name, version in missing:
        cached = next(iter(ARCHIVES.glob(_archive_name(name, version))), None)
        if cached is not None:
            (context.archives / cached.name).write_bytes(cached.read_bytes())
        else:
            wanted.append(f"{name}={version}")
    for each in wanted:
        argv = ("apt-get", *apt.OPTIONS, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=0", "download", each)
        context.machine.stream(
            argv, lambda _line: None, env={**apt.ENVIRONMENT, **context.environ}, cwd=str(context.archives)
        )


def kept_archive(name: str, version: str, context: ApplyContext) -> str | None:
    """Path of the kept package file, if there is one."""
    found = next(iter(context.archives.glob(_archive_name(name, version))), None) if context.archives.is_dir() else None
    return str(found) if found is not None else None


def _archive_name(name: str, version: str) -> str:
    # apt writes the epoch's colon as %3a; the architecture comes last
    plain, _, arch = name.partition(":")
    return f"{plain}_{version.replace(':', '%3a')}_{arch or '*'}.deb"


def install(action: AptInstall, context: ApplyContext) -> None:
    """One transaction. A failed one is undone until dpkg is in order again, then its problem is raised."""
    arguments = install_arguments(action)
    had = dpkg.read(context.machine).installed_versions()
    options = apt.MISSING_SETTINGS if _needs_settings_again(arguments, context) else ()
    try:
        apt.transaction(context, (*options, *arguments))
    except Problem as problem:
        _recover(context, had)
        raise problem


def remove(action: AptRemove, context: ApplyContext) -> None:
    there = dpkg.read(context.machine).installed_versions()
    names = tuple(name for name in action.packages if name in there)
    if names:
        apt.transaction(context, ("remove", *names))


def mark(action: AptMark, context: ApplyContext) -> None:
    there = dpkg.read(context.machine).installed_versions()
    for kind, names in (("auto", action.auto), ("manual", action.manual)):
        present = tuple(name for name in names if name in there)
        if present:
            _tool(context, ("apt-mark", kind, *present))


def hold(action: AptHold, context: ApplyContext) -> None:
    _tool(context, ("apt-mark", action.change, *action.packages))


def repair(action: DpkgRepair, context: ApplyContext) -> None:
    """Configure what is unfinished; then, if needed, apt installs what is missing and removes nothing unapproved.

    Packages that a later step removes are left out: their scripts failed before. apt refuses all work while one of them
    is half-installed, and such a package has no files to lose: it is removed here.
    """
    found = dpkg.read(context.machine)
    pending = tuple(name for name in found.broken_packages() if name not in action.leaving)
    names = pending if action.leaving and not found.interrupted else ("-a",)
    argv = ("dpkg", "--configure", "--force-confdef", "--force-confold", *names)
    outcome = apt.call(context, argv) if names else None
    if stuck := half_installed(action, found):
        apt.call(context, ("dpkg", "--remove", "--force-remove-reinstreq", "--force-depends", *stuck))
    if is_repaired(action, context):
        return
    change = apt.simulate(context, ("--fix-broken", "install"))
    broken = set(dpkg.read(context.machine).broken_packages())
    if surprise := sorted(name for name in change.removes if name not in broken | set(action.leaving)):
        raise Refused(
            "apply.removes-more",
            f"{context.title}: apt would remove {', '.join(surprise[:8])} to get dpkg in order.",
            "Nothing is removed without approval.",
            "Check it by hand: sudo apt-get --fix-broken install",
        )
    if not change.empty:
        apt.transaction(context, ("--fix-broken", "install"))
    if not is_repaired(action, context):
        outcome = outcome or apt.call(context, ("dpkg", "--audit"))
        failed = apt_errors.apt_problem(argv, outcome._replace(rc=outcome.rc or 1), context.title)
        names = dpkg.read(context.machine).broken_packages()
        command = f"sudo apt-get remove {' '.join(names)}"
        failed.next = f"Repair or remove {', '.join(names)} ({command}), then: gpu-setup apply"
        raise failed


def _recover(context: ApplyContext, had: dict[str, str]) -> None:
    """Repair dpkg: finish what can be finished, remove what this transaction installed and cannot configure."""
    if not dpkg.read(context.machine).broken_packages() and not dpkg.read(context.machine).interrupted:
        return
    context.emit(Event("note", context.stage, "finishing the interrupted dpkg run"))
    apt.call(context, ("dpkg", "--configure", "-a", "--force-confdef", "--force-confold"))
    found = dpkg.read(context.machine)
    if all(name in had for name in found.broken_packages()):
        return
    # the whole transaction: a driver without its module, or a module without its driver, is worse than neither
    unfinished = set(found.installed_versions()) - set(had) | set(found.broken_packages()) - set(had)
    context.emit(
        Event(
            "note",
            context.stage,
            f"removing {', '.join(sorted(unfinished))}, because not all of them can be configured",
        )
    )
    argv = ("dpkg", "--remove", "--force-remove-reinstreq", *sorted(unfinished))
    if not apt.call(context, argv).ok:
        apt.call(context, ("dpkg", "--remove", "--force-remove-reinstreq", "--force-depends", *sorted(unfinished)))


def _tool(context: ApplyContext, argv: tuple[str, ...]) -> None:
    outcome = context.machine.run(argv, timeout=60, env=apt.ENVIRONMENT)
    if not outcome.ok:
        raise OutsideFailed(
            "apt.mark", f"{' '.join(argv[:2])} failed.", (outcome.stderr or outcome.problem).strip()[:300], ""
        )
