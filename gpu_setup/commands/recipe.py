"""`gpu-setup recipe`: the recipes, and the text of one."""

from __future__ import annotations

import click
import msgspec

from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup recipe                                  which there are
  gpu-setup recipe smollm2-135m-qlora > mine.yaml   a copy to change; then: gpu-setup smoke --recipe ./mine.yaml
"""


class RecipeText(msgspec.Struct, frozen=True):
    name: str
    title: str
    needs_gpu: bool
    text: str


class RecipeList(msgspec.Struct, frozen=True):
    recipes: tuple[RecipeText, ...]


@click.command(epilog=EPILOG)
@json_option
@click.argument("name", required=False)
def command(as_json: bool, name: str | None) -> Answer:
    """List the recipes, or print one: plain Axolotl YAML with the reason for each knob."""
    from harness.recipe.loader import load_recipe, names
    from machine.errors import FINE

    found = [load_recipe(each) for each in ((name,) if name else names())]
    listed = RecipeList(tuple(RecipeText(r.name, r.traits.title, r.traits.needs_gpu, r.text) for r in found))

    def text() -> str:
        if name:
            return found[0].text
        return "".join(f"{recipe.name:<28}{recipe.traits.title}\n" for recipe in found)

    return Answer("recipe", listed, FINE, text)
