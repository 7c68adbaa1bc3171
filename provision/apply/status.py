"""Where the last run stands, from what root shows and what the machine says: no root needed, nothing written."""

from __future__ import annotations

import os

import msgspec

from checks.facts.apt import parse_lock_pids
from machine.local import LocalMachine, Machine, Unreadable
from provision.apply.executor import read_boot_id
from provision.apply.journal import ApplyRun, ApplyStatus, Journal
from provision.apply.resume_unit import UNIT
from provision.apply_context import STATE, ApplyContext
from provision.model import Service, State, Step


def apply_status(machine: Machine) -> ApplyStatus:
    """`standing`: none, running, cut-off, restart, restarted, person, done, failed."""
    run = Journal(STATE).load_run()
    armed = os.path.exists(UNIT)
    if run is None:
        return ApplyStatus(standing="none", run=None, armed=armed, next="gpu-setup plan")
    word, next = _current_state(run, machine)
    return ApplyStatus(standing=word, run=run, armed=armed, next=next)


def last_run(machine: Machine) -> ApplyRun | None:
    """The last run here, as root shows it to everyone; of another machine's nothing is known."""
    return Journal(STATE).load_run() if isinstance(machine, LocalMachine) else None


def reopen_interrupted(steps: tuple[Step, ...], run: ApplyRun | None) -> tuple[Step, ...]:
    """The steps, and those again that the last run was cut off in though they look done.

    A file may be there before what is made of it (lists, initramfs); whether a program has read its settings anew is
    in no file at all. Where each stands, the step itself sees as root.
    """
    if run is None or run.kind == "rollback":
        return steps
    outcomes = {step.id: step.outcome for step in run.steps}
    return tuple(_reopen(step, outcomes.get(step.id, "")) for step in steps)


def _reopen(step: Step, outcome: str) -> Step:
    reload = isinstance(step.action, Service) and step.action.change in ("reload", "restart")
    cut_off = outcome in ("running", "failed") or (reload and outcome == "waiting")
    if step.state is not State.DONE or not cut_off:
        return step
    because = f"{step.because} The last run was ended before this was seen to be done."
    return msgspec.structs.replace(step, state=State.TODO, because=because)


def is_running(machine: Machine) -> bool:
    """Whether a process holds the journal's lock (a lock goes with its process)."""
    try:
        inode = machine.stat(str(STATE / "lock")).inode
        content = machine.read("/proc/locks").decode("utf-8", "replace")
    except Unreadable:
        return False
    return bool(parse_lock_pids(content, inode))


def _current_state(run: ApplyRun, machine: Machine) -> tuple[str, str]:
    if run.standing == "running":
        if is_running(machine):
            return "running", ""
        again = "rollback" if run.kind == "rollback" else "apply"
        return "cut-off", f"gpu-setup {again}: what is done stays done, and it goes on from there"
    if run.kind == "rollback":
        return run.standing, run.next
    restarted = run.boot_id is not None and run.boot_id != read_boot_id(ApplyContext(machine))
    if run.standing in ("restart", "person") and restarted:
        return "restarted", "gpu-setup resume"
    return run.standing, run.next
