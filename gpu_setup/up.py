"""The main job, as a short story: inspect → plan → (install) → environment → train → examine → report.

Each stage leaves a document and is reused while its inputs match, so a second `up` continues where the first stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import DoctorReport
from gpu_setup.envelope import Answer
from harness.environment.stack_choice import StackChoice, choose_stack
from harness.jobs.bench import SHORT_CEILING, check_preconditions, run_launch
from harness.jobs.default_recipe import SMALL, model_is_available
from harness.jobs.job_choice import HubCheck, JobRequest, hub_answers, job_on, usual_recipe
from harness.measure.run_context import MeasuringMethod
from harness.pipeline import (
    Job,
    Workplace,
    examine_run,
    find_finished_run,
    prepare,
    report_reuse,
    report_run,
    with_held_out,
)
from harness.recipe.loader import load_recipe
from harness.report.run_report import Report
from machine.errors import REBOOT_ARMED, Refused
from machine.local import Machine
from provision.apply.journal import ApplyRun
from provision.model import Plan

Ask = Callable[[str], bool]
Show = Callable[[str, str], None]


class Seen(NamedTuple):
    """What the first two stages found: the machine, what is wrong with it, what would be installed."""

    host: Host
    doctor: DoctorReport
    plan: Plan
    choice: StackChoice


class Person(NamedTuple):
    """Who runs `up`: `ask` a yes-or-no question, `show` them a stage and its text; `yes`: they answered beforehand."""

    ask: Ask
    show: Show = lambda stage, text: None
    yes: bool = False
    as_json: bool = False


def inspect(machine: Machine, catalogue: Catalogue) -> Seen:
    """Read the machine once, judge it and plan for it. Changes nothing."""
    from checks.facts.read import read_host
    from checks.registry import ALL
    from checks.runner import run
    from provision.plan.planner import make_plan
    from provision.plan.unresolved import with_unresolved
    from provision.target import PlanTarget

    host = read_host(machine)
    report = run(host, catalogue, ALL)
    plan = with_unresolved(make_plan(host, catalogue, PlanTarget()), report)
    return Seen(host, report, plan, choose_stack(host, catalogue))


def to_install(seen: Seen) -> bool:
    """Whether there is a card that cannot be used yet."""
    return not seen.choice.gpu and seen.plan.vendor is not None


def with_versions(seen: Seen, machine: Machine, catalogue: Catalogue) -> Seen:
    """The plan with what apt answers to it, so that what is approved is what is then done."""
    from provision.resolve.resolver import resolve_plan
    from provision.root.approval import requesting_user
    from provision.root.helper import with_person

    host = with_person(seen.host, machine, requesting_user(machine))
    return seen._replace(plan=resolve_plan(host, catalogue, seen.plan.target, machine))


def inspect_and_install(machine: Machine, catalogue: Catalogue, person: Person) -> Seen | Answer:
    """The machine as it is before training; the installation's answer where `up` ends with it."""
    seen = inspect(machine, catalogue)
    waits = to_install(seen)
    if waits:
        seen = with_versions(seen, machine, catalogue)
    show_seen(seen, catalogue, person)
    installed = install(seen, machine, catalogue, person) if waits else None
    if installed is None:
        return seen
    return installed if installed.exit_code else inspect(machine, catalogue)


def show_seen(seen: Seen, catalogue: Catalogue, person: Person) -> None:
    if person.as_json:
        return
    from gpu_setup.render.doctor import summary_text
    from gpu_setup.render.machine import machine_line
    from gpu_setup.render.plan import plan_text

    person.show("Inspect", summary_text(seen.doctor, seen.host, catalogue))
    person.show("Plan", plan_text(seen.plan, machine_line(seen.host, catalogue), verbose=False))


def install(seen: Seen, machine: Machine, catalogue: Catalogue, person: Person) -> Answer | None:
    """Carry out the plan that was shown, if the person wants it; None where they do not, or it cannot be done.

    After a reboot that was part of it, the remaining steps are done as in `resume`.
    """
    from gpu_setup.run_as_root import Consent, Target, answer_of, run_as_root, run_plan
    from provision.apply.status import apply_status
    from provision.root.approval import can_be_done

    if not can_be_done(seen.plan):
        return None
    if not person.yes and (not sys.stdin.isatty() or not person.ask("Install what the plan lists now?")):
        return None
    if apply_status(machine).standing == "restarted":
        answer = run_as_root(("resume", "--inside"), None, person.as_json)
    else:
        target = Target(machine, seen.host, catalogue)
        answer = run_plan("apply", seen.plan, target, Consent(person.yes, person.as_json))
    run = answer.data
    if not isinstance(run, ApplyRun) or answer.exit_code != REBOOT_ARMED:
        return answer
    # who came by `up` continues by `up`, which does the rest and then trains
    return answer_of(msgspec.structs.replace(run, next=run.next.replace("gpu-setup resume", "gpu-setup up")))


def choose(seen: Seen, request: JobRequest, person: Person, models: Path, hub: HubCheck = hub_answers) -> Job:
    """Which recipe on which stack. Asks before it trains without a card that is installed, and before a large download.

    `models`: the folder of the models that are here already. The person sees why a recipe was taken that nobody named.
    """
    if to_install(seen) and not person.ask(
        f"The card cannot be used yet ({seen.choice.because}). Train a small model on the CPU now?"
    ):
        raise Refused(
            "up.driver-missing",
            "Stopped before training: the card's driver is not in place.",
            seen.choice.because + ".",
            "Do the steps of `gpu-setup plan -v`, then run `gpu-setup up` again; or: gpu-setup up --yes",
        )
    name = request.recipe
    if name is None:
        usual = usual_recipe(seen.choice, request, models, hub)
        person.show("Recipe", f"{usual.name}: {usual.because}")
        name = usual.name
    job = job_on(seen.choice, load_recipe(name), request)
    size = job.recipe.traits.download_bytes if not model_is_available(job.recipe, models) else None
    if size and not person.ask(f"{name} downloads about {size / 1e9:.1f} GB from the model hub. Continue?"):
        if request.recipe is not None:
            raise Refused("up.declined", "Stopped before the download.", "", f"--recipe {SMALL} needs none.")
        return job_on(seen.choice, load_recipe(SMALL), request)
    return job


def train_and_measure(job: Job, seen: Seen, catalogue: Catalogue, place: Workplace, fresh: bool) -> Report:
    """Environment, training, examination and report; a stage that is done with the same inputs is not repeated."""
    job, machine, paths, emit = with_held_out(job), place.machine, place.paths, place.emit
    ready = prepare(job, *place)
    folder = None if fresh else find_finished_run(ready, paths.runs)
    if folder is not None:
        report_reuse(emit, folder)
    else:
        check_preconditions(job, ready, seen.host, machine, emit)
        method = MeasuringMethod("up", ceiling_seconds=SHORT_CEILING)
        folder = run_launch(job, ready, method, seen.host, place)
    examination = examine_run(job, ready, folder, machine, emit)
    return report_run(job, ready, folder, seen.host, catalogue, examination)
