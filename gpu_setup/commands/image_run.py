"""`gpu-setup image run`: any program in the image, with the cards, as yourself."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gpu_setup.commands.image_options import SpecOptions, engine_option, gpu_option, image_option, spec_options
from gpu_setup.commands.options import options_into
from gpu_setup.terminal import echo

EPILOG = """\b
Examples:
  gpu-setup image run -- python train.py        in this folder, which is mounted with your permissions
  gpu-setup image run -- python                 Python's prompt, or any other program at the terminal
  gpu-setup image run --mount /data -- python -c 'import torch; print(torch.cuda.get_device_name())'
  gpu-setup image run --network -- axolotl fetch examples
  gpu-setup image run --print -- python         show the engine's command only

\b
Exit code: the program's own; 3 not built, or no access to the cards; 4 the engine failed.
"""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    wanted: SpecOptions
    engine: str | None
    image_name: str | None
    gpus: tuple[str, ...]
    mounts: tuple[str, ...]
    network: bool
    shm_size: str | None
    writable: bool
    only_print: bool
    words: tuple[str, ...]


@click.command("run", epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@engine_option
@image_option
@gpu_option
@click.option(
    "--mount",
    "mounts",
    metavar="DIR",
    multiple=True,
    help="Mount this folder too, at the same place, read-only; DIR:rw to write there. Repeatable.",
)
@click.option(
    "--network",
    is_flag=True,
    help="Allow network, with your hub cache and your hub token (as a file). Default: no network.",
)
@click.option("--shm-size", metavar="SIZE", help="Size of the shared memory for data loaders. Default: 8g.")
@click.option("--writable", is_flag=True, help="Make the root file system writable; what is written there is lost.")
@click.option("--print", "only_print", is_flag=True, help="Print the engine's command instead of running it.")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@spec_options
@options_into(RunOptions)
def run_command(options: RunOptions) -> int:
    """Run a program in the image: with the cards, as yourself, in this folder.

    Ctrl-C ends it; nothing is kept of the container.
    """
    import shlex
    from functools import partial

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.build import worker_digest
    from containers.connection import connect
    from containers.container import run_argv
    from containers.container_setup import ContainerOptions, find_image, make_container
    from containers.engine import choose_engine
    from containers.run import attach_options, run_attached
    from containers.user_mounts import check_folder, user_mounts
    from gpu_setup.commands.training_options import my_paths
    from harness.environment.worker_process import WORKER
    from machine.errors import FINE
    from machine.local import LocalMachine

    here = check_folder(Path.cwd())
    machine = LocalMachine()
    host = read_host(machine)
    spec = options.wanted.spec(host)
    chosen = choose_engine(host, machine, options.engine)
    client = connect(chosen, machine)
    image = find_image(spec, worker_digest(WORKER), chosen, client, options.image_name)
    wanted = ContainerOptions(
        options.gpus, options.network, options.image_name, options.shm_size, options.writable,
        user_mounts(here, options.mounts),
    )  # fmt: skip
    made = make_container(image, host, catalogue(), machine, client, my_paths(), wanted)
    if options.only_print:
        argv = run_argv(made, "gpu-setup-run", options.words, str(here), attach_options())
        echo(shlex.join(argv))
        return FINE
    return run_attached(client, made, options.words, machine, partial(echo, err=True), str(here))
