"""`gpu-setup plan`: what would be done, and why; writes nothing on the system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from gpu_setup.commands.options import Decorator, json_option, machine_option, open_machine
from gpu_setup.envelope import Answer
from machine.errors import BAD_ANSWER, FINE, REFUSED, Problem, Refused
from provision.model import Plan, Refusal
from provision.target import Display, Rocm, Source, Target, Vendor

EPILOG = """\b
Examples:
  gpu-setup plan                        what this machine would need
  gpu-setup plan --machine recording/   what a recorded machine would need
  gpu-setup plan --vendor amd --source dkms
  gpu-setup plan --out plan.json        keep it for review
  gpu-setup plan --check                for scripts: 1 when something is to do

\b
Exit codes: 0 shown, or nothing to do; 1 with --check when something is to do; 3 refused, with the reason.
"""


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what is wanted; they arrive as `wanted`, a dictionary for `Target`."""
    from functools import wraps

    fields = Target.__struct_fields__

    @wraps(function)
    def gathered(**options: Any) -> Any:
        wanted = {name: options.pop(name) for name in fields}
        return function(wanted=Target(**wanted), **options)

    made: Callable[..., Any] = gathered
    for option in reversed(_TARGET_OPTIONS):
        made = option(made)
    return made


_TARGET_OPTIONS: tuple[Decorator, ...] = (
    click.option("--vendor", type=click.Choice(Vendor, case_sensitive=False), default=Vendor.AUTO, help="Which card."),
    click.option(
        "--source",
        type=click.Choice(Source, case_sensitive=False),
        default=Source.AUTO,
        help="Where the kernel driver comes from: the archive or NVIDIA's repository; in-tree or DKMS for AMD.",
    ),
    click.option(
        "--display", type=click.Choice(Display, case_sensitive=False), default=Display.AUTO, help="Desktop or not."
    ),
    click.option(
        "--rocm",
        type=click.Choice(Rocm, case_sensitive=False),
        default=Rocm.CONTAINER,
        help="ROCm's libraries only where training runs, or on the host as well.",
    ),
    click.option("--branch", type=click.IntRange(min=1), metavar="N", help="This NVIDIA driver branch and no other."),
    click.option("--toolkit", is_flag=True, help="The CUDA compiler on the host too."),
    click.option("--containers/--no-containers", default=True, help="A container engine that reaches the card."),
    click.option("--docker-group", is_flag=True, help="Add yourself to the group docker, which is as good as root."),
)


@click.command(epilog=EPILOG)
@json_option
@machine_option
@click.option("--check", is_flag=True, help="End with 1 when something is to do.")
@target_options
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), help="Write the plan as JSON to FILE.")
@click.option("-v", "--verbose", is_flag=True, help="Also the commands, what is done already, and the way back.")
def command(
    as_json: bool, recording: str | None, check: bool, wanted: Target, out: str | None, verbose: bool
) -> Answer:
    """Show what would be installed and changed, and why. Changes nothing."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from provision.resolve.resolver import completed

    machine, known = open_machine(recording), catalogue()
    host = read_host(machine)
    made = completed(host, known, wanted, machine)

    def text() -> str:
        from gpu_setup.render.machine import machine_line
        from gpu_setup.render.plan import plan_text

        return plan_text(made, machine_line(host, known), verbose)

    answer = Answer("plan", made, plan_exit_code(made, check), text, tuple(map(refusal_problem, made.refusals)))
    if out is not None:
        _keep(answer, out)
    return answer


def plan_exit_code(plan: Plan, check: bool) -> int:
    """Refused 3; with --check 1 while a step is open; else 0."""
    if plan.refusals:
        return REFUSED
    return BAD_ANSWER if check and plan.open_steps() else FINE


def refusal_problem(refusal: Refusal) -> Problem:
    return Refused(refusal.code, refusal.what, refusal.why, refusal.next)


def _keep(answer: Answer, out: str) -> None:
    from pathlib import Path

    from gpu_setup.envelope import encode
    from machine.errors import OutsideFailed

    try:
        Path(out).write_bytes(encode(answer))
    except OSError as error:
        raise OutsideFailed(
            "plan.unwritable",
            f"The plan could not be written to {out}.",
            f"The system says: {error.strerror or error}.",
            "Name a file in a folder that you can write.",
        ) from error
