"""The way back as a plan: from what the journal says was there, and what is there now. Removes, never purges."""

from __future__ import annotations

from checks.facts.host import Host
from provision.apply.journal import Entry
from provision.apply_context import Site
from provision.model import AptInstall, AptRemove, DpkgRepair, Plan, State, Step, sealed
from provision.plan.planner import host_digest
from provision.rollback.file_steps import files_back, settings_left
from provision.rollback.package_steps import brought, packages
from provision.rollback.system_steps import groups, holds, made_groups, services
from provision.system import dpkg
from provision.target import Target

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
    steps += services(begun, site)
    steps += packages(begun, database, host, site, notes)
    going = {
        name
        for step in steps
        if isinstance(step.action, (AptRemove, AptInstall))
        for name in (step.action.packages if isinstance(step.action, AptRemove) else step.action.remove)
    }
    left, more = settings_left(brought(begun) & gone(going, database), site)
    steps += left
    notes += more
    engine = _has_docker(site) and not going & set(ENGINES)
    steps += files_back(entries, begun, site, engine)
    steps += groups(begun, site)
    steps += made_groups(entries, site)
    steps += holds(begun, database)
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


def gone(going: set[str], database: dpkg.Database) -> frozenset[str]:
    """What will not be here after this: what goes now, and what is gone already but for its settings."""
    return frozenset(going) | {name for name, record in database.records.items() if record.state == "config-files"}


def _has_docker(site: Site) -> bool:
    """Whether a Docker is there at all."""
    from checks.facts.gaps import on_path

    return on_path(site.machine, "docker") is not None


def _repair() -> Step:
    return Step(
        id="dpkg-repair",
        title="Finish what dpkg was cut off in",
        action=DpkgRepair(),
        state=State.TODO,
        because="dpkg refuses all other work until then.",
        commands=(("dpkg", "--configure", "-a"),),
    )
