"""Rollback of services, groups and holds: only what was different before is undone."""

from __future__ import annotations

from typing import Any, Literal

from provision.apply.journal import JournalEntry
from provision.apply.system_actions import ON, group_names, is_service_ready, is_unused_group, memberships
from provision.apply_context import ApplyContext
from provision.model import AptHold, Service, State, Step, UserGroup
from provision.system import dpkg


def service_steps(started_entries: tuple[JournalEntry, ...], context: ApplyContext) -> list[Step]:
    steps = []
    first: dict[str, dict[str, Any]] = {}
    for entry in started_entries:
        if isinstance(entry.action, Service) and entry.action.change == "enable":
            first.setdefault(entry.action.unit, entry.facts)
    for unit, facts in reversed(first.items()):
        found: tuple[tuple[Literal["stop", "disable"], bool], ...] = (
            ("stop", bool(facts.get("active"))),
            ("disable", facts.get("enabled") in ON),
        )
        for change, was in found:
            if was:
                continue
            action = Service(unit=unit, change=change)
            steps.append(
                Step(
                    id=f"{change}-{unit}",
                    title=f"{change.capitalize()} {unit}",
                    action=action,
                    state=State.DONE if is_service_ready(action, context) else State.TODO,
                    because=f"It was not {'active' if change == 'stop' else 'enabled'} before.",
                    commands=(("systemctl", change, unit),),
                )
            )
    return steps


def group_steps(started_entries: tuple[JournalEntry, ...], context: ApplyContext) -> list[Step]:
    steps: list[Step] = []
    for entry in started_entries:
        if not isinstance(entry.action, UserGroup):
            continue
        user, had = entry.action.user, set(entry.facts.get("groups", ()))
        there = memberships(user, context)
        back = tuple(name for name in entry.action.groups if name not in had and name in there)
        if back and all(step.id != f"groups-{user}-{'-'.join(back)}" for step in steps):
            steps.append(
                Step(
                    id=f"groups-{user}-{'-'.join(back)}",
                    title=f"Remove {user} from {' and '.join(back)}",
                    action=UserGroup(user=user, groups=back, change="remove"),
                    state=State.TODO,
                    because=f"{user} was not a member before.",
                    commands=tuple(("gpasswd", "--delete", user, name) for name in back),
                )
            )
    return steps


def created_group_steps(entries: tuple[JournalEntry, ...], context: ApplyContext) -> list[Step]:
    """Groups that packages created while they were installed and that have no members, such as docker."""
    now = group_names(context)
    started_entries = [entry for entry in entries if entry.phase == "begin" and "all_groups" in entry.facts]
    done = {(entry.run, entry.step): entry for entry in entries if entry.phase == "done"}
    made: set[str] = set()
    for index, entry in enumerate(started_entries):
        ended = done.get((entry.run, entry.step))
        after = ended.facts.get("all_groups", now) if ended is not None else now
        if ended is None and index + 1 < len(started_entries):
            after = started_entries[index + 1].facts["all_groups"]
        made |= set(after) - set(entry.facts["all_groups"])
    empty = tuple(sorted(name for name in made & set(now) if is_unused_group(name, context)))
    if not empty:
        return []
    return [
        Step(
            id="groups-made",
            title=f"Remove the group{'s' if len(empty) > 1 else ''} {', '.join(empty)}",
            action=UserGroup(user="", groups=empty, change="delete"),
            state=State.TODO,
            because="A package created it, and it has no members.",
            commands=tuple(("groupdel", name) for name in empty),
        )
    ]


def hold_steps(started_entries: tuple[JournalEntry, ...], database: dpkg.DpkgDatabase) -> list[Step]:
    ours = {
        name
        for entry in started_entries
        if isinstance(entry.action, AptHold) and entry.action.change == "hold"
        for name in entry.action.packages
        if name not in entry.facts.get("held", ())
    }
    held = tuple(sorted(ours & database.held_packages()))
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
