"""`gpu-setup rollback`: put back what was there before gpu-setup changed it."""

from __future__ import annotations

import os

import click

from gpu_setup.commands.apply import answer_of, ask, behind_sudo, carried_out, progress, yes_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup rollback                                     show the way back, ask, go it
  /usr/local/lib/gpu-setup/gpu-setup rollback --yes      the same from recovery mode: no network, no home

\b
Packages are removed, never purged; your data, images and model caches stay. A file that somebody changed since is
left as it is and shown. The kernel that runs is never removed.
Exit codes: 0 done, or nothing to roll back; 3 refused; 4 something outside failed; 5 an older kernel has to be started
for the rest.
"""


@click.command(epilog=EPILOG)
@json_option
@yes_option
@click.option("-v", "--verbose", is_flag=True, help="Also the commands.")
@click.option("--show", is_flag=True, hidden=True)
def command(as_json: bool, yes: bool, verbose: bool, show: bool) -> Answer | int:
    """Undo what apply did: packages, marks, holds, files, groups and services as they were before."""
    if show:
        from gpu_setup.root_entry import plan_inside

        return plan_inside()
    from gpu_setup.version import version
    from machine.local import LocalMachine
    from provision.apply.journal import Request
    from provision.root.sudo import launch_plan

    machine = LocalMachine()
    with progress(as_json) as emit:
        made = launch_plan(("rollback", "--show"), version(), emit)
    if not made.open_steps():
        return _nothing(made.digest, made.notes)
    if not as_json:
        from gpu_setup.render.plan import plan_text

        click.echo(plan_text(made, "The way back", verbose, hint=False), err=True)
    ask("Go back?", yes=yes)
    request = Request(kind="rollback", plan=made, person=behind_sudo(machine), ssh="SSH_CONNECTION" in os.environ)
    return carried_out(("apply", "--inside"), request, as_json)


def _nothing(digest: str, notes: tuple[str, ...]) -> Answer:
    from provision.apply.journal import Run, now

    moment = now()
    return answer_of(
        Run(
            run="", kind="rollback", standing="done", plan_digest=digest, began=moment, ended=moment,
            notes=notes or ("There is nothing to roll back.",),
        )
    )  # fmt: skip
