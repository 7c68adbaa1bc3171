"""`gpu-setup resume`: continue with what was approved, after a reboot or an interruption."""

from __future__ import annotations

import click

from gpu_setup.commands.apply import reboot_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup resume             continue where apply stopped: for a reboot, for you, or for a fault that is fixed now
  gpu-setup resume --reboot    the same, and reboot automatically when that is required again

\b
Only approved steps are done: if the machine needs more by now, it stops and names it.
Exit codes: 0 done; 3 nothing to resume; 4 an outside command or service failed; 5 a reboot or your part comes next.
"""


@click.command(epilog=EPILOG)
@json_option
@reboot_option
@click.option("--at-boot", is_flag=True, hidden=True)
@click.option("--inside", is_flag=True, hidden=True)
def command(as_json: bool, reboot: bool, at_boot: bool, inside: bool) -> Answer | int:
    """Resume after a reboot or an interruption: the facts are read again, and the remaining steps are done."""
    if at_boot or inside:
        from gpu_setup.root_entry import resume_inside

        return resume_inside(at_boot=at_boot, reboot=reboot)
    from gpu_setup.run_as_root import run_as_root

    return run_as_root(("resume", "--inside", *(("--reboot",) if reboot else ())), None, as_json)
