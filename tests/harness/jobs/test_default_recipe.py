"""Which recipe a machine gets when nobody names one: by its card's free memory, and by what can be had."""

from __future__ import annotations

import re

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from harness.environment.stack_choice import choose_stack
from harness.jobs.default_recipe import (
    GIB,
    REFERENCE,
    SMALL,
    SPARE_GIB,
    SYNTHETIC,
    choose_preset,
    default_recipe,
    hub_reachable,
    model_is_available,
)
from harness.memory.job import constants, job_from_config
from harness.memory.prediction import predict
from harness.recipe.loader import load_recipe, presets_of, recipe_names
from harness.recipe.shapes import shapes_of
from tests.harness.environment.test_device import Load
from tests.tool import ROOT


@pytest.mark.parametrize(
    ("free", "name"),
    [
        (10.5, "mistral-7b-qlora-12gb"),
        (14.9, "mistral-7b-qlora-16gb"),
        (19.0, "mistral-7b-qlora-20gb"),
        # a 3090 with a desktop on it is still a card of 24 GB, and the reference was made for those
        (22.7, "mistral-7b-qlora"),
        (31.5, "mistral-7b-qlora"),
        (46.5, "mistral-7b-qlora-48gb"),
        (140.0, "mistral-7b-qlora-48gb"),
    ],
)
def test_the_preset_goes_by_the_free_memory(free: float, name: str) -> None:
    assert choose_preset(REFERENCE, int(free * GIB)).name == name
    assert default_recipe(True, int(free * GIB), model=True, learns=False).name == name


def test_a_card_in_use_gets_less_than_its_size() -> None:
    """24 GB, of which a game takes ten."""
    assert choose_preset(REFERENCE, 14 * GIB).name == "mistral-7b-qlora-16gb"


def test_too_little_for_seven_billion_parameters() -> None:
    chosen = default_recipe(True, 6 * GIB, model=True, learns=False)
    assert chosen.name == SMALL
    assert "6.0 GiB are free" in chosen.because


def test_unknown_memory_gets_the_reference() -> None:
    assert default_recipe(True, None, model=True, learns=False).name == REFERENCE


def test_without_the_hub() -> None:
    assert default_recipe(True, 22 * GIB, model=False, learns=False).name == SYNTHETIC
    assert default_recipe(True, 22 * GIB, model=False, learns=True).name == SMALL
    assert default_recipe(False, None, model=False, learns=False).name == SMALL


def test_the_free_memory_is_the_chosen_cards_own(machine: Load) -> None:
    healthy = read_host(machine("rtx3090-healthy"))
    (gpu,) = healthy.nvidia.nvml or ()
    assert gpu.memory_total and gpu.memory_used is not None
    assert choose_stack(healthy, catalogue()).free == gpu.memory_total - gpu.memory_used
    amd = read_host(machine("rx7900xtx-healthy"))
    (card,) = amd.amd.gpus or ()
    assert card.vram_total and card.vram_used is not None
    assert choose_stack(amd, catalogue()).free == card.vram_total - card.vram_used
    assert choose_stack(read_host(machine("rtx3090ti-fresh")), catalogue()).free is None


def test_what_needs_no_hub_is_at_hand(tmp_path: object) -> None:
    from pathlib import Path

    nowhere = Path(str(tmp_path))
    assert model_is_available(load_recipe(SMALL), nowhere) and model_is_available(load_recipe(SYNTHETIC), nowhere)
    assert not model_is_available(load_recipe(REFERENCE), nowhere)


def test_a_hub_that_nobody_answers_for() -> None:
    assert not hub_reachable({"HF_HUB_OFFLINE": "1"})
    # port 9 of this machine: nobody listens
    assert not hub_reachable({"HF_ENDPOINT": "http://127.0.0.1:9"}, seconds=2.0)
    assert not hub_reachable({"HF_ENDPOINT": "file:///etc"})


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).traits.vram_gb])
def test_each_recipe_fits_the_card_that_it_is_made_for(name: str) -> None:
    """By prediction, with what a desktop takes left out."""
    recipe = load_recipe(name)
    model = recipe.config["base_model"]
    shapes = shapes_of("mistralai/Mistral-7B-v0.1" if "synthetic" in model else model)
    assert shapes is not None and recipe.traits.vram_gb is not None
    needed = predict(job_from_config(recipe.config, shapes)).device
    assert needed + constants().reserve <= (recipe.traits.vram_gb - SPARE_GIB) * GIB, f"{needed / 1e9:.1f} GB"


def test_the_page_says_what_is_predicted() -> None:
    page = (ROOT / "docs" / "concepts" / "hyperparameters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `-(\d+gb)` \|.*\| ([\d.]+) GiB \|", page, re.MULTILINE)
    assert [f"mistral-7b-qlora-{size}" for size, _ in rows] == list(presets_of("mistral-7b-qlora"))
    for size, told in rows:
        recipe = load_recipe(f"mistral-7b-qlora-{size}")
        shapes = shapes_of(recipe.config["base_model"])
        assert shapes is not None
        assert predict(job_from_config(recipe.config, shapes)).device / GIB == pytest.approx(float(told), rel=0.03), (
            size
        )
