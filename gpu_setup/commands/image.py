"""`gpu-setup image`: render, build, verify or run the container image for this machine."""

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
  gpu-setup image build             build it with this machine's container engine
  gpu-setup image verify            verify it from inside
  gpu-setup image run -- python     run a program in it, with the cards
  gpu-setup image engine            what the container engine can do

\b
Training in it: gpu-setup smoke --runtime image
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Render, build, verify or run the container image that fits this machine."""


for each in (render_command, build_command, verify_command, run_command, engine_command):
    command.add_command(each)
