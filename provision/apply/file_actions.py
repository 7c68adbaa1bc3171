"""Files that steps write (keyrings, sources, pins, settings), and how they are restored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from machine.errors import OutsideFailed, Problem
from machine.events import Event
from provision.apply_context import ApplyContext
from provision.model import AptKey, AptPreference, AptRepo, RestoreFile, WriteFile, WrittenFile
from provision.plan.driver.boot_guard import CHOICE, HOOK
from provision.system import apt, keys, system_files

MODULE_SETTINGS = "/etc/modprobe.d/"
INITRAMFS = "/usr/sbin/update-initramfs"


class ChangedFile(NamedTuple):
    """A file that someone else changed since, so it is kept; `difference` shows what would have been restored."""

    path: str
    difference: str


def file_path(action: WrittenFile | RestoreFile) -> str:
    if isinstance(action, AptKey):
        return action.keyring
    return action.file if isinstance(action, (AptRepo, AptPreference)) else action.path


def source_text(action: AptRepo) -> str:
    """The source file in the format of its name (sources.list(5)): deb822 in .sources, else one line for each URI."""
    if action.file.endswith(".sources"):
        fields = [
            ("Types", "deb"),
            ("URIs", " ".join(action.uris)),
            ("Suites", action.suite),
            ("Components", " ".join(action.components)),
            ("Architectures", " ".join(action.architectures)),
            ("Signed-By", action.signed_by),
        ]
        return "# written by gpu-setup\n" + "".join(f"{name}: {value}\n" for name, value in fields if value)
    options = f"[arch={','.join(action.architectures)} signed-by={action.signed_by}]"
    rest = " ".join((action.suite, *action.components))
    return "# written by gpu-setup\n" + "".join(f"deb {options} {uri} {rest}\n" for uri in action.uris)


def pin_text(action: AptPreference) -> str:
    """apt_preferences(5)."""
    return (
        "Explanation: written by gpu-setup\n"
        f"Package: {' '.join(action.packages)}\nPin: {action.pin}\nPin-Priority: {action.priority}\n"
    )


def file_content(action: AptRepo | AptPreference | WriteFile, now: bytes | None) -> bytes:
    """What the file should contain, given what it contains now."""
    if isinstance(action, AptRepo):
        return source_text(action).encode()
    if isinstance(action, AptPreference):
        return pin_text(action).encode()
    return system_files.merge_json(action.path, now, action.content) if action.merge else action.content.encode()


def is_written(action: WrittenFile, context: ApplyContext) -> bool:
    """Whether the file has the wanted content, and what is made from it (package lists, initramfs) is not older."""
    path = file_path(action)
    now = system_files.read_current(path)
    if now is None:
        return False
    if isinstance(action, AptKey):
        found = keys.fingerprints(now)
        return bool(found) and set(found) <= {name.upper().replace(" ", "") for name in action.fingerprints}
    if isinstance(action, WriteFile) and action.merge:
        return system_files.contains_json(now, action.content)
    if now != file_content(action, now):
        return False
    if isinstance(action, AptRepo):
        return has_package_lists(action)
    return not path.startswith(MODULE_SETTINGS) or not is_initramfs_stale(path)


def is_restored(action: RestoreFile, context: ApplyContext) -> bool:
    now = system_files.read_current(action.path)
    same = now is None if action.before is None else now is not None and system_files.digest(now) == action.before
    return same and not (action.path.startswith(MODULE_SETTINGS) and is_initramfs_stale(action.path))


def has_package_lists(action: AptRepo) -> bool:
    """Whether apt has the package lists of every address."""
    try:
        names = os.listdir(apt.LISTS)
    except OSError:
        return False
    return all(apt.has_lists(uri, names) for uri in action.uris)


def write(action: WrittenFile, context: ApplyContext) -> None:
    path = file_path(action)
    now = system_files.read_current(path)
    if isinstance(action, AptKey):
        content = keys.trusted_keyring(keys.fetch(action.url), action.fingerprints, action.url)
        # apt's own user _apt reads it
        system_files.write(path, content, 0o644)
        return
    content = file_content(action, now)
    if now != content:
        mode = action.mode if isinstance(action, WriteFile) else 0o644
        kept = os.stat(path) if now is not None and isinstance(action, WriteFile) and action.merge else None
        if kept is None:
            system_files.write(path, content, mode)
        else:
            system_files.write(path, content, kept.st_mode & 0o7777, kept.st_uid, kept.st_gid)
    if isinstance(action, AptRepo):
        _read_lists(path, now, context)
    elif path.startswith(MODULE_SETTINGS):
        rebuild_initramfs(context)


def _read_lists(path: str, before: bytes | None, context: ApplyContext) -> None:
    """A source whose lists cannot be read is removed again: otherwise every later apt-get update would fail."""
    try:
        apt.update(context, path)
    except Problem:
        if before is None:
            system_files.remove(path)
        else:
            system_files.write(path, before)
        raise


def restore(action: RestoreFile, context: ApplyContext) -> ChangedFile | None:
    """Restore the old content; a file that someone else changed is kept, and the difference returned."""
    now = system_files.read_current(action.path)
    old = None
    if action.before is not None:
        old = system_files.read_current(str(context.backups / action.before))
        if old is None or system_files.digest(old) != action.before:
            return ChangedFile(action.path, "the backup is missing or damaged\n")
    if not is_restored(action, context) and (None if now is None else system_files.digest(now)) not in (
        action.ours,
        action.before,
    ):
        return ChangedFile(action.path, system_files.difference(action.path, now, old))
    if old is None:
        system_files.remove(action.path)
        system_files.remove_empty(os.path.dirname(action.path), action.made)
    else:
        system_files.write(action.path, old, action.mode, action.uid, action.gid)
    if action.path.startswith(MODULE_SETTINGS):
        rebuild_initramfs(context)
    if action.path == HOOK and Path(CHOICE).exists():
        system_files.remove(CHOICE)
        context.machine.run(("update-grub",), timeout=120, env=apt.ENVIRONMENT)
    return None


def is_initramfs_stale(path: str) -> bool:
    """Whether any initramfs is older than the module settings; False where there is none."""
    try:
        newest = os.stat(os.path.dirname(path)).st_mtime
        newest = max(newest, os.stat(path).st_mtime if os.path.exists(path) else 0.0)
        images = [os.path.join("/boot", name) for name in os.listdir("/boot") if name.startswith("initrd.img-")]
        return any(os.stat(image).st_mtime < newest for image in images)
    except OSError:
        return False


def rebuild_initramfs(context: ApplyContext) -> None:
    """For every kernel, since any of them may boot next."""
    if not Path(INITRAMFS).exists():
        return
    context.emit(Event("note", context.stage, "rebuilding every initramfs"))
    outcome = apt.call(context, (INITRAMFS, "-u", "-k", "all"))
    if not outcome.ok:
        raise OutsideFailed(
            "initramfs.failed",
            f"{context.title}: update-initramfs failed.",
            outcome.stdout.strip()[-300:] or "It printed nothing.",
            "Often /boot is full: df -h /boot; remove old kernels (sudo apt-get autoremove), then: gpu-setup apply",
        )
