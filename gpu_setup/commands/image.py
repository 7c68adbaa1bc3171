"""`gpu-setup image`: the matching container image: its Dockerfile, its building, its proof, its running."""

from __future__ import annotations

import click

from gpu_setup.commands.image_build import build_command
from gpu_setup.commands.image_engine import engine_command
from gpu_setup.commands.image_render import render_command
from gpu_setup.commands.image_run import run_command
from gpu_setup.commands.image_verify import verify_command

EPILOG = """\b
Examples:
  gpu-setup image render            the Dockerfile for this machine
  gpu-setup image build             build it with the engine that is here
  gpu-setup image verify            prove from inside that it is the right one
  gpu-setup image run -- python     run something in it, with the cards
  gpu-setup image engine            what the engine that is here can do

\b
Training in it: gpu-setup smoke --runtime image
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """The container image that fits this machine: rendered, built, proven from inside, run."""


for each in (render_command, build_command, verify_command, run_command, engine_command):
    command.add_command(each)
