"""Which recipe a machine gets by default, and whether its model is available."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from harness.environment.model_download import model_folder, read_source
from harness.memory.available import GIB
from harness.recipe.loader import Recipe, load_recipe, presets_of

REFERENCE = "mistral-7b-qlora"
SYNTHETIC = "mistral-7b-qlora-synthetic"
SMALL = "smollm2-135m-qlora"

# memory that a desktop, the driver's context and PyTorch's reserve may use before the training starts
SPARE_GIB = 2


class RecipeChoice(NamedTuple):
    name: str
    because: str


def default_recipe(gpu: bool, free: int | None, model: bool, learns: bool) -> RecipeChoice:
    """`free`: the card's free memory in bytes, None: not known; `model`: the reference's weights are downloaded or can
    be; `learns`: the run is judged by what it learnt, or trains on the user's own data.
    """
    if not gpu:
        return RecipeChoice(SMALL, "no supported GPU")
    smallest = load_recipe(presets_of(REFERENCE)[0]).traits.vram_gb or 0
    if free is not None and free < (smallest - SPARE_GIB) * GIB:
        return RecipeChoice(
            SMALL, f"{free / GIB:.1f} GiB are free on the card: too little for a model of 7 billion parameters"
        )
    if not model:
        if learns:
            return RecipeChoice(SMALL, "the model hub cannot be reached, and this model comes from a Python package")
        return RecipeChoice(
            SYNTHETIC, "the model hub cannot be reached, so Mistral 7B with randomly initialised weights"
        )
    return choose_preset(REFERENCE, free)


def choose_preset(base: str, free: int | None) -> RecipeChoice:
    """The recipe's preset for this much free memory; the recipe itself where that is not known or it has no presets."""
    presets = [load_recipe(name) for name in presets_of(base)]
    if free is None or not presets:
        return RecipeChoice(base, "the card's free memory is not known" if presets else "it has no presets")
    fit = [made for made in presets if free >= ((made.traits.vram_gb or 0) - SPARE_GIB) * GIB]
    best = max(fit or presets[:1], key=lambda made: made.traits.vram_gb or 0)
    # a preset that changes nothing is the recipe itself
    name = base if best.config == load_recipe(base).config else best.name
    return RecipeChoice(name, f"{free / GIB:.1f} GiB are free on the card")


def model_is_available(recipe: Recipe, models: Path) -> bool:
    """Whether the recipe's model needs no hub, or was completely downloaded before."""
    if recipe.traits.model != "hub":
        return True
    folder = model_folder(models, str(recipe.config["base_model"]), recipe.config.get("revision_of_model"))
    return read_source(folder) is not None


def hub_reachable(environ: Mapping[str, str], seconds: float = 5.0) -> bool:
    """Whether the model hub answers, through the user's proxy; an HTTP error is an answer too."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    address = environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not address.startswith(("https://", "http://")):
        return False
    try:
        with urlopen(Request(f"{address.rstrip('/')}/robots.txt", method="HEAD"), timeout=seconds):
            return True
    except HTTPError:
        return True
    except (OSError, ValueError):
        return False
