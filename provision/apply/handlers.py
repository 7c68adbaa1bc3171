"""How each kind of action is done: one row for each action type. A new kind is a type in model.py and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
    AptPreference,
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
    WrittenFile,
)
from provision.system import dpkg, system_files

Facts = dict[str, Any]


def _no_facts(action: AnyAction, context: ApplyContext) -> Facts:
    return {}


def _do_nothing(action: AnyAction, context: ApplyContext) -> None:
    pass


def _by_person(action: AnyAction, context: ApplyContext) -> None:
    raise AssertionError(f"{type(action).__name__} is done by a person")


class Handler(NamedTuple):
    """`is_satisfied` reads the machine afresh, before and after `carry_out`; both raise Problem.

    The facts go into the journal for the rollback: what there was before, what is expected afterwards (so that a file
    is known as ours even after an interruption) and what there is afterwards. `finish_interrupted` repeats what depends
    on the order inside the action when an earlier run was interrupted in it.
    """

    is_satisfied: Callable[[Any, ApplyContext], bool]
    carry_out: Callable[[Any, ApplyContext], ChangedFile | None]
    facts_before: Callable[[Any, ApplyContext], Facts] = _no_facts
    facts_expected: Callable[[Any, ApplyContext], Facts] = _no_facts
    facts_after: Callable[[Any, ApplyContext], Facts] = _no_facts
    finish_interrupted: Callable[[Any, ApplyContext], None] = _do_nothing


def _file_before(action: WrittenFile | RestoreFile, context: ApplyContext) -> Facts:
    return {"file": system_files.back_up(file_actions.file_path(action), context.backups)._asdict()}


def _file_expected(action: AptRepo | AptPreference | WriteFile, context: ApplyContext) -> Facts:
    now = system_files.read_current(file_actions.file_path(action))
    return {"sha256": system_files.digest(file_actions.file_content(action, now))}


def _file_after(action: WrittenFile, context: ApplyContext) -> Facts:
    now = system_files.read_current(file_actions.file_path(action))
    return {"sha256": system_files.digest(now)} if now is not None else {}


def _install_before(action: AptInstall, context: ApplyContext) -> Facts:
    change = package_actions.packages_before_install(action, context)
    return {"packages": msgspec.to_builtins(change), **_all_groups(action, context)}


def _remove_before(action: AptRemove, context: ApplyContext) -> Facts:
    return {"packages": msgspec.to_builtins(package_actions.packages_before_remove(action, context))}


def _all_groups(action: AptInstall, context: ApplyContext) -> Facts:
    return {"all_groups": system_actions.group_names(context)}


def _rebuild_initramfs(action: AptInstall | AptRemove, context: ApplyContext) -> None:
    """After an interruption dpkg works in another order: a package may have built the initramfs before the driver's
    modules were installed.
    """
    if context.stage in DRIVER_STEPS:
        file_actions.rebuild_initramfs(context)


def _held_before(action: AptHold, context: ApplyContext) -> Facts:
    held = dpkg.read(context.machine).held_packages()
    return {"held": [name for name in action.packages if name in held]}


def _groups_before(action: UserGroup, context: ApplyContext) -> Facts:
    memberships = system_actions.memberships(action.user, context)
    return {"groups": [name for name in action.groups if name in memberships]}


def _service_before(action: Service, context: ApplyContext) -> Facts:
    active = context.systemd and system_actions.is_active(action.unit, context)
    return {"enabled": system_actions.unit_state(action.unit, context), "active": active}


_FILE = Handler(file_actions.is_written, file_actions.write, _file_before, _file_expected, _file_after)

HANDLERS: Mapping[type[AnyAction], Handler] = {
    # what a key's file will hold is known only once it is fetched
    AptKey: _FILE._replace(facts_expected=_no_facts),
    AptRepo: _FILE,
    AptPreference: _FILE,
    WriteFile: _FILE,
    RestoreFile: Handler(file_actions.is_restored, file_actions.restore, _file_before),
    AptInstall: Handler(
        package_actions.is_installed,
        package_actions.install,
        _install_before,
        facts_after=_all_groups,
        finish_interrupted=_rebuild_initramfs,
    ),
    AptRemove: Handler(
        package_actions.is_removed, package_actions.remove, _remove_before, finish_interrupted=_rebuild_initramfs
    ),
    AptMark: Handler(package_actions.is_marked, package_actions.mark),
    AptHold: Handler(package_actions.is_held, package_actions.hold, _held_before),
    DpkgRepair: Handler(package_actions.is_repaired, package_actions.repair),
    UserGroup: Handler(system_actions.is_member, system_actions.change_groups, _groups_before),
    Service: Handler(system_actions.is_service_ready, system_actions.change_service, _service_before),
    KernelModule: Handler(system_actions.is_module_ready, system_actions.change_module),
    MokEnroll: Handler(system_actions.is_enrolled, _by_person),
    Reboot: Handler(lambda action, context: False, _by_person),
}


def handler_of(action: AnyAction) -> Handler:
    return HANDLERS[type(action)]
