"""`gpu-setup resume`: go on with what was agreed to, after a restart or a break."""

from __future__ import annotations

import click

from gpu_setup.commands.apply import carried_out, reboot_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup resume             go on where apply stopped: for a restart, for you, for a fault that is put right
  gpu-setup resume --reboot    and restart by itself where that is needed again

\b
Only what you agreed to is done: when the machine asks for more by now, it stops and says so.
Exit codes: 0 done; 3 nothing to go on with; 4 something outside failed; 5 a restart or you come next.
"""


@click.command(epilog=EPILOG)
@json_option
@reboot_option
@click.option("--at-boot", is_flag=True, hidden=True)
@click.option("--inside", is_flag=True, hidden=True)
def command(as_json: bool, reboot: bool, at_boot: bool, inside: bool) -> Answer | int:
    """Go on with what apply began: the facts are read anew, and what is left is done."""
    if at_boot or inside:
        from gpu_setup.root_entry import told
        from provision.root.helper import go_on

        code = told(lambda emit: go_on(emit, at_boot=at_boot, reboot=reboot))
        # the unit did its part either way: what came of it stands in the state, not in a failed unit
        return 0 if at_boot else code
    return carried_out(("resume", "--inside", *(("--reboot",) if reboot else ())), None, as_json)
