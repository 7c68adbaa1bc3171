"""Changes to the system as a person sees them: the plan, a question, root's progress, the answer."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from gpu_setup.envelope import Answer
from gpu_setup.render.progress import reporter
from gpu_setup.terminal import confirm, echo
from machine.errors import Refused
from machine.events import Emit
from machine.local import LocalMachine, Machine
from provision.apply.journal import ApplyRequest, ApplyRun, RunKind
from provision.model import Plan
from provision.root.approval import driver_use, exit_code, make_request, nothing_to_do
from provision.root.sudo import launch, launch_plan, restore_problem


class Consent(NamedTuple):
    """What a person approved beforehand, on the command line; `as_json`: nobody reads, so nothing is shown."""

    yes: bool
    as_json: bool
    verbose: bool = False
    while_busy: bool = False
    reboot: bool = False


class Target(NamedTuple):
    """The machine that the plan is for."""

    machine: Machine
    host: Host
    catalogue: Catalogue


def approve_and_run(kind: RunKind, plan: Plan, target: Target, consent: Consent) -> Answer:
    """Show the plan, ask, and let root carry it out; refused where nobody can answer."""
    from gpu_setup.render.machine import machine_line

    show_plan(plan, machine_line(target.host, target.catalogue), consent)
    ask("Continue?", yes=consent.yes)
    return run_plan(kind, plan, target, consent)


def run_plan(kind: RunKind, plan: Plan, target: Target, consent: Consent) -> Answer:
    """Let root carry out a plan that was approved; a driver in use is asked about first."""
    agreed = ask_while_busy(plan, target, consent)
    engine = target.host.docker
    request = make_request(kind, plan, target.machine, os.environ, docker=engine, busy=agreed, reboot=consent.reboot)
    answer = run_as_root(("apply", "--inside"), request, consent.as_json)
    run = answer.data
    if plan.unresolved and isinstance(run, ApplyRun) and run.next == "gpu-setup up":
        # root does not know it, and training would fail
        return answer_of(msgspec.structs.replace(run, next="gpu-setup doctor"))
    return answer


def show_plan(plan: Plan, title: str, consent: Consent) -> None:
    from gpu_setup.render.plan import plan_text

    if not consent.as_json:
        echo(plan_text(plan, title, consent.verbose, hint=False), err=True)


def ask(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            "apply.no-terminal", "This asks before it changes anything, and there is no terminal.", "", "Use --yes."
        )
    confirm(question, default=True, abort=True)


def ask_while_busy(plan: Plan, target: Target, consent: Consent) -> bool:
    """Whether the person wants a driver changed that a program computes with: --while-busy, or their answer."""
    if consent.while_busy:
        return True
    use = driver_use(target.machine, target.host, plan)
    if use is None:
        return False
    if not consent.yes:
        ask(use.question, yes=False)
    elif use.refusal is not None:
        raise use.refusal
    return use.refusal is not None


def roll_back(consent: Consent) -> Answer:
    """Root reads the journal and answers with a plan; shown, asked and carried out as any other."""
    from gpu_setup.version import version

    with progress(consent.as_json) as emit:
        plan = launch_plan(("rollback", "--show"), version(), emit)
    if not plan.open_steps():
        return answer_of(nothing_to_do(plan, "rollback"))
    show_plan(plan, "To undo", consent)
    ask("Roll back?", yes=consent.yes)
    return run_as_root(
        ("apply", "--inside"), make_request("rollback", plan, LocalMachine(), os.environ), consent.as_json
    )


def run_as_root(arguments: tuple[str, ...], request: ApplyRequest | None, as_json: bool) -> Answer:
    """Hand over to root, show its events, and answer."""
    from gpu_setup.version import version

    with progress(as_json) as emit:
        run = launch(arguments, request, version(), emit)
    return answer_of(run)


def progress(as_json: bool) -> AbstractContextManager[Emit]:
    """Bars where rich is installed; plain lines from root's own copy, which does without."""
    return reporter(as_json or find_spec("rich") is None)


def answer_of(run: ApplyRun) -> Answer:
    def text() -> str:
        from gpu_setup.render.apply import run_text

        return run_text(run)

    problems = () if run.problem is None else (restore_problem(run.problem),)
    return Answer("apply", run, exit_code(run), text, problems)
