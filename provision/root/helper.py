"""What root does, from its own copy of the tool: the only place where a request becomes changes."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.person import database_groups
from checks.facts.read import read_host
from machine.errors import BadAnswer, Problem, Refused
from machine.events import Emit, Event
from machine.local import LocalMachine, Machine, Unreadable
from provision.apply import blockers, resume_unit
from provision.apply.executor import ROLLBACK, new_run, read_boot_id, run_plan
from provision.apply.journal import ApplyRequest, ApplyRun, Journal, JournalEntry, now, stored_problem
from provision.apply.status import reopen_interrupted
from provision.apply_context import LIBRARY, STATE, SYSTEMD, ApplyContext
from provision.model import Plan, Reboot, State
from provision.plan.comparison import with_apt_answers
from provision.plan.planner import make_plan
from provision.root.request_check import approved_plan, check_request
from provision.root.tool_copy import here

# root's own plan for a request
OwnPlan = Callable[[ApplyRequest, ApplyContext, Journal], Plan]


def new_run_name() -> str:
    """`20261124T204500-3f9a`: sorts by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def new_context(name: str, machine: Machine, emit: Emit, environ: dict[str, str]) -> ApplyContext:
    log = STATE / "runs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    os.close(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return ApplyContext(machine, emit, STATE, str(log), environ, os.path.isdir(SYSTEMD))


def read_host_for(machine: Machine, person: str | None) -> Host:
    """The facts as root reads them, with the user who called sudo in root's place."""
    host = read_host(machine)
    return with_person(host, machine, person)


def with_person(host: Host, machine: Machine, person: str | None) -> Host:
    if person is None or person == host.person.user:
        return host
    try:
        group, passwd = machine.read("/etc/group").decode(), machine.read("/etc/passwd").decode()
    except (Unreadable, UnicodeDecodeError):
        group = passwd = ""
    uid = next((int(line.split(":")[2]) for line in passwd.splitlines() if line.startswith(f"{person}:")), None)
    behind = msgspec.structs.replace(
        host.person,
        uid=uid,
        user=person,
        groups=None,
        database_groups=database_groups(person, group, passwd) if group and passwd else None,
    )
    return msgspec.structs.replace(host, person=behind)


def plan_here(request: ApplyRequest, context: ApplyContext, journal: Journal) -> Plan:
    """Root's own plan for a request of kind apply, with apt's answers of the request."""
    host = read_host_for(context.machine, request.person)
    if request.docker is not None:
        host = msgspec.structs.replace(host, docker=request.docker)
    own = make_plan(host, catalogue(), request.plan.target, request.plan.without)
    reopened = reopen_interrupted(own.steps, journal.load_run())
    return with_apt_answers(msgspec.structs.replace(own, steps=reopened), request.plan)


def run_request(request: ApplyRequest, emit: Emit, own_plan: OwnPlan) -> ApplyRun:
    """Run the request until it ends or needs a reboot. Raises Problem only for what prevents its start.

    What is carried out is `own_plan`, if the request says the same.
    """
    check_request(request, catalogue())
    os.umask(0o022)
    os.environ.update(request.environ)
    journal = Journal(STATE)
    journal.open()
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, lambda number, frame: stop.set())
    name = new_run_name()
    context = new_context(name, LocalMachine(), emit, request.environ)
    with journal.lock():
        approved = approved_plan(request, own_plan(request, context, journal))
        request = msgspec.structs.replace(request, plan=approved)
        if request.kind == "rollback":
            # neither the next boot nor a person's resume may continue what is being undone
            resume_unit.disarm(context)
            journal.delete_request()
        else:
            _check_gpu_idle(request, context)
            journal.save_request(request)
        run = run_plan(request, context, journal, new_run(request, context, name), stop)
        if request.kind == "rollback" and run.standing == "done":
            journal.write(JournalEntry(time=now(), run=run.run, kind="rollback", phase="end"))
        if run.standing == "restart" and request.reboot:
            run = _reboot(request, context, journal, run, 0)
    return run


