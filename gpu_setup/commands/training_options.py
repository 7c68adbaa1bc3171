"""What the training commands share: their options, and the folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_setup.commands.options import Decorator, options_into
from gpu_setup.terminal import confirm, echo
from harness.environment.runtime import Runtime

if TYPE_CHECKING:
    from checks.catalogue import Stack
    from machine.errors import Refused
    from machine.local import Machine
    from machine.paths import Paths


def _complete_recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from harness.recipe.loader import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


recipe_option: Decorator = click.option(
    "--recipe", "recipe_name", metavar="NAME", shell_complete=_complete_recipe,
    help="A shipped recipe, or a path to an Axolotl YAML. Default: the one that fits this machine.",
)  # fmt: skip
data_option: Decorator = click.option(
    "--data",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Train on your own Alpaca JSON instead of the recipe's data.",
)
out_option: Decorator = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write report.json and report.html here.",
)


accept_unverified_option: Decorator = click.option(
    "--accept-unverified",
    is_flag=True,
    help="Install PyTorch even where no sha256 of it is known. --yes does not include this.",
)


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--runtime, --image, --engine, --accept-unverified: where the training runs. They arrive as a `Runtime`."""
    made = options_into(Runtime, "runtime")(function)
    for option in (
        accept_unverified_option,
        click.option(
            "--engine", type=click.Choice(["docker", "podman"]), help="With --runtime image: the container engine."
        ),
        click.option(
            "--image", "image_name", metavar="NAME", help="With --runtime image: this image instead of the newest."
        ),
        click.option(
            "--runtime",
            type=click.Choice(["auto", "image", "venv"]),
            default="auto",
            help="Train in the image (gpu-setup image build) or in a virtual environment (auto, venv).",
        ),
    ):
        made = option(made)
    return made


def settle_unverified(stack: Stack, runtime: Runtime, machine: Machine, paths: Paths) -> None:
    """Settle whether a torch that cannot be checked may be installed, where one would be; raises Refused if not."""
    from harness.environment.build import torch_to_accept

    if not runtime.is_image:
        ask_or_refuse(torch_to_accept(stack, machine, paths), stack, runtime.accept_unverified, paths)


def ask_or_refuse(refusal: Refused | None, stack: Stack, accepted: bool, paths: Paths) -> None:
    """Raise the refusal unless a person accepts the torch: by --accept-unverified, or by an answer at the terminal."""
    from harness.environment.torch_install import accept_unverified

    if refusal is None:
        return
    if not accepted:
        if not sys.stdin.isatty():
            raise refusal
        echo(f"{refusal.what} {refusal.why}", err=True)
        if not confirm("Install it without a check?"):
            raise refusal
    accept_unverified(stack, paths)


def my_paths() -> Paths:
    from machine.paths import paths

    return paths(os.environ)
