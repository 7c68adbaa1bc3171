"""Which job this machine gets: the recipe that fits it, on the stack of its card."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.environment.stack_choice import StackChoice, choose_stack
from harness.jobs.default_recipe import (
    REFERENCE,
    SMALL,
    RecipeChoice,
    default_recipe,
    hub_reachable,
    model_is_available,
)
from harness.pipeline import Job
from harness.recipe.loader import Recipe, load_recipe, overrides_for_card, require_model
from machine.errors import BadUsage, Refused

HubCheck = Callable[[], bool]


class JobRequest(NamedTuple):
    """What the user wants to train. `recipe` None: the one that fits; `learns`: the run is judged by what it learns."""

    recipe: str | None = None
    data: Path | None = None
    overrides: Mapping[str, Any] = {}
    learns: bool = False


def hub_answers() -> bool:
    return hub_reachable(os.environ)


def usual_recipe(choice: StackChoice, request: JobRequest, models: Path, hub: HubCheck = hub_answers) -> RecipeChoice:
    """The default recipe for this machine. The hub is contacted only where its answer matters.

    `models`: the folder of the downloaded models.
    """
    model = choice.gpu and (model_is_available(load_recipe(REFERENCE), models) or hub())
    return default_recipe(choice.gpu, choice.free, model, request.learns or request.data is not None)


def job_on(choice: StackChoice, recipe: Recipe, request: JobRequest) -> Job:
    """The recipe as a job on the chosen stack; raises Refused for a recipe that needs a GPU if none can be used."""
    require_model(recipe)
    if recipe.traits.needs_gpu and not choice.gpu:
        raise Refused(
            "recipe.needs-gpu",
            f"The recipe {recipe.name} needs a GPU, and this machine has none that can be used: {choice.because}.",
            "A model of this size would train for weeks on a CPU.",
            f"`gpu-setup doctor` shows why the card cannot be used; --recipe {SMALL} runs on any machine.",
        )
    data = Path(os.path.realpath(request.data)) if request.data else None
    changed = {**overrides_for_card(recipe, choice.target), **request.overrides}
    return Job(recipe, choice.stack, data, changed, choice.device, choice.conditions)


def choose_job(host: Host, catalogue: Catalogue, request: JobRequest, models: Path) -> Job:
    """The job for this machine; by default with the recipe for the card's free memory."""
    choice = choose_stack(host, catalogue)
    name = request.recipe or usual_recipe(choice, request, models).name
    return job_on(choice, load_recipe(name), request)


def require_pretrained(recipe: Recipe) -> None:
    """Refuse a recipe with random weights where the model must learn something."""
    if recipe.traits.throughput_only:
        raise BadUsage(
            "recipe.throughput-only",
            f"The recipe {recipe.name} learns nothing: its weights are randomly initialised.",
            "It only measures how fast a card trains.",
            f"gpu-setup bench --recipe {recipe.name}",
        )
