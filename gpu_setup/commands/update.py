"""`gpu-setup update`: upgrade kernel and driver together, and only when the next boot will have its card."""

from __future__ import annotations

import click
import msgspec

from gpu_setup.commands.apply import reboot_option, while_busy_option, yes_option
from gpu_setup.commands.options import json_option, options_into
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup update                 show what is newer, ask, upgrade it in one transaction
  gpu-setup update --yes --reboot  the same unattended, and reboot into it

\b
A kernel whose GPU module is not published yet is not installed: the machine would boot without its card.
Exit codes: 0 done, or nothing newer; 3 refused; 4 an outside command or service failed; 5 a reboot comes next.
"""


class UpdateOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    yes: bool
    reboot: bool
    while_busy: bool
    verbose: bool


@click.command(epilog=EPILOG)
@json_option
@yes_option
@reboot_option
@while_busy_option
@click.option("-v", "--verbose", is_flag=True, help="Also show the commands and how each is undone.")
@options_into(UpdateOptions)
def command(options: UpdateOptions) -> Answer:
    """Upgrade kernel and driver in one transaction, so that the next boot has both."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.run_as_root import Consent, Target, answer_of, approve_and_run
    from machine.local import LocalMachine
    from provision.resolve.update import plan_update
    from provision.root.approval import nothing_to_do, requesting_user, require_doable
    from provision.root.helper import with_person

    machine, known = LocalMachine(), catalogue()
    host = with_person(read_host(machine), machine, requesting_user(machine))
    made = plan_update(host, known, machine)
    require_doable(made)
    if not made.open_steps():
        return answer_of(nothing_to_do(made))
    consent = Consent(options.yes, options.as_json, options.verbose, options.while_busy, options.reboot)
    return approve_and_run("update", made, Target(machine, host, known), consent)
