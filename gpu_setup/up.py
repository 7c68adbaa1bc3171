"""The main job, as a short story: inspect → plan → environment → train → examine → report.

Each stage leaves a document and is reused while its inputs match, so a second `up` goes on where the first was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import DoctorReport
from gpu_setup.commands.training_options import needs_gpu, usual_recipe
from harness.environment.build import Environment
from harness.environment.stack_choice import Choice, choose_stack
from harness.jobs.bench import SHORT_CEILING, guard, measured_run
from harness.jobs.default_recipe import SMALL, at_hand
from harness.measure.run_context import Method
from harness.pipeline import Job, examined, finished_run, prepare, reported, tell_reuse, with_held_out
from harness.recipe.loader import load_recipe, suited_to
from harness.report.run_report import Report
from machine.errors import Refused
from machine.events import Emit
from machine.local import Machine
from machine.paths import Paths
from provision.model import Plan

Ask = Callable[[str], bool]


class Seen(NamedTuple):
    """What the first two stages found: the machine, what is wrong with it, what would be installed."""

    host: Host
    doctor: DoctorReport
    plan: Plan
    choice: Choice


def inspect(machine: Machine, catalogue: Catalogue) -> Seen:
    """Read the machine once, judge it and plan for it. Changes nothing."""
    from checks.facts.read import read_host
    from checks.registry import ALL
    from checks.runner import run
    from provision.plan.planner import plan
    from provision.target import Target

    host = read_host(machine)
    return Seen(host, run(host, catalogue, ALL), plan(host, catalogue, Target()), choose_stack(host, catalogue))


def to_install(seen: Seen) -> bool:
    """Whether there is a card that cannot be used yet."""
    return not seen.choice.gpu and seen.plan.vendor is not None


def with_versions(seen: Seen, machine: Machine, catalogue: Catalogue) -> Seen:
    """The plan with what apt says to it, so that what is agreed to is what is then done."""
    from gpu_setup.commands.apply import behind_sudo
    from provision.resolve.resolver import completed
    from provision.root.helper import with_person

    host = with_person(seen.host, machine, behind_sudo(machine))
    return seen._replace(plan=completed(host, catalogue, seen.plan.target, machine))


def choose(
    seen: Seen,
    recipe_name: str | None,
    data: Path | None,
    ask: Ask,
    models: Path,
    hub: Callable[[], bool] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Job:
    """Which recipe on which stack. Asks before going on without a card that is there, and before a large download.

    `models`: the folder of those that are here already; `hub`: does the model hub answer (None: ask it)? `tell` hears
    why a recipe was taken that nobody named.
    """
    if to_install(seen) and not ask(
        f"The card cannot be used yet ({seen.choice.because}). Train a small model on the processor now?"
    ):
        raise Refused(
            "up.driver-missing",
            "Stopped before training: the card's driver is not in place.",
            seen.choice.because + ".",
            "Do the steps of `gpu-setup plan -v`, then run `gpu-setup up` again; or: gpu-setup up --yes",
        )
    name = recipe_name
    if name is None:
        usual = usual_recipe(seen.choice, models, data is not None, hub)
        tell(f"{usual.name}: {usual.because}")
        name = usual.name
    recipe = load_recipe(name)
    if recipe.traits.needs_gpu and not seen.choice.gpu:
        raise needs_gpu(recipe, seen.choice.because)
    size = recipe.traits.download_bytes if not at_hand(recipe, models) else None
    if size and not ask(f"{recipe.name} downloads about {size / 1e9:.1f} GB from the model hub. Go on?"):
        if recipe_name is not None:
            raise Refused("up.declined", "Stopped before the download.", "", f"--recipe {SMALL} needs none.")
        recipe = load_recipe(SMALL)
    changed = suited_to(recipe, seen.choice.target)
    return Job(recipe, seen.choice.stack, data, changed, seen.choice.device, seen.choice.conditions)


def prove(
    job: Job,
    seen: Seen,
    catalogue: Catalogue,
    machine: Machine,
    paths: Paths,
    fresh: bool,
    emit: Emit,
    environment: Environment | None = None,
) -> Report:
    """Environment, training, examination and report; what is already done with the same inputs is not done again."""
    job = with_held_out(job)
    ready = prepare(job, machine, paths, emit, environment)
    folder = None if fresh else finished_run(ready, paths.runs)
    if folder is not None:
        tell_reuse(emit, folder)
    else:
        guard(job, ready, seen.host, machine, emit)
        method = Method("up", ceiling_seconds=SHORT_CEILING)
        folder = measured_run(job, ready, method, seen.host, machine, paths.runs, emit)
    examination = examined(job, ready, folder, machine, emit)
    return reported(job, ready, folder, seen.host, catalogue, examination)
