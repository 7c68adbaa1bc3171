"""`gpu-setup image render`: the Dockerfile of the image that fits a machine. Needs no engine and writes nothing."""

from __future__ import annotations

import click

from gpu_setup.commands.image_options import SpecOptions, spec_options
from gpu_setup.commands.options import json_option, machine_option, open_machine
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image render > Dockerfile
  gpu-setup image render --machine recording/     for a recorded machine
  gpu-setup image render --base registry.example/base:1 --python 3.12
  gpu-setup image render --vendor cpu --json

\b
Exit codes: 0 rendered; 2 the base cannot be used; 3 no stack fits this machine (the reason is shown).
"""


@click.command("render", epilog=EPILOG)
@json_option
@machine_option
@spec_options
def render_command(as_json: bool, recording: str | None, wanted: SpecOptions) -> Answer:
    """Print the Dockerfile of the image that fits this machine."""
    from checks.facts.read import read_host
    from containers.image_result import image_result
    from gpu_setup.version import version
    from machine.errors import FINE

    made = image_result(wanted.spec(read_host(open_machine(recording))), version())
    return Answer("image", made, FINE, lambda: made.dockerfile)
