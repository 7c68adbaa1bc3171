"""`gpu-setup image run`: any program in the image, with the cards, as yourself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from containers.model import Vendor
from gpu_setup.commands.image_options import engine_option, gpu_option, image_option, spec_of, spec_options

if TYPE_CHECKING:
    from containers.run import Mount

EPILOG = """\b
Examples:
  gpu-setup image run -- python train.py        in this folder, which is mounted and yours inside as well
  gpu-setup image run -- python                 Python's prompt, or any other program at the terminal
  gpu-setup image run --mount /data -- python -c 'import torch; print(torch.cuda.get_device_name())'
  gpu-setup image run --network -- axolotl fetch examples
  gpu-setup image run --print -- python         only show the engine's command

\b
Exit code: the program's own; 3 not built, or no access to the cards; 4 the engine failed.
"""


@click.command("run", epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@spec_options
@engine_option
@image_option
@gpu_option
@click.option(
    "--mount",
    "mounts",
    metavar="DIR",
    multiple=True,
    help="Another folder of yours, at the same place inside, read-only. Write DIR:rw to write there.",
)
@click.option(
    "--network", is_flag=True, help="With network, your hub cache and your hub token (as a file). Default: none."
)
@click.option("--shm-size", metavar="SIZE", help="Shared memory for data loaders. Default: 8g.")
@click.option("--writable", is_flag=True, help="A root file system that can be written; what is written is lost.")
@click.option("--print", "only_print", is_flag=True, help="Print the engine's command instead of running it.")
@click.argument("words", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(
    vendor: Vendor,
    base: str | None,
    python: str | None,
    engine: str | None,
    image_name: str | None,
    gpus: tuple[str, ...],
    mounts: tuple[str, ...],
    network: bool,
    shm_size: str | None,
    writable: bool,
    only_print: bool,
    words: tuple[str, ...],
) -> int:
    """Run a program in the image: with the cards, as yourself, in this folder. Ctrl-C ends it; nothing stays behind."""
    import os
    import shlex
    from functools import partial

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.build import worker_digest
    from containers.container_setup import Wanted, container, find_image
    from containers.engine import choose_engine
    from containers.run import attached_here, run_argv, run_in
    from gpu_setup.commands.training_options import my_paths
    from harness.environment.worker_process import WORKER
    from machine.errors import FINE
    from machine.local import LocalMachine

    here = _own_folder()
    machine = LocalMachine()
    host = read_host(machine)
    spec = spec_of(host, vendor, base, python)
    chosen = choose_engine(host, machine, engine)
    image = find_image(spec, worker_digest(WORKER), chosen, machine, image_name)
    wanted = Wanted(gpus, network, image_name, shm_size, writable)
    made = container(
        spec, image, host, catalogue(), chosen, machine, my_paths(), wanted, os.environ, _mounts(here, mounts)
    )
    if only_print:
        click.echo(shlex.join(run_argv(made, "gpu-setup-run", words, cwd=str(here), attached=attached_here())))
        return FINE
    return run_in(made, words, machine, partial(click.echo, err=True), str(here))


# inside they are the image's; mounted over them, the machine's would take its place
_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr")


def _own_folder() -> Path:
    """This folder, which is mounted at its own place inside; raises BadUsage for one that the image has itself."""
    from machine.errors import BadUsage

    here = Path.cwd()
    if here.parts[1:2] and here.parts[1] not in _SYSTEM and str(here) not in ("/opt", "/run", "/tmp", "/var"):
        return here
    raise BadUsage(
        "image.folder",
        f"The program would run in {here}, a folder of the system.",
        "This folder is mounted at the same place inside, where the image has its own.",
        "Go to a folder of yours, then run it again",
    )


def _mounts(here: Path, words: tuple[str, ...]) -> tuple[Mount, ...]:
    from containers.run import Mount
    from machine.errors import BadUsage

    found = [Mount(here, writable=True)]
    for word in words:
        place = Path(word.removesuffix(":rw")).absolute()
        if not place.exists():
            raise BadUsage("image.mount", f"--mount: there is no {place}.", "", "Correct the path.")
        found.append(Mount(place, word.endswith(":rw")))
    return tuple(found)
