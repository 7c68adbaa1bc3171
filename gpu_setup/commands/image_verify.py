"""`gpu-setup image verify`: does the image fit this machine? Checked inside, without network and without root."""

from __future__ import annotations

import click
import msgspec

from gpu_setup.commands.image_options import SpecOptions, engine_option, gpu_option, image_option, spec_options
from gpu_setup.commands.options import json_option, options_into
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image verify
  gpu-setup image verify --recipe mine.yaml     also that Axolotl accepts your recipe
  gpu-setup image verify --json

\b
Exit codes: 0 verified (with a stub instead of a card: only what needs no card); 1 the image does not fit; 3 not built,
or no access to the cards; 4 the container gave no answer.
"""


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    wanted: SpecOptions
    engine: str | None
    image_name: str | None
    gpus: tuple[str, ...]
    recipes: tuple[str, ...]


@click.command("verify", epilog=EPILOG)
@json_option
@engine_option
@image_option
@gpu_option
@click.option(
    "--recipe",
    "recipes",
    metavar="NAME",
    multiple=True,
    help="A recipe that Axolotl must accept; repeatable. Default: the shipped ones.",
)
@spec_options
@options_into(VerifyOptions)
def verify_command(options: VerifyOptions) -> Answer:
    """Verify the image from inside, without network and without root.

    Checks torch, kernels for the cards, bitsandbytes' library, Triton, NF4, locked versions and the recipes.
    """

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.build import worker_digest
    from containers.connection import connect
    from containers.container_setup import ContainerOptions, find_image, make_container
    from containers.engine import choose_engine
    from containers.verify import verify
    from gpu_setup.commands.training_options import my_paths
    from gpu_setup.render.image import verification_text
    from gpu_setup.render.progress import reporter
    from harness.environment.worker_process import WORKER
    from harness.recipe.loader import recipe_files
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    machine = LocalMachine()
    host = read_host(machine)
    spec = options.wanted.spec(host)
    chosen = choose_engine(host, machine, options.engine)
    client = connect(chosen, machine)
    image = find_image(spec, worker_digest(WORKER), chosen, client, options.image_name)
    wanted = ContainerOptions(gpus=options.gpus, image=options.image_name)
    made = make_container(image, host, catalogue(), machine, client, my_paths(), wanted)
    files = recipe_files(options.recipes, gpu=spec.vendor != "cpu")
    with reporter(options.as_json) as emit:
        found = verify(spec, client, made, image.id, files, machine, emit)
    return Answer("verify", found, BAD_ANSWER if found.verdict == "fail" else FINE, lambda: verification_text(found))
