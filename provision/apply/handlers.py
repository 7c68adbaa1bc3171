"""Every kind of action: is it done already, what was there before, do it. Verified by asking the first again."""

from __future__ import annotations

from typing import Any

import msgspec

from provision.apply import file_actions, package_actions, system_actions
from provision.apply.blockers import DRIVER_STEPS
from provision.apply.file_actions import ChangedFile
from provision.apply_context import ApplyContext
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


def satisfied(action: AnyAction, context: ApplyContext) -> bool:
    """Whether the machine is as the action wants it, read afresh."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            return file_actions.is_written(action, context)
        case RestoreFile():
            return file_actions.is_restored(action, context)
        case AptInstall():
            return package_actions.is_installed(action, context)
        case AptRemove():
            return package_actions.is_removed(action, context)
        case AptMark():
            return package_actions.is_marked(action, context)
        case AptHold():
            return package_actions.is_held(action, context)
        case DpkgRepair():
            return package_actions.is_repaired(action, context)
        case UserGroup():
            return system_actions.is_member(action, context)
        case Service():
            return system_actions.is_service_ready(action, context)
        case MokEnroll():
            return system_actions.is_enrolled(action, context)
        case KernelModule(change="build"):
            return not dkms.kernels_without_module(action, context)
        case KernelModule(change="choose"):
            return system_actions.is_newest_kernel_allowed(action, context)
        case KernelModule() | Reboot():
            return False


def before(action: AnyAction, context: ApplyContext, stage: str, title: str) -> Facts:
    """What the way back needs to know, kept before anything changes. Raises Refused for what was not agreed to."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile() | RestoreFile():
            return {"file": system_files.back_up(file_actions.file_path(action), context.backups)._asdict()}
        case AptInstall():
            change = package_actions.packages_before_install(action, context, stage, title)
            return {"packages": msgspec.to_builtins(change), "all_groups": system_actions.group_names(context)}
        case AptRemove():
            return {"packages": msgspec.to_builtins(package_actions.packages_before_remove(action, context, title))}
        case UserGroup():
            there = system_actions.memberships(action.user, context)
            return {"groups": [name for name in action.groups if name in there]}
        case AptHold():
            return {"held": [name for name in action.packages if name in dpkg.read(context.machine).held()]}
        case Service():
            return {
                "enabled": system_actions.unit_state(action.unit, context),
                "active": context.systemd and system_actions.is_active(action.unit, context),
            }
        case _:
            return {}


def act(action: AnyAction, context: ApplyContext, stage: str, title: str) -> ChangedFile | None:
    """Do it. Raises Problem with cause and next step; a file that is no longer ours is left, and told."""
    match action:
        case AptKey() | AptRepo() | AptPin() | WriteFile():
            file_actions.write(action, context, stage, title)
        case RestoreFile():
            return file_actions.restore(action, context, stage, title)
        case AptInstall():
            package_actions.install(action, context, stage, title)
        case AptRemove():
            package_actions.remove(action, context, stage, title)
        case AptMark():
            package_actions.mark(action, context)
        case AptHold():
            package_actions.hold(action, context)
        case DpkgRepair():
            package_actions.repair(action, context, stage, title)
        case UserGroup():
            system_actions.change_groups(action, context, title)
        case Service():
            system_actions.change_service(action, context, title)
        case KernelModule(change="build"):
            dkms.build_module(action, context, stage, title)
        case KernelModule(change="choose"):
            system_actions.update_kernel_choice(action, context, title)
        case MokEnroll() | KernelModule() | Reboot():
            raise AssertionError(f"{type(action).__name__} is a person's to do")
    return None


def settle(action: AnyAction, context: ApplyContext, stage: str, title: str) -> None:
    """What an action needs besides, if it was once cut off: dpkg went on in another order than it would have.

    A package that made the initramfs may then have done so before the driver's modules were there.
    """
    if isinstance(action, (AptInstall, AptRemove)) and stage in DRIVER_STEPS:
        file_actions.rebuild_initramfs(context, stage, title)


def after(action: AnyAction, context: ApplyContext) -> Facts:
    """What the action left, for the way back: the digest of a file that we wrote, the groups after a transaction."""
    if isinstance(action, AptInstall):
        return {"all_groups": system_actions.group_names(context)}
    if isinstance(action, (AptKey, AptRepo, AptPin, WriteFile)):
        now = system_files.read_current(file_actions.file_path(action))
        return {"sha256": system_files.digest(now)} if now is not None else {}
    return {}


def expected(action: AnyAction, context: ApplyContext) -> Facts:
    """Like `after`, before it is done: so that a file can be told to be ours even when nobody came to say so."""
    if isinstance(action, (AptRepo, AptPin, WriteFile)):
        path = file_actions.file_path(action)
        return {"sha256": system_files.digest(file_actions.file_content(action, system_files.read_current(path)))}
    return {}
