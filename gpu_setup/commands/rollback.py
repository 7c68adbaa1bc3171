"""`gpu-setup rollback`: restore what gpu-setup has changed."""

from __future__ import annotations

import click

from gpu_setup.commands.apply import yes_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup rollback                                     show what would be undone, ask, undo it
  /usr/local/lib/gpu-setup/gpu-setup rollback --yes      the same from recovery mode: no network, no home

\b
Packages are removed, never purged; your data, images and model caches are kept. A file that was changed since then is
kept and shown. The running kernel is never removed.
Exit codes: 0 done, or nothing to roll back; 3 refused; 4 an outside command or service failed; 5 boot an older kernel
for the rest.
"""


@click.command(epilog=EPILOG)
@json_option
@yes_option
@click.option("-v", "--verbose", is_flag=True, help="Also show the commands.")
@click.option("--show", is_flag=True, hidden=True)
def command(as_json: bool, yes: bool, verbose: bool, show: bool) -> Answer | int:
    """Undo what apply did: restore packages, marks, holds, files, groups and services as they were before."""
    if show:
        from gpu_setup.root_entry import plan_inside

        return plan_inside()
    from gpu_setup.run_as_root import Consent, roll_back

    return roll_back(Consent(yes, as_json, verbose))
