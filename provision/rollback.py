"""The way back as a plan: from what the journal says was there, and what is there now. Removes, never purges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from checks.facts.host import Host
from provision import act_files, dpkg, files, keys
from provision.act_packages import Packages, kept_archive
from provision.act_system import ON, memberships, served
from provision.files import Before
from provision.journal import Entry, Journal, Run, now
from provision.model import (
    AptHold,
    AptInstall,
    AptKey,
    AptMark,
    AptPin,
    AptRemove,
    AptRepo,
    DpkgRepair,
    KernelModule,
    Plan,
    RestoreFile,
    Service,
    State,
    Step,
    UserGroup,
    Wanted,
    WriteFile,
    sealed,
)
from provision.plan import host_digest
from provision.site import Site
from provision.target import Target

# the packages that make a kernel bootable, by the release in their names
_KERNEL = re.compile(r"linux-(?:image|image-unsigned|modules|modules-extra)-([0-9][0-9a-z.~+-]*)")
ENGINES = ("docker.io", "docker-ce")
RESTART = "Restart afterwards: what is loaded now goes only then, and what was there before comes back."


def plan_back(entries: tuple[Entry, ...], host: Host, site: Site) -> Plan:
    """What would bring the machine back to before the first of these entries. Changes nothing."""
    begun = tuple(entry for entry in entries if entry.phase == "begin" and entry.kind != "rollback" and entry.action)
    database = dpkg.read(site.machine)
    notes: list[str] = []
    steps: list[Step] = []
    if database.interrupted or database.broken():
        steps.append(_repair())
    steps += _services(begun, site)
    steps += _packages(begun, database, host, site, notes)
    going = {
        name
        for step in steps
        if isinstance(step.action, (AptRemove, AptInstall))
        for name in (step.action.packages if isinstance(step.action, AptRemove) else step.action.remove)
    }
    engine = _has_docker(site) and not going & set(ENGINES)
    steps += _files(entries, begun, site, engine)
    steps += _groups(begun, site)
    steps += _holds(begun, database)
    if any(step.state is State.TODO and isinstance(step.action, (AptRemove, AptInstall)) for step in steps):
        notes.append(RESTART)
    return sealed(
        Plan(
            machine=host.machine,
            vendor=None,
            target=Target(),
            steps=tuple(steps),
            reboots=0,
            download_bytes=0,
            download_note="Nothing is to be fetched.",
            refusals=(),
            notes=tuple(notes),
            host_digest=host_digest(host),
        )
    )


def close(journal: Journal, run: Run) -> None:
    """Everything is as it was: the next apply begins a new account."""
    journal.write(Entry(time=now(), run=run.run, kind="rollback", phase="end"))
    (journal.place / "request.json").unlink(missing_ok=True)


def first_state(begun: tuple[Entry, ...]) -> tuple[dict[str, str | None], dict[str, str], dict[str, bool]]:
    """Of every package that was touched: its version before (None: not there), ours, and its mark before (auto)."""
    before: dict[str, str | None] = {}
    ours: dict[str, str] = {}
    auto: dict[str, bool] = {}
    for entry in begun:
        if "packages" not in entry.facts:
            continue
        change = msgspec.convert(entry.facts["packages"], Packages)
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


def kept_kernels(going: frozenset[str], host: Host) -> frozenset[str]:
    """Packages of the running kernel, and of the newest one if none would be left to start."""
    releases = {name: match[1] for name in going if (match := _KERNEL.fullmatch(name))}
    images = {release for name, release in releases.items() if name.startswith("linux-image")}
    safe = {host.kernel.release}
    installed = host.kernel.installed or ()
    if not set(installed) - images:
        safe |= set(installed[-1:])
    return frozenset(name for name, release in releases.items() if release in safe)


def _packages(
    begun: tuple[Entry, ...], database: dpkg.Database, host: Host, site: Site, notes: list[str]
) -> list[Step]:
    before, ours, auto = first_state(begun)
    there = database.present()
    added = frozenset(name for name, version in before.items() if version is None and name in there)
    kernels = kept_kernels(added, host)
    going = dpkg.removable(added - kernels, database)
    needed = sorted(added - kernels - going - {name for name in added if _needed_by_kernel(name, kernels, database)})
    if needed:
        notes.append(f"{', '.join(needed)} came with gpu-setup and stays: other packages need it by now.")
    files_back: dict[str, tuple[str, str]] = {}
    for name, version in before.items():
        if version is None or there.get(name) == version:
            continue
        if name in there and there[name] != ours.get(name):
            notes.append(f"{name} is {there[name]}, which is not what gpu-setup installed: it stays.")
            continue
        archive = kept_archive(name, version, site)
        if archive is not None:
            files_back[name] = (version, archive)
        elif name in there:
            notes.append(f"{name} stays {there[name]}: its package file {version} was not to be had any more.")
        else:
            notes.append(f"{name} {version} was removed and its package file is not here: sudo apt-get install {name}")
    steps = []
    if files_back:
        steps.append(_reinstall(files_back, going))
    elif going:
        steps.append(_remove(tuple(sorted(going))))
    if kernels:
        steps.append(_kernel_stays(kernels, host))
    marks = _marks(auto, before, going, database)
    return [*steps, *marks]


def _needed_by_kernel(name: str, kernels: frozenset[str], database: dpkg.Database) -> bool:
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
        title=f"Remove the {len(names)} packages that gpu-setup brought",
        action=AptRemove(packages=names),
        state=State.TODO,
        because="They were not here before. Removed, not purged: settings and data stay.",
        commands=(("apt-get", "remove", "--yes", *names),),
        undo="gpu-setup apply installs them again",
    )


def _reinstall(back: Mapping[str, tuple[str, str]], going: frozenset[str]) -> Step:
    names = tuple(sorted(back))
    archives = tuple(back[name][1] for name in names)
    return Step(
        id="packages-restore",
        title=f"Put {len(names)} packages back as they were" + (f" and remove {len(going)}" if going else ""),
        action=AptInstall(
            packages=tuple(Wanted(name=name, version=back[name][0]) for name in names),
            remove=tuple(sorted(going)),
            files=archives,
        ),
        state=State.TODO,
        because="Their package files were put aside before they were replaced or removed, so no network is needed.",
        commands=(
            ("apt-get", "install", "--yes", "--allow-downgrades", *archives, *(f"{name}-" for name in sorted(going))),
        ),
        undo="gpu-setup apply changes them again",
    )


def _kernel_stays(kernels: frozenset[str], host: Host) -> Step:
    return Step(
        id="kernel-stays",
        title=f"Start an older kernel, then roll back once more: {host.kernel.release or 'this one'} stays for now",
        action=KernelModule(name=", ".join(sorted(kernels)), change="keep", file=""),
        state=State.MANUAL,
        because="The kernel that runs, or the last one that can be started, is never removed. "
        "Hold Esc while the machine starts, Advanced options, the older kernel; then gpu-setup rollback.",
    )


def _marks(
    auto: Mapping[str, bool], before: Mapping[str, str | None], going: frozenset[str], database: dpkg.Database
) -> list[Step]:
    there = database.present()
    stays = [name for name, version in before.items() if version is not None] + [
        name for name in auto if name not in before
    ]
    to_auto = tuple(sorted({name for name in stays if auto.get(name) is True and name in there} - database.auto))
    to_manual = tuple(sorted({name for name in stays if auto.get(name) is False} & database.auto - going))
    if not (to_auto or to_manual):
        return []
    commands = tuple(("apt-mark", kind, *names) for kind, names in (("auto", to_auto), ("manual", to_manual)) if names)
    return [
        Step(
            id="package-marks",
            title="Mark packages as they were: asked for, or come as a dependency",
            action=AptMark(auto=to_auto, manual=to_manual),
            state=State.TODO,
            because="apt decides by these marks what an autoremove takes away.",
            commands=commands,
        )
    ]


def _files(entries: tuple[Entry, ...], begun: tuple[Entry, ...], site: Site, engine: bool) -> list[Step]:
    first: dict[str, Before] = {}
    owner: dict[str, Entry] = {}
    ours: dict[str, str] = {}
    paths: dict[tuple[str, str], str] = {}
    for entry in begun:
        if isinstance(entry.action, (AptKey, AptRepo, AptPin, WriteFile)):
            path = act_files.path_of(entry.action)
            first.setdefault(path, Before(**entry.facts["file"]))
            owner[path] = entry
            paths[(entry.run, entry.step)] = path
            if "sha256" in entry.facts:
                ours[path] = entry.facts["sha256"]
    for entry in entries:
        if entry.phase == "done" and (entry.run, entry.step) in paths and "sha256" in entry.facts:
            ours[paths[(entry.run, entry.step)]] = entry.facts["sha256"]
    steps = [
        _restore(path, before, ours.get(path) or _by_content(owner[path], path) or "", site)
        for path, before in reversed(first.items())
    ]
    if any(step.state is State.TODO and step.id == "restore-/etc/docker/daemon.json" for step in steps):
        steps.append(
            Step(
                id="docker-reload-back",
                title="Let Docker read its settings again",
                action=Service(unit="docker.service", change="reload"),
                state=State.TODO if engine else State.DONE,
                because="Its settings are as they were before.",
                commands=(("systemctl", "reload", "docker.service"),),
            )
        )
    return steps


def _has_docker(site: Site) -> bool:
    """Whether a Docker is there at all."""
    from checks.facts.gaps import on_path

    return on_path(site.machine, "docker") is not None


def _by_content(entry: Entry, path: str) -> str | None:
    """A keyring that was cut off before its digest was kept is told by the keys in it."""
    if not isinstance(entry.action, AptKey):
        return None
    now = files.current(path)
    found = keys.fingerprints(now) if now is not None else ()
    known = {name.upper().replace(" ", "") for name in entry.action.fingerprints}
    return files.digest(now) if now is not None and found and set(found) <= known else None


def _restore(path: str, before: Before, ours: str, site: Site) -> Step:
    action = RestoreFile(
        path=path, ours=ours, before=before.sha256, mode=before.mode, uid=before.uid, gid=before.gid, made=before.made
    )
    done = act_files.restored(action, site)
    what = f"Remove {path}" if before.sha256 is None else f"Put {path} back as it was"
    return Step(
        id=f"restore-{path}",
        title=what,
        action=action,
        state=State.DONE if done else State.TODO,
        because="It was not there before."
        if before.sha256 is None
        else "It was changed, and its old content was kept.",
        undo="gpu-setup apply writes it again",
    )


def _services(begun: tuple[Entry, ...], site: Site) -> list[Step]:
    steps = []
    first: dict[str, dict[str, Any]] = {}
    for entry in begun:
        if isinstance(entry.action, Service) and entry.action.change == "enable":
            first.setdefault(entry.action.unit, entry.facts)
    for unit, facts in reversed(first.items()):
        for change, was in (("stop", facts.get("active")), ("disable", facts.get("enabled") in ON)):
            if was:
                continue
            action = Service(unit=unit, change=change)
            steps.append(
                Step(
                    id=f"{change}-{unit}",
                    title=f"{change.capitalize()} {unit}",
                    action=action,
                    state=State.DONE if served(action, site) else State.TODO,
                    because=f"It was not {'active' if change == 'stop' else 'enabled'} before.",
                    commands=(("systemctl", change, unit),),
                )
            )
    return steps


def _groups(begun: tuple[Entry, ...], site: Site) -> list[Step]:
    steps: list[Step] = []
    for entry in begun:
        if not isinstance(entry.action, UserGroup):
            continue
        user, had = entry.action.user, set(entry.facts.get("groups", ()))
        there = memberships(user, site)
        back = tuple(name for name in entry.action.groups if name not in had and name in there)
        if back and all(step.id != f"groups-{user}-{'-'.join(back)}" for step in steps):
            steps.append(
                Step(
                    id=f"groups-{user}-{'-'.join(back)}",
                    title=f"Take {user} out of {' and '.join(back)}",
                    action=UserGroup(user=user, groups=back, change="remove"),
                    state=State.TODO,
                    because=f"{user} was not in it before.",
                    commands=tuple(("gpasswd", "--delete", user, name) for name in back),
                )
            )
    return steps


def _holds(begun: tuple[Entry, ...], database: dpkg.Database) -> list[Step]:
    ours = {
        name
        for entry in begun
        if isinstance(entry.action, AptHold) and entry.action.change == "hold"
        for name in entry.action.packages
        if name not in entry.facts.get("held", ())
    }
    held = tuple(sorted(ours & database.held()))
    if not held:
        return []
    return [
        Step(
            id="unhold",
            title=f"Release {', '.join(held)}",
            action=AptHold(packages=held, change="unhold"),
            state=State.TODO,
            because="It was not on hold before.",
            commands=(("apt-mark", "unhold", *held),),
        )
    ]


def _repair() -> Step:
    return Step(
        id="dpkg-repair",
        title="Finish what dpkg was cut off in",
        action=DpkgRepair(),
        state=State.TODO,
        because="dpkg refuses all other work until then.",
        commands=(("dpkg", "--configure", "-a"),),
    )
