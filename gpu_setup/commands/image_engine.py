"""`gpu-setup image engine`: the container engine of this machine, and what it can do."""

from __future__ import annotations

import click

from gpu_setup.commands.image_options import engine_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image engine
  gpu-setup image engine --engine podman
  gpu-setup image engine --json

\b
Exit codes: 0 the engine answers; 3 no engine is installed, or you lack permission; 4 it does not answer.
"""


@click.command("engine", epilog=EPILOG)
@json_option
@engine_option
def engine_command(as_json: bool, engine: str | None) -> Answer:
    """Show the container engine of this machine: whether it can build, run, and use your cards."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.engine_report import engine_report
    from gpu_setup.render.image import engine_text
    from machine.errors import FINE
    from machine.local import LocalMachine

    machine = LocalMachine()
    found = engine_report(read_host(machine), catalogue(), machine, engine)
    return Answer("engine", found, FINE, lambda: engine_text(found))
