"""`gpu-setup recipe`: the recipes, and the text of one."""

from __future__ import annotations

import click

from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup recipe                                  list the recipes
  gpu-setup recipe smollm2-135m-qlora > mine.yaml   a copy to change; then: gpu-setup smoke --recipe ./mine.yaml
"""


@click.command(epilog=EPILOG)
@json_option
@click.argument("name", required=False)
def command(as_json: bool, name: str | None) -> Answer:
    """List the recipes, or print one: plain Axolotl YAML with the reason for each setting."""
    from harness.recipe.loader import recipe_names
    from harness.recipe.recipe_list import recipe_list
    from machine.errors import FINE

    found = recipe_list((name,) if name else recipe_names())

    def text() -> str:
        if name:
            return found.recipes[0].text
        return "".join(f"{recipe.name:<28}{recipe.title}\n" for recipe in found.recipes)

    return Answer("recipe", found, FINE, text)
