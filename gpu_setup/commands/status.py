"""`gpu-setup status`: the state of the last apply, at any moment and for everyone."""

from __future__ import annotations

import click

from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer
from machine.errors import FINE

EPILOG = """\b
Examples:
  gpu-setup status           how far apply is, what it waits for, what comes next
  gpu-setup status --json
"""


@click.command(epilog=EPILOG)
@json_option
def command(as_json: bool) -> Answer:
    """Show the state of the last apply: running, done, waiting for a reboot or for you, or failed and why.

    Needs no root.
    """
    from machine.local import LocalMachine
    from provision.apply.status import apply_status

    found = apply_status(LocalMachine())

    def text() -> str:
        from gpu_setup.render.apply import status_text

        return status_text(found)

    return Answer("status", found, FINE, text)
