"""`gpu-setup update`: move kernel and driver together, and only when the next start will have its card."""

from __future__ import annotations

import os

import click

from gpu_setup.commands.apply import (
    behind_sudo,
    busy_or_go,
    carried_out,
    nothing,
    question,
    reboot_option,
    refuse,
    yes_option,
)
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup update                 what is newer, ask, move it in one transaction
  gpu-setup update --yes --reboot  the same unattended, and restart into it

\b
While the archive has a kernel without its module, nothing is moved: the machine would start without its card.
Exit codes: 0 done, or nothing newer; 3 refused; 4 something outside failed; 5 a restart comes next.
"""


@click.command(epilog=EPILOG)
@json_option
@yes_option
@reboot_option
@click.option("--while-busy", is_flag=True, help="Also while a program uses the card.")
@click.option("-v", "--verbose", is_flag=True, help="Also the commands and the way back.")
def command(as_json: bool, yes: bool, reboot: bool, while_busy: bool, verbose: bool) -> Answer:
    """Update kernel and driver together, so that neither is without the other at the next start."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from machine.local import LocalMachine
    from provision.apply.journal import Request
    from provision.resolve.update import plan_update
    from provision.root.helper import network_settings, with_person

    machine, known = LocalMachine(), catalogue()
    person = behind_sudo(machine)
    host = with_person(read_host(machine), machine, person)
    made = plan_update(host, known, machine)
    refuse(made)
    if not made.open_steps():
        return nothing(made)
    question(made, host, known, yes=yes, verbose=verbose, as_json=as_json)
    agreed = busy_or_go(machine, host, made, yes=yes, while_busy=while_busy)
    request = Request(
        kind="update",
        plan=made,
        person=person,
        busy=agreed,
        reboot=reboot,
        ssh=bool(os.environ.get("SSH_CONNECTION")),
        environ=network_settings(dict(os.environ)),
    )
    return carried_out(("apply", "--inside"), request, as_json)
