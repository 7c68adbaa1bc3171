"""Every kind of action: is it done already, what was there before, do it. Verified by asking the first again."""

from __future__ import annotations

from typing import Any

import msgspec

from provision.apply import file_actions, package_actions, system_actions
from provision.apply.blockers import DRIVER_STEPS
from provision.apply.file_actions import Left
from provision.apply_context import Site
from provision.model import (
    AnyAction,
    AptHold,
    AptInstall,
    AptKey,
    AptMark,
    AptPin,
    AptRemove,
    AptRepo,
    DpkgRepair,
    KernelModule,
    MokEnroll,
    Reboot,
    RestoreFile,
    Service,
    UserGroup,
    WriteFile,
)
from provision.plan import dkms
from provision.system import dpkg, system_files

Facts = dict[str, Any]


def satisfied(action: AnyAction, site: Site) -> bool:
    """Whether the machine is as the action wants it, read afresh."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            return file_actions.written(action, site)
        case RestoreFile():
            return file_actions.restored(action, site)
        case AptInstall():
            return package_actions.installed(action, site)
        case AptRemove():
            return package_actions.removed(action, site)
        case AptMark():
            return package_actions.marked(action, site)
        case AptHold():
            return package_actions.held(action, site)
        case DpkgRepair():
            return package_actions.mended(action, site)
        case UserGroup():
            return system_actions.member(action, site)
        case Service():
            return system_actions.served(action, site)
        case MokEnroll():
            return system_actions.enrolled(action, site)
        case KernelModule(change="build"):
            return not dkms.lacking(action, site)
        case KernelModule(change="choose"):
            return system_actions.chosen(action, site)
        case KernelModule() | Reboot():
            return False


def before(action: AnyAction, site: Site, stage: str, title: str) -> Facts:
    """What the way back needs to know, kept before anything changes. Raises Refused for what was not agreed to."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile() | RestoreFile():
            return {"file": system_files.keep(file_actions.path_of(action), site.backups)._asdict()}
        case AptInstall():
            change = package_actions.before_install(action, site, stage, title)
            return {"packages": msgspec.to_builtins(change), "all_groups": system_actions.group_names(site)}
        case AptRemove():
            return {"packages": msgspec.to_builtins(package_actions.before_remove(action, site, title))}
        case UserGroup():
            there = system_actions.memberships(action.user, site)
            return {"groups": [name for name in action.groups if name in there]}
        case AptHold():
            return {"held": [name for name in action.packages if name in dpkg.read(site.machine).held()]}
        case Service():
            return {
                "enabled": system_actions.enabled(action.unit, site),
                "active": site.systemd and system_actions.active(action.unit, site),
            }
        case _:
            return {}


def act(action: AnyAction, site: Site, stage: str, title: str) -> Left | None:
    """Do it. Raises Problem with cause and next step; a file that is no longer ours is left, and told."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            file_actions.write(action, site, stage, title)
        case RestoreFile():
            return file_actions.restore(action, site, stage, title)
        case AptInstall():
            package_actions.install(action, site, stage, title)
        case AptRemove():
            package_actions.remove(action, site, stage, title)
        case AptMark():
            package_actions.mark(action, site)
        case AptHold():
            package_actions.hold(action, site)
        case DpkgRepair():
            package_actions.repair(action, site, stage, title)
        case UserGroup():
            system_actions.change_groups(action, site, title)
        case Service():
            system_actions.serve(action, site, title)
        case KernelModule(change="build"):
            dkms.build(action, site, stage, title)
        case KernelModule(change="choose"):
            system_actions.choose(action, site, title)
        case MokEnroll() | KernelModule() | Reboot():
            raise AssertionError(f"{type(action).__name__} is a person's to do")
    return None


def settle(action: AnyAction, site: Site, stage: str, title: str) -> None:
    """What an action needs besides, if it was once cut off: dpkg went on in another order than it would have.

    A package that made the initramfs may then have done so before the driver's modules were there.
    """
    if isinstance(action, (AptInstall, AptRemove)) and stage in DRIVER_STEPS:
        file_actions.rebuild_initramfs(site, stage, title)


def after(action: AnyAction, site: Site) -> Facts:
    """What the action left, for the way back: the digest of a file that we wrote, the groups after a transaction."""
    if isinstance(action, AptInstall):
        return {"all_groups": system_actions.group_names(site)}
    if isinstance(action, (AptKey, AptRepo, AptPin, WriteFile)):
        now = system_files.current(file_actions.path_of(action))
        return {"sha256": system_files.digest(now)} if now is not None else {}
    return {}


def expected(action: AnyAction, site: Site) -> Facts:
    """Like `after`, before it is done: so that a file can be told to be ours even when nobody came to say so."""
    if isinstance(action, (AptRepo, AptPin, WriteFile)):
        path = file_actions.path_of(action)
        return {"sha256": system_files.digest(file_actions.wanted_text(action, system_files.current(path)))}
    return {}
