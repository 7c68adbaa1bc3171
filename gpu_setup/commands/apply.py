"""`gpu-setup apply`: carry a plan out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import json_option, options_into
from gpu_setup.commands.plan import target_options
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from provision.target import PlanTarget

EPILOG = """\b
Examples:
  gpu-setup apply                     show the plan, ask, carry it out
  gpu-setup apply --yes --reboot      the same without questions; reboots and continues automatically
  gpu-setup plan --out plan.json      keep a plan for review …
  gpu-setup apply --plan plan.json    … and carry out exactly that one

\b
Interrupted (power cut, lost connection)? Run it again: finished steps are not repeated.
Exit codes: 0 done, or nothing to do; 3 refused, nothing changed; 4 an outside command or service failed;
5 stopped for a reboot or for you, then: gpu-setup resume; 130 interrupted.
"""

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
reboot_option = click.option("--reboot", is_flag=True, help="Reboot automatically when required and continue.")
while_busy_option = click.option("--while-busy", is_flag=True, help="Continue while a program uses the card.")


class ApplyOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    yes: bool
    wanted: PlanTarget
    plan_file: str | None
    reboot: bool
    while_busy: bool
    verbose: bool
    inside: bool


@click.command(epilog=EPILOG)
@json_option
@yes_option
@click.option(
    "--plan", "plan_file", metavar="FILE", type=click.Path(dir_okay=False), help="Carry out exactly this plan."
)
@reboot_option
@while_busy_option
@click.option("-v", "--verbose", is_flag=True, help="Also show the commands and how each is undone.")
@click.option("--inside", is_flag=True, hidden=True)
@target_options
@options_into(ApplyOptions)
def command(options: ApplyOptions) -> Answer | int:
    """Install and change what the plan lists, after asking. Each step is checked, done and verified."""
    if options.inside:
        from gpu_setup.root_entry import apply_inside

        return apply_inside()
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.run_as_root import Consent, Target, answer_of, approve_and_run
    from machine.local import LocalMachine
    from provision.apply.status import last_run
    from provision.resolve.resolver import resolve_plan
    from provision.root.approval import (
        is_by_hand,
        load_reviewed,
        nothing_to_do,
        requesting_user,
        require_doable,
        require_same,
    )
    from provision.root.helper import with_person

    machine, known = LocalMachine(), catalogue()
    reviewed = load_reviewed(options.plan_file, known) if options.plan_file is not None else None
    host = with_person(read_host(machine), machine, requesting_user(machine))
    # also with a file this plan is the one that is shown and carried out
    made = resolve_plan(host, known, reviewed.target if reviewed else options.wanted, machine)
    if is_by_hand(made) and not made.refusals:
        return answer_of(nothing_to_do(made))
    require_doable(made)
    if reviewed is not None and options.plan_file is not None:
        require_same(reviewed, made, options.plan_file, last_run(machine))
    consent = Consent(options.yes, options.as_json, options.verbose, options.while_busy, options.reboot)
    return approve_and_run("apply", made, Target(machine, host, known), consent)
