"""Rollback of files: each is restored as before the first step that wrote it, unless someone changed it since."""

from __future__ import annotations

import hashlib

from provision.apply import file_actions
from provision.apply.file_actions import is_restored
from provision.apply.journal import JournalEntry
from provision.apply_context import ApplyContext
from provision.model import AptKey, RestoreFile, Service, State, Step, WrittenFile
from provision.system import dpkg, keys, system_files
from provision.system.system_files import FileBefore


def restore_steps(
    entries: tuple[JournalEntry, ...], started_entries: tuple[JournalEntry, ...], context: ApplyContext, engine: bool
) -> list[Step]:
    first: dict[str, FileBefore] = {}
    owner: dict[str, JournalEntry] = {}
    ours: dict[str, str] = {}
    paths: dict[tuple[str, str], str] = {}
    for entry in started_entries:
        if isinstance(entry.action, WrittenFile):
            path = file_actions.file_path(entry.action)
            first.setdefault(path, FileBefore(**entry.facts["file"]))
            owner[path] = entry
            paths[(entry.run, entry.step)] = path
            if "sha256" in entry.facts:
                ours[path] = entry.facts["sha256"]
    for entry in entries:
        if entry.phase == "done" and (entry.run, entry.step) in paths and "sha256" in entry.facts:
            ours[paths[(entry.run, entry.step)]] = entry.facts["sha256"]
    steps = [
        _restore(path, before, ours.get(path) or _by_content(owner[path], path) or "", context)
        for path, before in reversed(first.items())
    ]
    if any(step.state is State.TODO and step.id == "restore-/etc/docker/daemon.json" for step in steps):
        steps.append(
            Step(
                id="docker-reload-back",
                title="Reload Docker",
                action=Service(unit="docker.service", change="reload"),
                state=State.TODO if engine else State.DONE,
                because="Its old settings are restored.",
                commands=(("systemctl", "reload", "docker.service"),),
            )
        )
    return steps


def settings_steps(names: frozenset[str], context: ApplyContext) -> tuple[list[Step], list[str]]:
    """Steps for the unchanged settings files that these packages leave in /etc when they are removed; notes on changed
    ones. Such files would still have an effect: NVIDIA's pinning package is only a preferences file.
    """
    steps, notes = [], []
    known = dpkg.conffiles(context.machine)
    for name in sorted(names & known.keys()):
        for path, digest in known[name].items():
            now = system_files.read_current(path)
            if now is None:
                continue
            if hashlib.md5(now, usedforsecurity=False).hexdigest() != digest:
                notes.append(f"{path} of {name} was changed since and is kept.")
                continue
            steps.append(
                Step(
                    id=f"settings-{path}",
                    title=f"Remove {path}, which stays after {name} is removed",
                    action=RestoreFile(path=path, ours=system_files.digest(now)),
                    state=State.TODO,
                    because="The package installed it, nobody has changed it, and it would still have an effect.",
                    commands=(("rm", path),),
                    undo="gpu-setup apply installs it again with its package",
                )
            )
    return steps, notes


def _by_content(entry: JournalEntry, path: str) -> str | None:
    """The digest of a keyring whose step was interrupted before it was recorded: its keys show that it is ours."""
    if not isinstance(entry.action, AptKey):
        return None
    now = system_files.read_current(path)
    found = keys.fingerprints(now) if now is not None else ()
    known = {name.upper().replace(" ", "") for name in entry.action.fingerprints}
    return system_files.digest(now) if now is not None and found and set(found) <= known else None


def _restore(path: str, before: FileBefore, ours: str, context: ApplyContext) -> Step:
    action = RestoreFile(
        path=path, ours=ours, before=before.sha256, mode=before.mode, uid=before.uid, gid=before.gid, made=before.made
    )
    done = is_restored(action, context)
    what = f"Remove {path}" if before.sha256 is None else f"Restore {path}"
    return Step(
        id=f"restore-{path}",
        title=what,
        action=action,
        state=State.DONE if done else State.TODO,
        because="It did not exist before."
        if before.sha256 is None
        else "gpu-setup changed it and kept the old content.",
        undo="gpu-setup apply writes it again",
    )