def _check_gpu_idle(request: ApplyRequest, context: ApplyContext) -> None:
    """Root sees every process, other users only their own: checked once more before anything starts."""
    if request.busy or not blockers.changes_driver(request.plan):
        return
    if found := blockers.gpu_users(context.machine).computing:
        raise blockers.gpu_in_use(found)


def resume_request(emit: Emit, *, at_boot: bool, reboot: bool = False) -> ApplyRun:
    """Make a new plan from the facts, and do the open steps of the approved plan.

    Raises Refused when there is nothing to resume.
    """
    os.umask(0o022)
    journal = Journal(STATE)
    journal.open()
    machine = LocalMachine()
    request = _saved_request(journal, ApplyContext(machine, emit, STATE, systemd=os.path.isdir(SYSTEMD)), at_boot)
    os.environ.update(request.environ)
    name = new_run_name()
    context = new_context(name, machine, emit, request.environ)
    attempt = resume_unit.read_armed(context)
    if at_boot:
        if attempt is None:
            raise Refused("resume.not-armed", "No resume is armed.")
        if attempt.boot_id is not None and attempt.boot_id == read_boot_id(context):
            raise Refused("resume.same-boot", "The machine was not rebooted since.", "", "sudo reboot")
    reboot = reboot or (at_boot and request.reboot)
    before = journal.load_run()
    with journal.lock():
        if at_boot and attempt is not None:
            resume_unit.arm(context, copy_command("resume", "--at-boot"), attempt.boot_id, attempt.attempts + 1)
        host = read_host_for(machine, request.person)
        if request.kind == "update":
            # apt was asked when the plan was approved; each step checks by itself what of it is done
            fresh = _with_reboot_done(request.plan, before, read_boot_id(context))
        else:
            fresh = make_plan(host, catalogue(), request.plan.target, request.plan.without)
            fresh = msgspec.structs.replace(fresh, steps=reopen_interrupted(fresh.steps, before))
        run = _finish_without_work(request, fresh, context, journal, name)
        if run is None:
            agreed = msgspec.structs.replace(request, plan=fresh, kind="resume", reboot=reboot)
            stop = threading.Event()
            for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(sign, lambda number, frame: stop.set())
            run = run_plan(agreed, context, journal, new_run(agreed, context, name), stop)
            run = _check_driver_bound(run, fresh, before, journal)
        attempts = attempt.attempts + 1 if at_boot and attempt else 0
        if run.standing == "restart" and reboot and attempts < resume_unit.ATTEMPTS:
            run = _reboot(msgspec.structs.replace(request, reboot=True), context, journal, run, attempts)
        else:
            # the message first: after an interruption between the two, the next boot only writes it again
            if at_boot:
                resume_unit.write_login_message(run)
            resume_unit.disarm(context)
    return run


def _saved_request(journal: Journal, context: ApplyContext, at_boot: bool) -> ApplyRequest:
    """The request that was approved; one that is damaged or not allowed is not tried again at every boot."""
    try:
        request = journal.load_request()
        if request is None:
            raise _nothing_to_resume(journal.load_run())
        check_request(request, catalogue(), str(journal.place / "request.json"))
    except Problem:
        if at_boot:
            resume_unit.disarm(context)
        raise
    return request


def _nothing_to_resume(last: ApplyRun | None) -> Refused:
    if last is not None and last.kind == "rollback" and last.standing != "done":
        return Refused(
            "resume.rollback",
            "A rollback was started and has not finished.",
            "There is no approved plan left to resume.",
            "gpu-setup rollback continues it; gpu-setup apply installs again.",
        )
    return Refused("resume.nothing", "There is nothing to resume.", "No apply was started here.", "gpu-setup apply")


def _with_reboot_done(agreed: Plan, before: ApplyRun | None, boot_id: str | None) -> Plan:
    """The approved plan, with its reboot done if the machine was rebooted since."""
    restarted = before is not None and before.standing == "restart" and before.boot_id != boot_id
    steps = tuple(
        msgspec.structs.replace(step, state=State.DONE) if restarted and isinstance(step.action, Reboot) else step
        for step in agreed.steps
    )
    return msgspec.structs.replace(agreed, steps=steps)


