"""`gpu-setup apply`: carry a plan out; resume, rollback and update end in the same way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.plan import refusal_problem, target_options
from gpu_setup.envelope import Answer
from machine.errors import FINE, REBOOT_ARMED, Problem, Refused

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from checks.catalogue import Catalogue
    from checks.facts.host import Host
    from machine.events import Emit
    from machine.local import Machine
    from provision.apply.journal import Request, Run
    from provision.model import Plan
    from provision.target import Target

EPILOG = """\b
Examples:
  gpu-setup apply                     show the plan, ask, carry it out
  gpu-setup apply --yes --reboot      the same without questions, restart and go on by itself
  gpu-setup plan --out plan.json      keep a plan for review …
  gpu-setup apply --plan plan.json    … and carry out exactly that one

\b
Stopped half-way (power cut, lost connection)? Run it again: what is done is not done again.
Exit codes: 0 done, or nothing to do; 3 refused, nothing changed; 4 something outside failed;
5 stopped for a restart or for you, resume goes on; 130 interrupted.
"""

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
reboot_option = click.option(
    "--reboot", is_flag=True, help="Restart by itself where it is needed, and go on afterwards."
)


@click.command(epilog=EPILOG)
@json_option
@yes_option
@target_options
@click.option("--plan", "plan_file", metavar="FILE", type=click.Path(dir_okay=False), help="This plan and no other.")
@reboot_option
@click.option("--while-busy", is_flag=True, help="Also while a program uses the card.")
@click.option("-v", "--verbose", is_flag=True, help="Also the commands and the way back.")
@click.option("--inside", is_flag=True, hidden=True)
def command(
    as_json: bool,
    yes: bool,
    wanted: Target,
    plan_file: str | None,
    reboot: bool,
    while_busy: bool,
    verbose: bool,
    inside: bool,
) -> Answer | int:
    """Install and change what the plan says, after asking. Each step is checked, done and checked again."""
    if inside:
        from gpu_setup.root_entry import apply_inside

        return apply_inside()
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from machine.local import LocalMachine
    from provision.apply.journal import Request
    from provision.resolve.resolver import completed
    from provision.root.helper import network_settings, with_person

    machine, known = LocalMachine(), catalogue()
    person = behind_sudo(machine)
    host = with_person(read_host(machine), machine, person)
    made = completed(host, known, wanted, machine) if plan_file is None else reviewed(plan_file, host, known)
    if not made.open_steps() and not made.refusals:
        return nothing(made)
    refuse(made)
    question(made, host, known, yes=yes, verbose=verbose, as_json=as_json)
    agreed = busy_or_go(machine, host, made, yes=yes, while_busy=while_busy)
    request = Request(
        kind="apply",
        plan=made,
        person=person,
        busy=agreed,
        reboot=reboot,
        ssh=bool(os.environ.get("SSH_CONNECTION")),
        environ=network_settings(dict(os.environ)),
    )
    return carried_out(("apply", "--inside"), request, as_json)


def before_training(machine: Machine, host: Host, made: Plan, *, yes: bool, as_json: bool) -> Answer | None:
    """For `up`: the plan that was shown, carried out if the person wants it; None where it is not, or cannot be.

    After a restart that was part of it, what is left goes on as in `resume`.
    """
    from provision.apply.journal import Request
    from provision.apply.status import standing
    from provision.model import State
    from provision.root.helper import network_settings

    if made.refusals or any(step.state is State.BLOCKED for step in made.steps) or not made.open_steps():
        return None
    if not yes:
        import sys

        if not sys.stdin.isatty() or not click.confirm("Install what the plan says now?", default=True, err=True):
            return None
    if standing(machine).standing == "restarted":
        return _then_up(carried_out(("resume", "--inside"), None, as_json))
    agreed = busy_or_go(machine, host, made, yes=yes, while_busy=False)
    request = Request(
        kind="apply",
        plan=made,
        person=behind_sudo(machine),
        busy=agreed,
        ssh=bool(os.environ.get("SSH_CONNECTION")),
        environ=network_settings(dict(os.environ)),
    )
    return _then_up(carried_out(("apply", "--inside"), request, as_json))


def _then_up(answer: Answer) -> Answer:
    """Whoever came by `up` goes on by `up`, which does what is left and then trains."""
    import msgspec

    from provision.apply.journal import Run

    run = answer.data
    if not isinstance(run, Run) or answer.exit_code != REBOOT_ARMED:
        return answer
    return answer_of(msgspec.structs.replace(run, next=run.next.replace("gpu-setup resume", "gpu-setup up")))


def behind_sudo(machine: Machine) -> str | None:
    """Who asks: the person behind sudo, not root."""
    session = machine.session()
    if session.uid == 0:
        return session.environ.get("SUDO_USER") or session.user
    return session.user


def reviewed(path: str, host: Host, known: Catalogue) -> Plan:
    """The plan of the file, if nobody changed it and the machine is still as it was."""
    from provision.plan.plan_file import load
    from provision.plan.planner import differences, plan

    made = load(path)
    fresh = plan(host, known, made.target)
    if changed := differences(made, fresh):
        raise Refused(
            "apply.changed",
            "The machine is not as it was when this plan was made.",
            "; ".join(changed[:6]) + ("; …" if len(changed) > 6 else "."),
            "gpu-setup plan makes it anew.",
        )
    return made


def nothing(made: Plan) -> Answer:
    """The answer where every step is done: no root, no apt, no question."""
    from provision.apply.journal import Run, StepResult, now

    moment = now()
    run = Run(
        run="",
        kind="apply",
        standing="done",
        plan_digest=made.digest,
        began=moment,
        ended=moment,
        steps=tuple(StepResult(id=step.id, title=step.title, outcome="already") for step in made.steps),
        notes=made.notes,
        next="gpu-setup up",
    )
    return answer_of(run)


def refuse(made: Plan) -> None:
    """Stop where the plan is a refusal, or where a step waits for what only a person can put right."""
    from provision.model import State

    if made.refusals:
        raise refusal_problem(made.refusals[0])
    blocked = next((step for step in made.steps if step.state is State.BLOCKED), None)
    if blocked is not None:
        raise Refused(
            "apply.blocked",
            f"{blocked.title}: this step cannot be done yet, so nothing was begun.",
            blocked.because,
            "Put that right, or leave the part out (gpu-setup apply --help), then: gpu-setup apply",
        )


def question(made: Plan, host: Host, known: Catalogue, *, yes: bool, verbose: bool, as_json: bool) -> None:
    """Show the plan on stderr and ask; refused where nobody can answer."""
    from gpu_setup.render.machine import machine_line
    from gpu_setup.render.plan import plan_text

    if not as_json:
        click.echo(plan_text(made, machine_line(host, known), verbose, hint=False), err=True)
    ask("Go on?", yes=yes)


def ask(words: str, *, yes: bool) -> None:
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            "apply.no-terminal", "This asks before it changes anything, and there is no terminal.", "", "Use --yes."
        )
    click.confirm(words, default=True, abort=True, err=True)


def busy_or_go(machine: Machine, host: Host, made: Plan, *, yes: bool, while_busy: bool) -> bool:
    """A driver is not changed under a program that uses it, unless somebody says so: then True."""
    from provision.apply.blockers import busy, touches_driver

    if while_busy or not touches_driver(made):
        return while_busy
    found = busy(machine, host)
    if found.computing:
        who = ", ".join(found.computing[:4])
        if yes:
            raise Refused(
                "apply.busy",
                f"The card is in use by {who}.",
                "Its libraries would be replaced under the running program.",
                "Wait until it has finished or end it; or: gpu-setup apply --while-busy",
            )
        ask(f"The card is in use by {who}, whose libraries would be replaced. Go on all the same?", yes=False)
        return True
    if found.displaying and (host.nvidia.module_version or host.amd.module_version) and not yes:
        who = ", ".join(found.displaying[:2])
        ask(f"A desktop runs on this card ({who}): new programs may fail until the restart. Go on?", yes=False)
    return False


def carried_out(arguments: tuple[str, ...], request: Request | None, as_json: bool) -> Answer:
    """Hand over to root, show what it says, and answer."""
    from gpu_setup.version import version
    from provision.root.sudo import launch

    with progress(as_json) as emit:
        run = launch(arguments, request, version(), emit)
    return answer_of(run)


def progress(as_json: bool) -> AbstractContextManager[Emit]:
    """Bars where rich is there; plain lines from root's own copy, which does without."""
    from importlib.util import find_spec

    from gpu_setup.render.progress import reporter

    return reporter(as_json or find_spec("rich") is None)


def answer_of(run: Run) -> Answer:
    """0 done; 5 a restart or a person's part comes next; else the problem's own code."""
    from provision.root.sudo import problem_of

    problems: tuple[Problem, ...] = ()
    code = FINE
    if run.problem is not None:
        problems, code = (problem_of(run.problem),), run.problem.exit_code
    elif run.standing in ("restart", "person") and (
        run.kind == "rollback" or any(step.id == "reboot" for step in run.steps)
    ):
        code = REBOOT_ARMED

    def text() -> str:
        from gpu_setup.render.apply import run_text

        return run_text(run)

    return Answer("apply", run, code, text, problems)
