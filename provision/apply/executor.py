"""Carrying a plan out: each step checked, done and checked again, on facts read afresh; told and kept as it goes."""

from __future__ import annotations

import os
import threading

import msgspec

from machine.errors import Interrupted, OutsideFailed, Problem, Refused
from machine.events import Event
from provision.apply import handlers
from provision.apply.journal import ApplyRequest, ApplyRun, Journal, StepResult, now, stored_problem
from provision.apply_context import ApplyContext
from provision.model import MokEnroll, Plan, Reboot, State, Step
from provision.system import mok, stale_files

ROLLBACK = "sudo /usr/local/lib/gpu-setup/gpu-setup rollback"


def read_boot_id(context: ApplyContext) -> str | None:
    """This boot's id."""
    try:
        return context.machine.read("/proc/sys/kernel/random/boot_id").decode().strip()
    except Exception:
        return None


def new_run(request: ApplyRequest, context: ApplyContext, name: str) -> ApplyRun:
    return ApplyRun(
        run=name,
        kind=request.kind,
        standing="running",
        plan_digest=request.plan.digest,
        began=now(),
        boot_id=read_boot_id(context),
        steps=tuple(
            StepResult(id=step.id, title=step.title, outcome="already" if step.state is State.DONE else "waiting")
            for step in request.plan.steps
        ),
    )


def run_plan(
    request: ApplyRequest, context: ApplyContext, journal: Journal, run: ApplyRun, stop: threading.Event | None = None
) -> ApplyRun:
    """Do the plan's open steps in order. Returns how it stands; raises nothing for what a step runs into.

    Stops before a restart and says so: whether and how to restart is the caller's. `stop`: end after this step.
    """
    keeper = _RunRecorder(journal, run)
    try:
        _check_system(context)
        for step in request.plan.steps:
            if stop is not None and stop.is_set():
                raise Interrupted(
                    "apply.stopped", "Stopped between two steps.", "You asked for it.", "gpu-setup resume goes on."
                )
            _run_step(step, context, journal, keeper)
    except Problem as problem:
        return keeper.close("failed", problem)
    except Exception as error:
        keeper.close(
            "failed",
            OutsideFailed("apply.bug", "gpu-setup has a bug.", f"{type(error).__name__}: {error}", "Please report it."),
        )
        raise
    return keeper.finish(request.plan)


def _run_step(step: Step, context: ApplyContext, journal: Journal, keeper: _RunRecorder) -> None:
    action = step.action
    if step.state is State.DONE or isinstance(action, Reboot):
        return
    if isinstance(action, MokEnroll):
        if handlers.satisfied(action, context):
            keeper.set(step.id, "already")
        else:
            keeper.set(
                step.id,
                "manual",
                mok.enrolment_steps(mok.read_mok_key(context.machine, action.certificate, action.module)),
            )
        return
    if step.state is not State.TODO:
        keeper.set(step.id, "manual")
        return
    cut_off = journal.is_interrupted(step.id)
    if handlers.satisfied(action, context):
        if cut_off:
            # cut off here once more, the next run sees that it was at work
            keeper.set(step.id, "running")
            handlers.settle(action, context, step.id, step.title)
            journal.record_end(keeper.run, step.id, "done", action, handlers.after(action, context))
        keeper.set(step.id, "already")
        return
    context.emit(Event("start", step.id, step.title))
    keeper.set(step.id, "running")
    try:
        facts = handlers.before(action, context, step.id, step.title) | handlers.expected(action, context)
        journal.record_start(keeper.run, step.id, step.title, action, facts)
        left = handlers.act(action, context, step.id, step.title)
        if left is not None:
            journal.record_end(keeper.run, step.id, "left", action, {"path": left.path})
            context.emit(
                Event("warning", step.id, f"{left.path} was changed since and is left as it is:\n{left.difference}")
            )
            keeper.set(step.id, "left", left.difference)
            return
        if not handlers.satisfied(action, context):
            raise OutsideFailed(
                "apply.not-verified",
                f"{step.title.rstrip('.')}: everything ran, and yet it is not done.",
                "The machine was looked at again and is not as this step wants it.",
                f"See {context.log or 'the log'}; gpu-setup doctor says more.",
            )
        if cut_off:
            handlers.settle(action, context, step.id, step.title)
    except Problem as problem:
        journal.record_end(keeper.run, step.id, "failed", action, {"code": problem.code})
        keeper.set(step.id, "failed", problem.what)
        raise
    journal.record_end(keeper.run, step.id, "done", action, handlers.after(action, context))
    keeper.set(step.id, "done")
    context.emit(Event("end", step.id, "done"))


class _RunRecorder:
    """Keeps the run's state and shows it after every change."""

    def __init__(self, journal: Journal, run: ApplyRun) -> None:
        self._journal, self.run = journal, run
        journal.save_run(run)

    def set(self, id: str, outcome: str, note: str = "") -> None:
        steps = tuple(
            msgspec.structs.replace(step, outcome=outcome, note=note) if step.id == id else step
            for step in self.run.steps
        )
        self._replace(steps=steps)

    def close(self, standing: str, problem: Problem) -> ApplyRun:
        self._replace(standing=standing, ended=now(), problem=stored_problem(problem), next=problem.next)
        return self.run

    def finish(self, plan: Plan) -> ApplyRun:
        """Done, or what is left: a person's part, a restart, or both."""
        outcomes = {step.id: step.outcome for step in self.run.steps}
        manual = [step for step in plan.steps if outcomes.get(step.id) == "manual"]
        restart = [step for step in plan.steps if isinstance(step.action, Reboot) and step.state is not State.DONE]
        keys = [step for step in manual if isinstance(step.action, MokEnroll)]
        if keys and restart:
            notes = {step.id: step.note for step in self.run.steps}
            standing, words = "person", notes[keys[0].id]
        elif restart:
            standing, words = "restart", "Restart when it suits you (sudo reboot), then: gpu-setup resume"
        elif manual and self.run.kind == "rollback":
            standing, words = "person", " ".join(step.because for step in manual)
        elif manual:
            standing, words = (
                "person",
                f"Yours to do: {'; '.join(step.title for step in manual)}. See gpu-setup plan -v",
            )
        else:
            standing, words = "done", "gpu-setup up" if self.run.kind != "rollback" else ""
        self._replace(standing=standing, ended=now(), next=words)
        return self.run

    def _replace(self, **changes: object) -> None:
        self.run = msgspec.structs.replace(self.run, **changes)
        self._journal.save_run(self.run)


def _check_system(context: ApplyContext) -> None:
    """Refuse before anything is changed where the system's folders cannot be written; clear what a cut-off run left."""
    for folder in ("/etc", "/usr", "/var/lib/dpkg", "/var/cache/apt"):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK):
            raise Refused(
                "file.read-only",
                f"{folder} cannot be written.",
                "Its file system is mounted read-only: after a disk error, or because the system is built that way.",
                "See why (sudo dmesg | grep -i remount), mount it writable, then: gpu-setup apply",
            )
    for path in stale_files.remove_stale(context.machine):
        context.emit(Event("note", "apply", f"{path} was left by a process that is gone, and is taken away."))
