"""`gpu-setup facts`: what the machine is; `facts record`: the same as a folder that can be replayed."""

from __future__ import annotations

import click

from gpu_setup.commands.options import json_option, machine_option, open_machine
from gpu_setup.envelope import Answer
from machine.errors import FINE

EPILOG = """\b
Examples:
  gpu-setup facts                     what this machine is, and what could not be read
  gpu-setup facts --json              the same for a script
  gpu-setup facts record recording/   write it down; doctor --machine recording/ replays it
"""

RECORD_EPILOG = """\b
Examples:
  gpu-setup facts record recording/
  gpu-setup doctor --machine recording/
"""


@click.group(invoke_without_command=True, epilog=EPILOG, subcommand_metavar="[record DIR]")
@json_option
@machine_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, recording: str | None) -> Answer | None:
    """Show what this machine is. A value that could not be read is "not known", with the reason.

    Needs no root and no network, and changes nothing.
    """
    if ctx.invoked_subcommand is not None:
        return None
    from checks.catalogue import catalogue
    from checks.facts.read import read_host

    host = read_host(open_machine(recording))

    def text() -> str:
        from gpu_setup.render.facts import facts_text

        return facts_text(host, catalogue())

    return Answer("facts", host, FINE, text)


@command.command("record", epilog=RECORD_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--note", default="", help="A sentence that says what is special about this machine.")
def record_command(folder: str, note: str) -> int:
    """Write this machine's facts into DIR, without names, serial numbers and secrets.

    The folder holds copies of the files and command outputs that the checks read. Look through it before you send it.
    """
    from pathlib import Path

    from checks.facts.read import REDUCE, read_host
    from gpu_setup.version import version
    from machine.local import LocalMachine
    from machine.recorder import RecordingMachine, whom, write

    place, machine = Path(folder), LocalMachine()
    seen = RecordingMachine(machine)
    host = read_host(seen)
    about = {
        "name": place.absolute().name,
        "taken_at": host.taken_at,
        "tool_version": version(),
        "note": note,
        "synthetic": [],
    }
    write(seen, place, whom(machine), about, REDUCE)
    click.echo(f"Recorded in {folder}. Look through it, then replay it: gpu-setup doctor --machine {folder}")
    return FINE
