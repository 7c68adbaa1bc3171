"""Before root changes anything: whether the plan can be carried out, what a person is asked, what root receives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Docker, Host
from machine.errors import FINE, REBOOT_ARMED, Refused
from machine.local import Machine
from provision.apply.blockers import changes_driver, gpu_in_use, gpu_users
from provision.apply.journal import ApplyRequest, ApplyRun, RunKind, StepResult, now
from provision.model import KernelModule, Plan, Refusal, State
from provision.plan.allowed import check_actions
from provision.plan.comparison import differences, with_done
from provision.plan.plan_file import as_written, load_plan
from provision.plan.planner import changed_facts
from provision.root.request_check import difference_text, network_settings


class DriverUse(NamedTuple):
    """What is asked before a driver that is in use is changed. `refusal`: raised where nobody is asked; None: not."""

    question: str
    refusal: Refused | None


def requesting_user(machine: Machine) -> str | None:
    """Who asks: the person behind sudo, not root."""
    session = machine.session()
    if session.uid == 0:
        return session.environ.get("SUDO_USER") or session.user
    return session.user


def load_reviewed(path: str, catalogue: Catalogue) -> Plan:
    """The plan in the file; raises Refused where it was damaged or has a step that no plan of gpu-setup has."""
    made = load_plan(path)
    check_actions(made, catalogue, path)
    return made


def require_same(reviewed: Plan, fresh: Plan, path: str, last: ApplyRun | None) -> None:
    """Raise Refused, with the differences, where the file does not say what the planner says on this machine now.

    `last`: the last run on this machine; the steps that it has done are not done again.
    """
    fresh = as_written(fresh)
    finished = {step.id for step in last.steps if step.outcome in ("done", "already")} if last else set()
    found = differences(with_done(reviewed, finished - {step.id for step in fresh.open_steps()}), fresh)
    if not found:
        return
    why = difference_text(found, "the file")
    next = "Review the plan for this machine: gpu-setup plan -v; gpu-setup plan --out FILE keeps it."
    if changed := changed_facts(reviewed, fresh):
        facts = "; ".join(changed[:6]) + ("; …" if len(changed) > 6 else ".")
        raise Refused("apply.changed", "The machine is not as it was when this plan was made.", f"{why} {facts}", next)
    raise Refused("plan.differs", f"{path} is not the plan that gpu-setup makes for this machine.", why, next)


def refusal_problem(refusal: Refusal) -> Refused:
    return Refused(refusal.code, refusal.what, refusal.why, refusal.next)


def require_doable(made: Plan) -> None:
    """Raise Refused where the plan is a refusal, or where a step waits for what only a person can do."""
    if made.refusals:
        raise refusal_problem(made.refusals[0])
    blocked = next((step for step in made.steps if step.state is State.BLOCKED), None)
    if blocked is not None:
        raise Refused(
            "apply.blocked",
            f"{blocked.title}: this step cannot be done yet, so nothing was started.",
            blocked.because,
            "Fix that, or leave the part out (gpu-setup apply --help), then: gpu-setup apply",
        )


def can_be_done(made: Plan) -> bool:
    """Whether gpu-setup has something to do, and nothing stops it."""
    blocked = made.refusals or any(step.state is State.BLOCKED for step in made.steps)
    return not blocked and not is_by_hand(made)


def is_by_hand(made: Plan) -> bool:
    """Whether every open step is a person's own setting; also where no step is open."""
    return all(isinstance(step.action, KernelModule) and step.state is State.MANUAL for step in made.open_steps())


def driver_use(machine: Machine, host: Host, made: Plan) -> DriverUse | None:
    """Who uses the driver that the plan changes; None: nobody, or the plan does not touch the driver."""
    if not changes_driver(made):
        return None
    found = gpu_users(machine, host)
    if found.computing:
        who = ", ".join(found.computing[:4])
        question = f"The GPU is in use by {who}, whose libraries would be replaced. Continue anyway?"
        return DriverUse(question, gpu_in_use(found.computing))
    if found.displaying and (host.nvidia.module_version or host.amd.module_version):
        who = ", ".join(found.displaying[:2])
        return DriverUse(
            f"A desktop runs on this card ({who}): new programs may fail until the reboot. Continue?", None
        )
    return None


def make_request(
    kind: RunKind,
    made: Plan,
    machine: Machine,
    environ: Mapping[str, str],
    *,
    docker: Docker | None = None,
    busy: bool = False,
    reboot: bool = False,
) -> ApplyRequest:
    """What root gets: the approved plan, who approved it, the engine that they see, and their way to the network."""
    return ApplyRequest(
        kind=kind,
        plan=made,
        person=requesting_user(machine),
        docker=docker,
        busy=busy,
        reboot=reboot,
        ssh=bool(environ.get("SSH_CONNECTION")),
        environ=network_settings(dict(environ)),
    )


def nothing_to_do(made: Plan, kind: RunKind = "apply") -> ApplyRun:
    """The run where every step is done already, or is a person's: no root, no apt, no question."""
    moment = now()
    rollback = kind == "rollback"
    left = made.open_steps()
    next = "gpu-setup doctor" if made.unresolved else "gpu-setup up"
    if left:
        next = f"To do by hand: {'; '.join(step.title for step in left)}. See gpu-setup plan -v"
    return ApplyRun(
        run="",
        kind=kind,
        standing="person" if left else "done",
        plan_digest=made.digest,
        began=moment,
        ended=moment,
        steps=tuple(
            StepResult(id=step.id, title=step.title, outcome="manual" if step in left else "already")
            for step in made.steps
        ),
        notes=made.notes or (("There is nothing to roll back.",) if rollback else ()),
        next="" if rollback else next,
    )


def exit_code(run: ApplyRun) -> int:
    """0 done; 5 a reboot or a person's part comes next; else the problem's own code."""
    if run.problem is not None:
        return run.problem.exit_code
    waits = run.standing in ("restart", "person")
    if waits and (run.kind == "rollback" or any(step.id == "reboot" for step in run.steps)):
        return REBOOT_ARMED
    return FINE
