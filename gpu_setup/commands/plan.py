"""`gpu-setup plan`: what would be done, and why; writes nothing on the system."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from gpu_setup.commands.options import (
    Decorator,
    OneOf,
    Whole,
    json_option,
    machine_option,
    open_machine,
    options_into,
    refuse_inputs,
)
from gpu_setup.envelope import Answer
from machine.errors import BAD_ANSWER, FINE, REFUSED
from provision.model import Plan
from provision.target import Display, DriverSource, PlanTarget, PlanVendor, Rocm

EPILOG = """\b
Examples:
  gpu-setup plan                        what this machine would need
  gpu-setup plan --machine recording/   what a recorded machine would need
  gpu-setup plan --vendor amd --source dkms
  gpu-setup plan --out plan.json        keep it for review
  gpu-setup plan --check                for scripts: exit status 1 when something is to do

\b
Exit codes: 0 shown, or nothing to do; 1 with --check when something is to do; 3 refused (the reason is shown).
"""


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the wanted state; they arrive as `wanted`, a `Target`."""
    made = options_into(PlanTarget, "wanted")(function)
    for option in reversed(_TARGET_OPTIONS):
        made = option(made)
    return made


_TARGET_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--vendor",
        type=OneOf(PlanVendor),
        default=PlanVendor.AUTO,
        help="The vendor of the card.",
    ),
    click.option(
        "--source",
        type=OneOf(DriverSource),
        default=DriverSource.AUTO,
        help="Source of the kernel driver: Ubuntu's archive or NVIDIA's repository; in-tree or DKMS for AMD.",
    ),
    click.option(
        "--display",
        type=OneOf(Display),
        default=Display.AUTO,
        help="With or without a desktop.",
    ),
    click.option(
        "--rocm",
        type=OneOf(Rocm),
        default=Rocm.CONTAINER,
        help="Install ROCm's libraries only where training runs, or also on the host.",
    ),
    click.option("--branch", type=Whole(min=1), metavar="N", help="Use this NVIDIA driver branch only."),
    click.option("--toolkit", is_flag=True, help="Also install the CUDA compiler on the host."),
    click.option(
        "--containers/--no-containers", default=True, help="Install a container engine that can use the card."
    ),
    click.option("--docker-group", is_flag=True, help="Add yourself to the group docker (equals root access)."),
)


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    recording: str | None
    check: bool
    wanted: PlanTarget
    out: str | None
    verbose: bool


@click.command(epilog=EPILOG)
@json_option
@machine_option
@click.option("--check", is_flag=True, help="Exit with status 1 if something is to do.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), help="Write the plan as JSON to FILE.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Also show the commands, the steps that are done, and how each is undone."
)
@target_options
@options_into(PlanOptions)
def command(options: PlanOptions) -> Answer:
    """Show what would be installed and changed, and why. Changes nothing."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from provision.plan.plan_file import as_written
    from provision.resolve.resolver import resolve_plan
    from provision.root.approval import refusal_problem, requesting_user
    from provision.root.helper import with_person

    refuse_inputs([options.out], [options.recording])
    machine, known = open_machine(options.recording), catalogue()
    host = read_host(machine)
    if options.recording is None:
        # as apply plans: under sudo for the person behind it
        host = with_person(host, machine, requesting_user(machine))
    made = resolve_plan(host, known, options.wanted, machine)

    def text() -> str:
        from gpu_setup.render.machine import machine_line
        from gpu_setup.render.plan import plan_text

        return plan_text(made, machine_line(host, known), options.verbose)

    written = as_written(made)
    answer = Answer(
        "plan", written, plan_exit_code(made, options.check), text, tuple(map(refusal_problem, made.refusals))
    )
    if options.out is not None:
        _write_plan(answer, options.out)
    return answer


def plan_exit_code(plan: Plan, check: bool) -> int:
    """Refused 3; with --check 1 while a step is open; else 0."""
    if plan.refusals:
        return REFUSED
    return BAD_ANSWER if check and plan.open_steps() else FINE


def _write_plan(answer: Answer, out: str) -> None:
    from gpu_setup.envelope import encode
    from machine.errors import OutsideFailed
    from machine.whole_file import write_whole

    try:
        write_whole(out, encode(answer))
    except OSError as error:
        raise OutsideFailed(
            "plan.unwritable",
            f"The plan could not be written to {out}.",
            f"The system says: {error.strerror or error}.",
            "Name a file in a folder where you can write.",
        ) from error
