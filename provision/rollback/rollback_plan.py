"""The rollback as a plan: from the state that the journal recorded, and the state now. Removes, never purges."""

from __future__ import annotations

from checks.facts.host import Host
from provision.apply.journal import JournalEntry
from provision.apply_context import ApplyContext
from provision.model import AptInstall, AptRemove, DpkgRepair, Plan, State, Step, seal
from provision.plan.planner import host_digest
from provision.rollback.file_steps import restore_steps, settings_steps
from provision.rollback.package_steps import added_packages, package_steps
from provision.rollback.system_steps import created_group_steps, group_steps, hold_steps, service_steps
from provision.system import dpkg
from provision.target import PlanTarget

ENGINES = ("docker.io", "docker-ce")
RESTART = "Reboot afterwards: only then the loaded driver is removed and the earlier one is used again."


def plan_rollback(entries: tuple[JournalEntry, ...], host: Host, context: ApplyContext) -> Plan:
    """The plan that returns the machine to the state before the first of these entries. Changes nothing."""
    started_entries = tuple(
        entry for entry in entries if entry.phase == "begin" and entry.kind != "rollback" and entry.action
    )
    database = dpkg.read(context.machine)
    notes: list[str] = []
    steps: list[Step] = []
    if database.interrupted or database.broken_packages():
        steps.append(_repair())
    steps += service_steps(started_entries, context)
    steps += package_steps(started_entries, database, host, context, notes)
    removed = {name for step in steps for name in step.action.removed_packages()}
    settings, settings_notes = settings_steps(
        added_packages(started_entries) & absent_packages(removed, database), context
    )
    steps += settings
    notes += settings_notes
    engine = _has_docker(context) and not removed & set(ENGINES)
    steps += restore_steps(entries, started_entries, context, engine)
    steps += group_steps(started_entries, context)
    steps += created_group_steps(entries, context)
    steps += hold_steps(started_entries, database)
    if any(step.state is State.TODO and isinstance(step.action, (AptRemove, AptInstall)) for step in steps):
        notes.append(RESTART)
    return seal(
        Plan(
            machine=host.machine,
            vendor=None,
            target=PlanTarget(),
            steps=tuple(steps),
            reboots=0,
            download_bytes=0,
            download_note="Nothing to download.",
            refusals=(),
            notes=tuple(notes),
            host_digest=host_digest(host),
        )
    )


def absent_packages(removed: set[str], database: dpkg.DpkgDatabase) -> frozenset[str]:
    """Packages that are absent afterwards: those removed now, and those of which only settings files remain."""
    return frozenset(removed) | {name for name, record in database.records.items() if record.state == "config-files"}


def _has_docker(context: ApplyContext) -> bool:
    """Whether Docker is installed."""
    from checks.facts.gaps import on_path

    return on_path(context.machine, "docker") is not None


def _repair() -> Step:
    return Step(
        id="dpkg-repair",
        title="Finish the interrupted dpkg run",
        action=DpkgRepair(),
        state=State.TODO,
        because="dpkg refuses all other work until then.",
        commands=(("dpkg", "--configure", "-a"),),
    )
