"""Runs a plan: each step is checked, done and verified on facts read again, reported and recorded in the journal."""

from __future__ import annotations

import os
import threading

import msgspec

from machine.errors import Interrupted, OutsideFailed, Problem, Refused
from machine.events import Event
from provision.apply.handlers import handler_of
from provision.apply.journal import (
    ApplyRequest,
    ApplyRun,
    Journal,
    Standing,
    StepOutcome,
    StepResult,
    now,
    stored_problem,
)
from provision.apply_context import ApplyContext
from provision.model import KernelModule, MokEnroll, Plan, Reboot, State, Step
from provision.system import mok, stale_files

ROLLBACK = "sudo /usr/local/lib/gpu-setup/gpu-setup rollback"


def read_boot_id(context: ApplyContext) -> str | None:
    """The id of the current boot."""
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
    """Do the plan's open steps in order and return the run; a step's failure is recorded in it, not raised.

    Stops before a reboot, which the caller decides about. `stop`: stop after the current step.
    """
    recorder = _RunRecorder(journal, run)
    try:
        _check_system(context)
        for step in request.plan.steps:
            if stop is not None and stop.is_set():
                raise Interrupted(
                    "apply.stopped", "Stopped between two steps.", "You asked for it.", "Continue: gpu-setup resume"
                )
            _run_step(step, context, journal, recorder)
    except Problem as problem:
        return recorder.close("failed", problem)
    except Exception as error:
        recorder.close(
            "failed",
            OutsideFailed("apply.bug", "gpu-setup has a bug.", f"{type(error).__name__}: {error}", "Please report it."),
        )
        raise
    return recorder.finish(request.plan)


def _run_step(step: Step, context: ApplyContext, journal: Journal, recorder: _RunRecorder) -> None:
    action, handler = step.action, handler_of(step.action)
    if step.state is State.DONE or isinstance(action, Reboot):
        return
    if isinstance(action, MokEnroll):
        if handler.is_satisfied(action, context):
            recorder.set(step.id, "already")
        else:
            key = mok.read_mok_key(context.machine, action.certificate, action.module)
            recorder.set(step.id, "manual", mok.enrolment_steps(key))
        return
    if step.state is not State.TODO:
        recorder.set(step.id, "manual")
        return
    context = context._replace(stage=step.id, title=step.title.rstrip("."))
    was_interrupted = journal.is_interrupted(step.id)
    if handler.is_satisfied(action, context):
        if was_interrupted:
            # if this is interrupted too, the next run sees that this step was at work
            recorder.set(step.id, "running")
            handler.finish_interrupted(action, context)
            journal.record_end(recorder.run, step.id, "done", action, handler.facts_after(action, context))
        recorder.set(step.id, "already")
        return
    context.emit(Event("start", step.id, step.title))
    recorder.set(step.id, "running")
    try:
        facts = handler.facts_before(action, context) | handler.facts_expected(action, context)
        journal.record_start(recorder.run, step.id, step.title, action, facts)
        changed = handler.carry_out(action, context)
        if changed is not None:
            journal.record_end(recorder.run, step.id, "left", action, {"path": changed.path})
            text = f"{changed.path} was changed by someone else and is kept:\n{changed.difference}"
            context.emit(Event("warning", step.id, text))
            recorder.set(step.id, "left", changed.difference)
            return
        if not handler.is_satisfied(action, context):
            raise OutsideFailed(
                "apply.not-verified",
                f"{context.title}: every command succeeded, but the step is not done.",
                "Verification failed: the expected state was not reached.",
                f"See {context.log or 'the log'}; gpu-setup doctor shows more.",
            )
        if was_interrupted:
            handler.finish_interrupted(action, context)
    except Problem as problem:
        journal.record_end(recorder.run, step.id, "failed", action, {"code": problem.code})
        recorder.set(step.id, "failed", problem.what)
        raise
    journal.record_end(recorder.run, step.id, "done", action, handler.facts_after(action, context))
    recorder.set(step.id, "done")
    context.emit(Event("end", step.id, "done"))


class _RunRecorder:
    """Records the state of the run and publishes it after every change."""

    def __init__(self, journal: Journal, run: ApplyRun) -> None:
        self._journal, self.run = journal, run
        journal.save_run(run)

    def set(self, id: str, outcome: StepOutcome, note: str = "") -> None:
        steps = tuple(
            msgspec.structs.replace(step, outcome=outcome, note=note) if step.id == id else step
            for step in self.run.steps
        )
        self._replace(steps=steps)

    def close(self, standing: Standing, problem: Problem) -> ApplyRun:
        self._replace(standing=standing, ended=now(), problem=stored_problem(problem), next=problem.next)
        return self.run

    def finish(self, plan: Plan) -> ApplyRun:
        """The run is done, or waits for a person, a reboot, or both."""
        outcomes = {step.id: step.outcome for step in self.run.steps}
        manual = [step for step in plan.steps if outcomes.get(step.id) == "manual"]
        restart = [step for step in plan.steps if isinstance(step.action, Reboot) and step.state is not State.DONE]
        keys = [step for step in manual if isinstance(step.action, MokEnroll)]
        settings = [step for step in manual if isinstance(step.action, KernelModule)]
        standing: Standing
        if keys and restart:
            notes = {step.id: step.note for step in self.run.steps}
            standing, next = "person", notes[keys[0].id]
        elif settings and restart:
            titles = "; ".join(step.title for step in settings)
            standing, next = (
                "person",
                f"First by hand: {titles} (gpu-setup plan -v shows the commands). Then reboot, and: gpu-setup resume",
            )
        elif restart:
            standing, next = "restart", "Reboot when it suits you (sudo reboot), then: gpu-setup resume"
        elif manual and self.run.kind == "rollback":
            standing, next = "person", " ".join(step.because for step in manual)
        elif manual:
            standing, next = (
                "person",
                f"To do by hand: {'; '.join(step.title for step in manual)}. See gpu-setup plan -v",
            )
        else:
            standing, next = "done", "gpu-setup up" if self.run.kind != "rollback" else ""
        self._replace(standing=standing, ended=now(), next=next)
        return self.run

    def _replace(self, **changes: object) -> None:
        self.run = msgspec.structs.replace(self.run, **changes)
        self._journal.save_run(self.run)


def _check_system(context: ApplyContext) -> None:
    """Refuse, before any change, a system whose folders cannot be written; remove stale files of killed processes."""
    for folder in ("/etc", "/usr", "/var/lib/dpkg", "/var/cache/apt"):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK):
            raise Refused(
                "file.read-only",
                f"{folder} cannot be written.",
                "Its file system is mounted read-only: after a disk error, or because the system is built that way.",
                "Find out why (sudo dmesg | grep -i remount), mount it writable, then: gpu-setup apply",
            )
    for path in stale_files.remove_stale(context.machine):
        context.emit(Event("note", "apply", f"removing the stale file {path} of a process that has ended"))
