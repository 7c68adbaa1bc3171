"""The state of the last run, from the file that root publishes and from the machine; needs no root, writes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from checks.facts.apt import parse_lock_pids
from machine.local import LocalMachine, Machine, Unreadable
from provision.apply.executor import read_boot_id
from provision.apply.journal import ApplyRun, ApplyStatus, Journal, MachineStanding
from provision.apply.resume_unit import UNIT
from provision.apply_context import STATE, ApplyContext
from provision.model import Service, State, Step
from provision.plan.driver import nvidia


def apply_status(machine: Machine) -> ApplyStatus:
    journal = Journal(STATE)
    run = journal.load_run()
    armed = os.path.exists(UNIT)
    if run is None and journal.has_traces():
        next = (
            f"sudo cat {journal.file} shows every step that was tried; gpu-setup apply continues from what is done, "
            "gpu-setup rollback undoes it"
        )
        return ApplyStatus(standing="unknown", run=None, armed=armed, next=next)
    if run is None:
        return ApplyStatus(standing="none", run=None, armed=armed, next="gpu-setup plan")
    word, next = _current_state(run, machine)
    return ApplyStatus(standing=word, run=run, armed=armed, next=next)


def last_run(machine: Machine) -> ApplyRun | None:
    """The last run on this machine; None for another machine, of which nothing is known."""
    return Journal(STATE).load_run() if isinstance(machine, LocalMachine) else None


def reopen_interrupted(steps: tuple[Step, ...], run: ApplyRun | None) -> tuple[Step, ...]:
    """The steps, with those open again that the last run was interrupted in, although they look done.

    A file can exist before what is made from it (package lists, initramfs), and no file shows whether a program has
    reloaded its settings. As root, each step checks its own state.
    """
    if run is None or run.kind == "rollback":
        return steps
    outcomes = {step.id: step.outcome for step in run.steps}
    reopened = tuple(_reopen(step, outcomes.get(step.id, "")) for step in steps)
    if not _lost_blacklist(steps, outcomes):
        return reopened
    because = "NVIDIA's packages do not blacklist them, and the last run ended before it could."
    return (*reopened, nvidia.blacklist_step(nvidia.KEEP_FREE_DRIVERS_OFF, because, done=False))


def _lost_blacklist(steps: tuple[Step, ...], outcomes: Mapping[str, str]) -> bool:
    """Whether the last run installed NVIDIA's driver, was interrupted before it blacklisted the others, and this plan
    keeps that driver: plans for drivers that gpu-setup did not install have no blacklist.
    """
    interrupted = outcomes.get("nvidia-driver") == "running" and outcomes.get(nvidia.BLACKLIST_STEP) == "waiting"
    states = {step.id: step.state for step in steps}
    return interrupted and states.get("nvidia-driver") is State.DONE and nvidia.BLACKLIST_STEP not in states


def _reopen(step: Step, outcome: str) -> Step:
    reload = isinstance(step.action, Service) and step.action.change in ("reload", "restart")
    interrupted = outcome in ("running", "failed") or (reload and outcome == "waiting")
    if step.state is not State.DONE or not interrupted:
        return step
    because = f"{step.because} The last run ended before this was verified."
    return msgspec.structs.replace(step, state=State.TODO, because=because)


def is_running(machine: Machine) -> bool:
    """Whether a process holds the journal's lock (the kernel releases it with the process)."""
    try:
        inode = machine.stat(str(STATE / "lock")).inode
        content = machine.read("/proc/locks").decode("utf-8", "replace")
    except Unreadable:
        return False
    return bool(parse_lock_pids(content, inode))


def _current_state(run: ApplyRun, machine: Machine) -> tuple[MachineStanding, str]:
    if run.standing == "running":
        if is_running(machine):
            return "running", ""
        again = "rollback" if run.kind == "rollback" else "apply"
        return "cut-off", f"gpu-setup {again} continues; finished steps are kept"
    if run.kind == "rollback":
        return run.standing, run.next
    restarted = run.boot_id is not None and run.boot_id != read_boot_id(ApplyContext(machine))
    if run.standing in ("restart", "person") and restarted:
        return "restarted", "gpu-setup resume"
    return run.standing, run.next
