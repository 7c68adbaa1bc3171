"""The search for the fastest recipe: what is tried next, what is never tried, and what the tuned recipe says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from harness.jobs.tune_search import (
    TuneFacts,
    TuneTry,
    changes_digest,
    compare_in_pairs,
    fastest_try,
    next_change,
    propose_changes,
    same_losses,
    tuned_recipe_text,
)
from harness.recipe.loader import load_recipe, recipe_names

SMALL = load_recipe("smollm2-135m-qlora")
REFERENCE = load_recipe("mistral-7b-qlora")
CPU = TuneFacts(gpu=False, document_tokens=110.0)
GPU = TuneFacts(gpu=True, packages=frozenset({"cut_cross_entropy", "flash_attn"}), document_tokens=170.0)


def searched(config: dict[str, Any], facts: TuneFacts, speeds: dict[str, float | str]) -> list[TuneTry]:
    """Run the whole search where each label has a speed (or fails with a reason); 100 where none is given."""
    tries = [TuneTry(0, "untuned", "untuned", {}, "measured", 100.0)]
    while (change := next_change(config, tries, facts)) is not None:
        best = fastest_try(tries)
        assert best and len(tries) < 40, "the search ends"
        speed = next((value for word, value in speeds.items() if change.label.startswith(word)), 100.0)
        whole = {**best.changes, **change.changes}
        entry = TuneTry(
            len(tries), change.group, change.label, whole, "measured", speed if isinstance(speed, float) else None
        )
        if isinstance(speed, str):
            entry = TuneTry(len(tries), change.group, change.label, whole, "failed", reason=speed)
        tries.append(entry)
    return tries


def best_of(tries: list[TuneTry]) -> TuneTry:
    found = fastest_try(tries)
    assert found
    return found


def test_nothing_is_proposed_before_the_untuned_recipe_was_measured() -> None:
    assert next_change(SMALL.config, [], CPU) is None


def test_the_best_of_each_group_stays_for_the_next() -> None:
    tries = searched(SMALL.config, CPU, {"packed, longer": 150.0, "loss in chunks": 160.0, "fused AdamW": 90.0})
    assert best_of(tries).changes == {
        "sample_packing": True,
        "sequence_len": 448,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "pad_to_sequence_len": False,
        "chunked_cross_entropy": True,
    }


def test_packing_keeps_about_the_tokens_of_a_step() -> None:
    for change in propose_changes(REFERENCE.config | {"sample_packing": False, "sequence_len": 2048}, (), GPU):
        if change.group == "packing":
            tokens = 2 * 4 * 170
            made = change.changes["sequence_len"] * change.changes["gradient_accumulation_steps"]
            assert made <= max(2 * tokens, change.changes["sequence_len"])


def test_the_micro_batch_doubles_while_it_helps_and_keeps_the_samples_of_a_step() -> None:
    config = SMALL.config | {"micro_batch_size": 1, "gradient_accumulation_steps": 8}
    tries = searched(config, CPU, {"micro batch 2": 120.0, "micro batch 4": 140.0, "micro batch 8": 130.0})
    tried = [entry.label for entry in tries if entry.group == "micro batch"]
    assert tried == ["micro batch 2 x 4", "micro batch 4 x 2", "micro batch 8 x 1"]
    best = best_of(tries).changes
    assert best["micro_batch_size"] * best["gradient_accumulation_steps"] == 8
    assert best["micro_batch_size"] == 4


def test_after_an_out_of_memory_no_larger_batch_is_tried() -> None:
    config = SMALL.config | {"micro_batch_size": 1, "gradient_accumulation_steps": 8}
    tries = searched(config, CPU, {"micro batch 2": "out of memory"})
    assert [entry.label for entry in tries if entry.group == "micro batch"] == ["micro batch 2 x 4"]
    assert best_of(tries).changes == {}


def test_a_gain_within_the_noise_is_none() -> None:
    tries = searched(SMALL.config, CPU, {"": 101.0})
    assert best_of(tries).label == "untuned"


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("facts", [CPU, GPU])
def test_what_would_change_the_result_is_never_proposed(name: str, facts: TuneFacts) -> None:
    recipe = load_recipe(name)
    for entry in searched(recipe.config, facts, {}):
        assert not set(entry.changes) & {
            "lora_r", "lora_alpha", "lora_dropout", "learning_rate", "bf16", "fp16", "load_in_4bit", "seed",
            "base_model", "lora_target_modules", "lora_target_linear", "weight_decay", "lr_scheduler", "num_epochs",
            "datasets",
        }  # fmt: skip


def test_kernels_and_card_only_packages_are_skipped_on_the_cpu() -> None:
    labels = {entry.label for entry in searched(SMALL.config, CPU, {})}
    assert not labels & {"LoRA kernels", "cut cross entropy", "flash attention 2"}
    labels = {entry.label for entry in searched(SMALL.config, GPU, {})}
    assert {"LoRA kernels", "cut cross entropy", "flash attention 2"} <= labels


def test_losses_agree_by_the_precision() -> None:
    reference = (4.20, 3.90, 3.60)
    assert same_losses((4.2001, 3.901, 3.601), reference, "fp32")
    assert not same_losses((4.2010, 3.900, 3.600), reference, "fp32"), "the first step is the forward pass alone"
    assert same_losses((4.2100, 3.930, 3.620), reference, "bf16")
    assert not same_losses((4.2000, 3.900), reference, "fp32"), "a run that ended early proves nothing"
    assert not same_losses((), (), "fp32")


def test_a_duel_compares_pairs() -> None:
    found = compare_in_pairs((100.0, 50.0, 100.0), (150.0, 70.0, 160.0))
    assert (found.lowest, found.ratio, found.highest) == (1.4, 1.5, 1.6)


def test_the_same_changes_have_one_digest() -> None:
    assert changes_digest({"a": 1, "b": [2]}) == changes_digest({"b": [2], "a": 1}) != changes_digest({"a": 1})


@pytest.mark.parametrize("recipe", [SMALL, REFERENCE], ids=lambda recipe: recipe.name)
def test_the_tuned_recipe_is_the_recipe_with_the_changes(recipe: Any) -> None:
    changes = {
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "plugins": ["a.B"],
        "lora_target_modules": None,
        "chunked_cross_entropy": True,
        "attn_implementation": "flash_attention_2",
    }
    best = TuneTry(3, "loss", "loss in chunks", changes, "measured", 150.0)
    text = tuned_recipe_text(recipe.name, recipe.text, best, 1.5, "RTX 3090")
    wanted = {**recipe.config, **changes}
    del wanted["lora_target_modules"]
    assert yaml.safe_load(text) == wanted
    assert "1.50 times as fast" in text.splitlines()[0]
    assert "# No dropout" in text or recipe is REFERENCE, "the recipe's own words stay"
