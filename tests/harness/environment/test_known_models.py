"""The models of the shipped recipes: pinned to a commit, and the sha256 of their files where a source has them."""

from __future__ import annotations

import re

from harness.environment.model_download import COMMIT, how_checked, known_files, known_models
from harness.recipe.loader import load_recipe, recipe_names

HUB = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.traits.model == "hub"]


def test_every_recipe_of_the_hub_is_pinned_to_a_commit() -> None:
    assert HUB
    for recipe in HUB:
        assert COMMIT.fullmatch(str(recipe.config.get("revision_of_model"))), recipe.name
        for entry in recipe.config["datasets"]:
            assert COMMIT.fullmatch(str(entry.get("revision"))), recipe.name


def test_the_known_files_are_those_of_the_recipes_at_their_commits() -> None:
    pinned = {(recipe.config["base_model"], recipe.config["revision_of_model"]) for recipe in HUB}
    for repo, model in known_models().items():
        assert (repo, model.revision) in pinned
        assert any(name.endswith(".safetensors") for name in model.sha256), repo
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in model.sha256.values()), repo
        assert model.source and re.fullmatch(r"\d{4}-\d\d-\d\d", model.date)
        assert known_files(repo, model.revision) == model.sha256
        assert known_files(repo, "main") == known_files(repo, None) == {}


def test_what_is_no_evidence_is_called_so() -> None:
    assert "not a changed model" in how_checked({}) and "knows no sha256" in how_checked({})
    assert how_checked({"a": "b"}).startswith("1 of its files are checked with gpu-setup's own sha256")
