"""`gpu-setup status`: where it stands, at any moment and for everyone."""

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
    """Say where apply stands: at work, done, waiting for a restart or for you, failed and why. Needs no root."""
    from machine.local import LocalMachine
    from provision.apply.status import apply_status

    found = apply_status(LocalMachine())

    def text() -> str:
        from gpu_setup.render.apply import status_text

        return status_text(found)

    return Answer("status", found, FINE, text)
