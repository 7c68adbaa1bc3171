"""The result of `gpu-setup recipe`: the shipped recipes with their text, or one of them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from harness.recipe.loader import load_recipe


class RecipeText(msgspec.Struct, frozen=True):
    name: str
    title: str
    needs_gpu: bool
    text: str


class RecipeList(msgspec.Struct, frozen=True):
    recipes: tuple[RecipeText, ...]


def recipe_list(names: Iterable[str]) -> RecipeList:
    found = [load_recipe(name) for name in names]
    return RecipeList(tuple(RecipeText(r.name, r.traits.title, r.traits.needs_gpu, r.text) for r in found))
