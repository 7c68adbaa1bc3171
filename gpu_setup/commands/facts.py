"""`gpu-setup facts`: what the machine is; `facts record`: the same as a folder or one file that can be replayed."""

from __future__ import annotations

import click

from gpu_setup.commands.options import json_option, machine_option, open_machine
from gpu_setup.envelope import Answer
from gpu_setup.terminal import echo
from machine.errors import FINE
from machine.local import Machine

EPILOG = """\b
Examples:
  gpu-setup facts                     what this machine is, and what could not be read
  gpu-setup facts --json              the same for a script
  gpu-setup facts record --one-file my-pc.machine   record it; doctor --machine my-pc.machine replays it
"""

RECORD_EPILOG = """\b
Examples:
  gpu-setup facts record --one-file my-pc.machine
  gpu-setup doctor --machine my-pc.machine
  gpu-setup facts record recording/
"""


@click.group(invoke_without_command=True, epilog=EPILOG, subcommand_metavar="[record]")
@json_option
@machine_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, recording: str | None) -> Answer | None:
    """Show the facts about this machine. A value that could not be read is "not known", with the reason.

    Needs no root and no network, and changes nothing. With --json, names, addresses and ids are replaced, as in a
    recording.
    """
    if ctx.invoked_subcommand is not None:
        return None
    from checks.catalogue import catalogue
    from checks.facts.read import read_host

    machine = open_machine(recording)
    host = read_host(copy_of(machine) if as_json else machine)

    def text() -> str:
        from gpu_setup.render.facts import facts_text

        return facts_text(host, catalogue())

    return Answer("facts", host, FINE, text)


def copy_of(machine: Machine) -> Machine:
    """The machine as a recording has it: what --json prints is sent and kept like one."""
    from checks.allowed import sources as allowed
    from checks.facts.read import read_host
    from machine.recorder import RecordingMachine, identities_of, tree
    from machine.recording import RecordedMachine

    seen = RecordingMachine(machine)
    now = read_host(seen).taken_at
    about = {"name": machine.name, "taken_at": getattr(machine, "taken_at", "") or now}
    return RecordedMachine(tree(seen, machine.name, identities_of(machine), about, allowed))


@command.command("record", epilog=RECORD_EPILOG)
@click.argument("folder", metavar="[DIR]", type=click.Path(), required=False)
@click.option("--one-file", "file", metavar="FILE", type=click.Path(), help="Write one text file instead of a folder.")
@click.option("--force", is_flag=True, help="Replace FILE when it exists.")
@click.option("--note", default="", help="A sentence that says what is special about this machine.")
def record_command(folder: str | None, file: str | None, force: bool, note: str) -> int:
    """Write this machine's facts into DIR or FILE, without names, serial numbers and secrets.

    It holds copies of the files and command outputs that the checks read. Review it before you send it.
    """
    from pathlib import Path

    from checks.allowed import sources as allowed
    from checks.facts.read import read_host
    from gpu_setup.version import version
    from machine.local import LocalMachine
    from machine.recorder import RecordingMachine, identities_of, machine_file, write
    from machine.whole_file import RECORDING, check_place, save

    place = folder or file
    if place is None or (folder and file):
        raise click.UsageError("Name either DIR or --one-file FILE.")
    if force and folder:
        raise click.UsageError("--force is for --one-file: a folder is never written over something else.")
    if file is not None:
        check_place(file, force, RECORDING)
    machine = LocalMachine()
    seen = RecordingMachine(machine)
    host = read_host(seen)
    about = {
        "name": Path(place).absolute().name.removesuffix(".machine"),
        "taken_at": host.taken_at,
        "tool_version": version(),
        "note": note,
        "synthetic": [],
    }
    if file is not None:
        save(file, machine_file(seen, identities_of(machine), about, allowed), force, RECORDING)
    else:
        write(seen, Path(place), identities_of(machine), about, allowed)
    echo(f"Recorded in {place}. Review it, then replay it: gpu-setup doctor --machine {place}")
    return FINE
