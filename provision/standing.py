"""Where the last run stands, from what root shows and what the machine says: no root needed, nothing written."""

from __future__ import annotations

import os

from checks.facts.apt import parse_lock_pids
from machine.door import LocalMachine, Machine, Unreadable
from provision.apply import identity
from provision.journal import Journal, Run, Status
from provision.resume import UNIT
from provision.site import STATE, Site


def standing(machine: Machine) -> Status:
    """`standing`: none, running, cut-off, restart, restarted, person, done, failed."""
    run = Journal(STATE).shown()
    armed = os.path.exists(UNIT)
    if run is None:
        return Status(standing="none", run=None, armed=armed, next="gpu-setup plan")
    word, next = _word(run, machine)
    return Status(standing=word, run=run, armed=armed, next=next)


def unfinished(machine: Machine) -> frozenset[str]:
    """Ids of the steps that the last apply was ended in or before; of another machine's nothing is known."""
    run = Journal(STATE).shown() if isinstance(machine, LocalMachine) else None
    if run is None or run.kind == "rollback":
        return frozenset()
    return frozenset(step.id for step in run.steps if step.outcome in ("waiting", "running", "failed"))


def at_work(machine: Machine) -> bool:
    """Whether a process holds the journal's lock (a lock goes with its process)."""
    try:
        inode = machine.stat(str(STATE / "lock")).inode
        content = machine.read("/proc/locks").decode("utf-8", "replace")
    except Unreadable:
        return False
    return bool(parse_lock_pids(content, inode))


def _word(run: Run, machine: Machine) -> tuple[str, str]:
    if run.standing == "running":
        if at_work(machine):
            return "running", ""
        again = "rollback" if run.kind == "rollback" else "apply"
        return "cut-off", f"gpu-setup {again}: what is done stays done, and it goes on from there"
    restarted = run.boot_id is not None and run.boot_id != identity(Site(machine))
    if run.standing in ("restart", "person") and restarted:
        return "restarted", "gpu-setup resume"
    return run.standing, run.next
