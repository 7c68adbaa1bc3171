"""`gpu-setup image render`: the Dockerfile of the image that fits a machine. Needs no engine and writes nothing."""

from __future__ import annotations

import click
import msgspec

from containers.build import Built
from containers.model import ImageSpec, Vendor
from gpu_setup.commands.image_options import spec_of, spec_options
from gpu_setup.commands.options import json_option, machine_option, open_machine
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image render > Dockerfile
  gpu-setup image render --machine recording/     for a machine that was recorded
  gpu-setup image render --base registry.example/base:1 --python 3.12
  gpu-setup image render --vendor cpu --json

\b
Exit codes: 0 rendered; 2 the base cannot be used; 3 no stack fits this machine, with the reason.
"""


class Image(msgspec.Struct, frozen=True):
    """`tag` is the name that `image build` gives the image; `built` is null where it was only rendered."""

    dockerfile: str
    tag: str
    spec: ImageSpec
    built: Built | None = None


@click.command("render", epilog=EPILOG)
@json_option
@machine_option
@spec_options
def render_command(
    as_json: bool, recording: str | None, vendor: Vendor, base: str | None, python: str | None
) -> Answer:
    """Print the Dockerfile of the image that fits this machine."""
    from checks.facts.read import read_host
    from containers.dockerfile import dockerfile, tag
    from gpu_setup.version import version
    from machine.errors import FINE

    spec = spec_of(read_host(open_machine(recording)), vendor, base, python)
    made = Image(dockerfile(spec, version()), tag(spec), spec)
    return Answer("image", made, FINE, lambda: made.dockerfile)
