"""`gpu-setup environment`: the training environment, built, checked or repaired."""

from __future__ import annotations

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import accept_unverified_option, my_paths, settle_unverified
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup environment          build it, or check every file and repair what is broken
  gpu-setup environment --json
"""


@click.command(epilog=EPILOG)
@json_option
@accept_unverified_option
def command(as_json: bool, accept_unverified: bool) -> Answer:
    """Build the training environment of this machine's stack, or check every file of it and repair what is broken."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.environment.build import ensure_environment
    from harness.environment.runtime import Runtime
    from harness.environment.stack_choice import choose_stack
    from machine.errors import FINE
    from machine.local import LocalMachine

    machine, paths = LocalMachine(), my_paths()
    choice = choose_stack(read_host(machine), catalogue())
    settle_unverified(choice.stack, Runtime(accept_unverified=accept_unverified), machine, paths)
    with reporter(as_json) as emit:
        environment = ensure_environment(choice.stack, machine, paths, emit)

    checked = "checked by its sha256" if environment.torch_verified == "sha256" else "unverified"

    def text() -> str:
        return (
            f"Training environment for {environment.stack} ({choice.because}): {environment.folder}\n"
            f"  Python {environment.python_version}, torch {environment.torch} "
            f"(from {environment.torch_from}, {checked}), lock {environment.lock_digest[:12]}\n"
        )

    return Answer("environment", environment, FINE, text)