def _finish_without_work(
    request: ApplyRequest, fresh: Plan, context: ApplyContext, journal: Journal, name: str
) -> ApplyRun | None:
    """A finished run when the facts do not allow to continue; None when the new plan can be run."""
    agreed = msgspec.structs.replace(request, plan=fresh, kind="resume")
    run = new_run(agreed, context, name)

    def refuse(code: str, what: str, why: str, next: str) -> ApplyRun:
        problem = stored_problem(Refused(code, what, why, next))
        ended = msgspec.structs.replace(run, standing="failed", problem=problem, next=next)
        journal.save_run(ended)
        return ended

    if fresh.refusals:
        first = fresh.refusals[0]
        return refuse(first.code, first.what, first.why, first.next)
    known = {step.id for step in request.plan.steps}
    new = [step for step in fresh.open_steps() if step.id not in known and step.id != "dpkg-repair"]
    if new:
        return refuse(
            "resume.changed",
            f"The machine has changed: the plan would now also {new[0].title[:1].lower()}{new[0].title[1:]}.",
            "Nobody approved that, so nothing was done.",
            "gpu-setup plan shows the open steps, gpu-setup apply does them.",
        )
    return None


def _check_driver_bound(run: ApplyRun, fresh: Plan, before: ApplyRun | None, journal: Journal) -> ApplyRun:
    """A reboot that changed nothing is not requested twice: then something prevents the driver from using the GPU."""
    restarted = before is not None and before.boot_id not in (None, run.boot_id)
    if run.standing != "restart" or not restarted or any(step.outcome == "done" for step in run.steps):
        return run
    because = next((step.because for step in fresh.steps if isinstance(step.action, Reboot)), "")
    problem = BadAnswer(
        "resume.not-driven",
        "The machine was rebooted, and the driver still does not control the GPU.",
        because,
        f"gpu-setup doctor shows the cause; to undo: {ROLLBACK}",
    )
    run = msgspec.structs.replace(run, standing="failed", problem=stored_problem(problem), next=problem.next)
    journal.save_run(run)
    return run


def _reboot(request: ApplyRequest, context: ApplyContext, journal: Journal, run: ApplyRun, attempts: int) -> ApplyRun:
    """Arm the resume unit, print how to undo, and reboot; not where something prevents an unattended reboot."""
    environ = {"SSH_CONNECTION": "yes"} if request.ssh else {}
    against = blockers.reboot_blockers(context.machine, environ)
    if not context.systemd:
        against = ("systemd does not run here, so nothing could resume after the reboot.", *against)
    if against:
        said = f"Not rebooted: {' '.join(against)} Reboot when it suits you (sudo reboot), then: gpu-setup resume"
        run = msgspec.structs.replace(run, next=said, notes=(*run.notes, *against))
        journal.save_run(run)
        return run
    resume_unit.arm(context, copy_command("resume", "--at-boot"), read_boot_id(context), attempts)
    for line in recovery_notes(context):
        context.emit(Event("note", "restart", line))
    run = msgspec.structs.replace(
        run,
        next="The machine reboots now and continues by itself; afterwards: gpu-setup status",
        notes=recovery_notes(context),
    )
    journal.save_run(run)
    os.sync()
    outcome = context.machine.run(("systemctl", "reboot", "--no-wall"), timeout=60)
    if not outcome.ok:
        resume_unit.disarm(context)
        run = msgspec.structs.replace(run, next=f"systemctl reboot failed: {outcome.stderr.strip()}")
        journal.save_run(run)
    return run


def recovery_notes(context: ApplyContext) -> tuple[str, ...]:
    """What to do when the machine does not boot as expected: printed before the reboot."""
    return (
        "If the screen stays black: hold Esc (or Shift) while it boots, choose Advanced options and an older kernel",
        f"or its recovery mode, and there: {ROLLBACK.removeprefix('sudo ')}",
    )


def copy_command(*arguments: str) -> tuple[str, ...]:
    """argv of this copy; only root's own copy is ever put into a unit."""
    place = here()
    if not place.is_relative_to(LIBRARY):
        raise AssertionError("the unit would run a program that does not belong to root")
    return (str(Path(place).parent / "bin/python"), "-I", str(place / "gpu_setup/__main__.py"), *arguments)
