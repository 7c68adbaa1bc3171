"""Every kind of action: is it done already, what was there before, do it. Verified by asking the first again."""

from __future__ import annotations

from typing import Any

import msgspec

from provision.apply import act_files, act_packages, act_system
from provision.apply.act_files import Left
from provision.apply.guard import DRIVER_STEPS
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
from provision.site import Site
from provision.system import dpkg, files

Facts = dict[str, Any]


def satisfied(action: AnyAction, site: Site) -> bool:
    """Whether the machine is as the action wants it, read afresh."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            return act_files.written(action, site)
        case RestoreFile():
            return act_files.restored(action, site)
        case AptInstall():
            return act_packages.installed(action, site)
        case AptRemove():
            return act_packages.removed(action, site)
        case AptMark():
            return act_packages.marked(action, site)
        case AptHold():
            return act_packages.held(action, site)
        case DpkgRepair():
            return act_packages.mended(action, site)
        case UserGroup():
            return act_system.member(action, site)
        case Service():
            return act_system.served(action, site)
        case MokEnroll():
            return act_system.enrolled(action, site)
        case KernelModule(change="build"):
            return not dkms.lacking(action, site)
        case KernelModule(change="choose"):
            return act_system.chosen(action, site)
        case KernelModule() | Reboot():
            return False


def before(action: AnyAction, site: Site, stage: str, title: str) -> Facts:
    """What the way back needs to know, kept before anything changes. Raises Refused for what was not agreed to."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile() | RestoreFile():
            return {"file": files.keep(act_files.path_of(action), site.backups)._asdict()}
        case AptInstall():
            change = act_packages.before_install(action, site, stage, title)
            return {"packages": msgspec.to_builtins(change), "all_groups": act_system.group_names(site)}
        case AptRemove():
            return {"packages": msgspec.to_builtins(act_packages.before_remove(action, site, title))}
        case UserGroup():
            there = act_system.memberships(action.user, site)
            return {"groups": [name for name in action.groups if name in there]}
        case AptHold():
            return {"held": [name for name in action.packages if name in dpkg.read(site.machine).held()]}
        case Service():
            return {
                "enabled": act_system.enabled(action.unit, site),
                "active": site.systemd and act_system.active(action.unit, site),
            }
        case _:
            return {}


def act(action: AnyAction, site: Site, stage: str, title: str) -> Left | None:
    """Do it. Raises Problem with cause and next step; a file that is no longer ours is left, and told."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            act_files.write(action, site, stage, title)
        case RestoreFile():
            return act_files.restore(action, site, stage, title)
        case AptInstall():
            act_packages.install(action, site, stage, title)
        case AptRemove():
            act_packages.remove(action, site, stage, title)
        case AptMark():
            act_packages.mark(action, site)
        case AptHold():
            act_packages.hold(action, site)
        case DpkgRepair():
            act_packages.repair(action, site, stage, title)
        case UserGroup():
            act_system.change_groups(action, site, title)
        case Service():
            act_system.serve(action, site, title)
        case KernelModule(change="build"):
            dkms.build(action, site, stage, title)
        case KernelModule(change="choose"):
            act_system.choose(action, site, title)
        case MokEnroll() | KernelModule() | Reboot():
            raise AssertionError(f"{type(action).__name__} is a person's to do")
    return None


def settle(action: AnyAction, site: Site, stage: str, title: str) -> None:
    """What an action needs besides, if it was once cut off: dpkg went on in another order than it would have.

    A package that made the initramfs may then have done so before the driver's modules were there.
    """
    if isinstance(action, (AptInstall, AptRemove)) and stage in DRIVER_STEPS:
        act_files.rebuild_initramfs(site, stage, title)


def after(action: AnyAction, site: Site) -> Facts:
    """What the action left, for the way back: the digest of a file that we wrote, the groups after a transaction."""
    if isinstance(action, AptInstall):
        return {"all_groups": act_system.group_names(site)}
    if isinstance(action, (AptKey, AptRepo, AptPin, WriteFile)):
        now = files.current(act_files.path_of(action))
        return {"sha256": files.digest(now)} if now is not None else {}
    return {}


def expected(action: AnyAction, site: Site) -> Facts:
    """Like `after`, before it is done: so that a file can be told to be ours even when nobody came to say so."""
    if isinstance(action, (AptRepo, AptPin, WriteFile)):
        path = act_files.path_of(action)
        return {"sha256": files.digest(act_files.wanted_text(action, files.current(path)))}
    return {}
