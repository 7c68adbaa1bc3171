"""`gpu-setup image verify`: is it the right image? Asked inside, without network and without root."""

from __future__ import annotations

from pathlib import Path

import click

from containers.model import Vendor
from gpu_setup.commands.image_options import engine_option, gpu_option, image_option, spec_of, spec_options
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup image verify
  gpu-setup image verify --recipe mine.yaml     that Axolotl takes your recipe, too
  gpu-setup image verify --json

\b
Exit codes: 0 it is the right one (on a stub: it says that nothing was proven); 1 it is not; 3 not built, or no
access to the cards; 4 the container gave no answer.
"""


@click.command("verify", epilog=EPILOG)
@json_option
@spec_options
@engine_option
@image_option
@gpu_option
@click.option(
    "--recipe",
    "recipes",
    metavar="NAME",
    multiple=True,
    help="Recipes that Axolotl must take. Default: the shipped ones.",
)
def verify_command(
    as_json: bool,
    vendor: Vendor,
    base: str | None,
    python: str | None,
    engine: str | None,
    image_name: str | None,
    gpus: tuple[str, ...],
    recipes: tuple[str, ...],
) -> Answer:
    """Prove the image from inside, without network and without root.

    The right torch, kernels for the cards, bitsandbytes' library, Triton, NF4, locked versions, recipes.
    """
    import os

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from containers.build import worker_digest
    from containers.container_setup import Wanted, container, find_image
    from containers.engine import choose_engine
    from containers.verify import verify
    from gpu_setup.commands.training_options import my_paths
    from gpu_setup.render.image import verification_text
    from gpu_setup.render.progress import reporter
    from harness.environment.worker_process import WORKER
    from harness.recipe.loader import load_recipe, names
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    machine = LocalMachine()
    host = read_host(machine)
    spec = spec_of(host, vendor, base, python)
    chosen = choose_engine(host, machine, engine)
    image = find_image(spec, worker_digest(WORKER), chosen, machine, image_name)
    made = container(
        spec, image, host, catalogue(), chosen, machine, my_paths(), Wanted(gpus=gpus, image=image_name), os.environ
    )
    loaded = [load_recipe(name) for name in recipes or names()]
    files = tuple(
        Path(recipe.path).absolute()
        for recipe in loaded
        if recipes or spec.vendor != "cpu" or not recipe.traits.needs_gpu
    )
    with reporter(as_json) as emit:
        found = verify(spec, made, image.id, files, machine, emit)
    return Answer("verify", found, BAD_ANSWER if found.verdict == "fail" else FINE, lambda: verification_text(found))
