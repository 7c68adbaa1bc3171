"""The work key: what makes two figures figures of the same thing, and what only stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.recipe.loader import load_recipe, user_recipe
from harness.recipe.shapes import shapes_of
from harness.report.collect_work import read_data_digest
from harness.report.comparison_key import Work, describe_work, differences, list_conditions
from harness.report.run_report import Report
from tests.harness.examples import log, run_of, step
from tests.harness.report.examples import EXACT, LENGTH, MISTRAL, RECIPE, SYNTHETIC, card, small, steps


def differing(one: Report, other: Report) -> list[str]:
    assert one.work and other.work
    return [each.key for each in differences((one.work, other.work))]


def test_what_the_small_recipe_does() -> None:
    work = small().work
    assert work
    assert dict(describe_work(work)) == {
        "model": "HuggingFaceTB/SmolLM2-135M",
        "model's layers": 30,
        "model's hidden": 576,
        "model's intermediate": 1536,
        "model's heads": 9,
        "model's kv heads": 3,
        "model's head dim": 64,
        "model's vocab": 49152,
        "method": "qlora",
        "quantisation": "nf4",
        "quantisation's block size": 64,
        "double quantisation": True,
        "adapter": "lora",
        "LoRA r": 32,
        "LoRA targets": "all-linear",
        "LoRA dropout": 0.0,
        "trained parameters": 9768960,
        "precision": "fp32",
        "data": "house-style.json",
        "data's digest": work.data.digest[:12] if work.data.digest else None,
        "kind of data": "alpaca",
        "trained on": "answers",
        "sequence": 256,
        "tokens a step": 80.0,
        "tokens": 1600,
    }


def test_a_3090_and_a_7900_do_the_same_work() -> None:
    one = card("RTX 3090")
    other = card("Radeon RX 7900 XTX", host={"driver": "7.2.1"}, start={"attention": "flash_attention_2"})
    assert differing(one, other) == []
    assert one.conditions and other.conditions
    assert (one.conditions.card, other.conditions.card) == ("RTX 3090", "Radeon RX 7900 XTX")
    assert (one.conditions.runtime, other.conditions.runtime) == ("cuda 13.0", "rocm 7.2.0")
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ({"lora_r": 16}, ["LoRA r"]),
        ({"lora_dropout": 0.05}, ["LoRA dropout"]),
        ({"lora_target_linear": False, "lora_target_modules": ["q_proj", "v_proj"]}, ["LoRA targets"]),
        ({"peft_use_dora": True}, ["adapter"]),
        ({"lora_modules_to_save": ["lm_head"]}, ["fully trained modules"]),
        ({"load_in_4bit": False}, ["method", "quantisation", "quantisation's block size", "double quantisation"]),
        ({"bnb_config_kwargs": {"bnb_4bit_quant_type": "fp4"}}, ["quantisation"]),
        ({"bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}}, ["double quantisation"]),
        ({"overrides_of_model_config": {"num_hidden_layers": 2}}, []),
        ({"sequence_len": 4096}, ["data", "kind of data", "sequence"]),
    ],
)
def test_a_changed_key_is_other_work(overrides: dict[str, Any], keys: list[str]) -> None:
    found = differing(card(), card(overrides=overrides))
    assert [key for key in keys if key not in found] == []
    assert set(found) <= {*keys, "data", "data's digest"}


@pytest.mark.parametrize(
    ("start", "keys"),
    [
        ({"precision": "fp16"}, ["precision"]),
        ({"precision": "fp32"}, ["precision"]),
        ({"trainable_parameters": 1}, ["trained parameters"]),
        ({"attention": "eager"}, []),
        ({"checkpointing": False}, []),
        ({"torch": "2.12.0"}, []),
    ],
)
def test_what_the_worker_saw(start: dict[str, Any], keys: list[str]) -> None:
    assert differing(card(), card(start=start)) == keys


@pytest.mark.parametrize(
    "overrides",
    [
        {"micro_batch_size": 1, "gradient_accumulation_steps": 8},
        {"optimizer": "adamw_torch_fused"},
        {"torch_compile": True},
        {"gradient_checkpointing": "offload"},
        {"attn_implementation": "flash_attention_2"},
        {"liger_rms_norm": True},
        {"seed": 7},
        {"learning_rate": 1e-5},
        {"lora_alpha": 64},
        {"datasets": [{"path": "/tmp/exact-2048-other-seed.jsonl", "type": None}]},
    ],
)
def test_how_it_is_done_is_a_condition(overrides: dict[str, Any]) -> None:
    one, other = card(), card(overrides=overrides)
    assert differing(one, other) == []
    assert one.digest != other.digest or "datasets" in overrides


def test_documents_of_one_length_are_identified_by_their_length_not_by_a_name() -> None:
    work = card().work
    assert work and work.data == msgspec.structs.replace(
        work.data, name="documents of one length", kind="exact", digest=None, mean_length=2048.0, seen_length=2048.0
    )
    assert (work.data.trained_on, work.tokens_per_step, work.tokens) == ("everything", 16384, 16384 * 20)


def test_shapes_decide_whatever_the_model_is_called() -> None:
    """The reference and its drawn weights do the same work; v0.3 has another vocabulary."""
    real = card(recipe=MISTRAL)
    drawn = card(recipe=SYNTHETIC)
    assert real.conditions and real.conditions.weights == "real"
    assert drawn.conditions and drawn.conditions.weights == "random"
    assert real.work and real.work.model.shaped
    # drawn weights' shapes stand in the config.json of the folder that was trained with
    shaped = msgspec.structs.replace(drawn, work=with_model(drawn.work, real.work))
    assert differing(real, shaped) == []
    other = shapes_of("mistralai/Mistral-7B-v0.3")
    assert other
    vocabulary = msgspec.structs.replace(real.work.model, vocab=other.vocab)
    assert differing(
        real, msgspec.structs.replace(real, work=msgspec.structs.replace(real.work, model=vocabulary))
    ) == ["model's vocab"]


def with_model(work: Work | None, other: Work | None) -> Work:
    assert work and other
    return msgspec.structs.replace(work, model=msgspec.structs.replace(other.model, name="a mirror", revision=None))


def test_a_pinned_revision_is_compared_with_another_pinned_one_only() -> None:
    one = card(recipe=MISTRAL, overrides={"revision_of_model": "1" * 40})
    other = card(recipe=MISTRAL, overrides={"revision_of_model": "2" * 40})
    unpinned = card(recipe=MISTRAL, overrides={"revision_of_model": None})
    assert differing(one, other) == ["revision"]
    assert differing(one, unpinned) == []


def test_rows_in_another_order_are_the_same_work_and_other_rows_are_not() -> None:
    one = small(steps=steps(1.0, non_padding=80))
    assert differing(one, small(steps=steps(1.0, non_padding=83))) == []
    assert differing(one, small(steps=steps(1.0, non_padding=90))) == ["tokens a step", "tokens"]


def test_a_run_that_its_time_budget_ended_early_did_the_planned_work() -> None:
    from harness.process.worker_log import BeginEvent

    whole = small(log=log(*steps(1.0, number=50), begin=BeginEvent(planned_steps=50)))
    cut = small(log=log(*steps(3.0, number=17), begin=BeginEvent(planned_steps=50)))
    assert differing(whole, cut) == []


def test_the_mask_is_what_was_seen() -> None:
    answers, everything = small(), small(steps=steps(1.0, trainable=80))
    assert differing(answers, everything) == ["trained on"]


def test_data_are_known_by_their_content(tmp_path: Path) -> None:
    texts = {"a.json": '[{"instruction": "a"}]', "b.json": '[{"instruction": "a"}]', "c.json": '[{"instruction": "c"}]'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    a, b, c = (small(run={"data": str(tmp_path / name)}) for name in texts)
    assert differing(a, b) == []
    assert differing(a, c) == ["data's digest"]
    gone = run_of(RECIPE, data=str(tmp_path / "gone.json"))
    assert read_data_digest(RECIPE, gone) is None


def test_data_on_a_hub_are_known_by_their_name() -> None:
    assert read_data_digest(MISTRAL, run_of(MISTRAL)) is None
    one = small(recipe=MISTRAL)
    assert one.work and one.work.data.name == "mhenrichsen/alpaca_2k_test"


def test_a_persons_folders_stay_out(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(RECIPE.text.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "/home/ada/models/secret-model"))
    recipe = user_recipe(mine)
    found = small(recipe=recipe, run={"data": "/home/ada/private/mails.json", "base_model": "/home/ada/models/x"})
    text = msgspec.json.encode([found.work, found.conditions]).decode()
    assert "/home" not in text and "ada/" not in text and "private" not in text
    assert found.work and (found.work.model.name, found.work.data.name) == ("secret-model", "mails.json")


def test_the_digest_does_not_depend_on_paths() -> None:
    one, other = card(), card(started_at="2026-11-25T10:00:00Z", tokens_per_second=900.0)
    assert one.digest == other.digest
    moved = card(overrides={"output_dir": "/elsewhere"})
    assert moved.digest == one.digest


@pytest.mark.parametrize(
    "host",
    [
        {"driver": "590.12"},
        {"kernel": "6.14.0"},
        {"power_limit_watts": 280.0},
        {"cards": ("RTX 3090 Ti",)},
        {"cpu": "x"},
    ],
)
def test_the_digest_knows_every_setting(host: dict[str, Any]) -> None:
    assert card(host=host).digest != card().digest


def test_the_card_that_was_trained_on_is_named() -> None:
    pair = ("RTX 3090", "RTX 3090 Ti")
    first = card("RTX 3090 Ti", host={"cards": pair}).conditions
    second = card("RTX 3090", host={"cards": pair}).conditions
    unknown = card("RTX 9999", host={"cards": ("10de:9999",)}).conditions
    assert first and second and unknown
    assert (first.card, second.card, unknown.card) == ("RTX 3090 Ti", "RTX 3090", "10de:9999")


def test_a_run_without_steps_has_work_without_tokens() -> None:
    found = small(log=log(steps=(), start=None, begin=None, end=None)).work
    assert found and (found.tokens, found.tokens_per_step) == (None, None)


@pytest.mark.parametrize("name", ["tiny", "smollm2-135m-qlora", "mistral-7b-qlora", "mistral-7b-qlora-synthetic"])
def test_every_recipe_has_a_key(name: str) -> None:
    found = small(recipe=load_recipe(name))
    assert found.work and found.conditions and found.digest
    assert describe_work(found.work) and list_conditions(found.conditions)


def test_packed_documents_have_lengths() -> None:
    packed = small(steps=[step(n, non_padding=100, documents=4, squares=3000, trainable=40) for n in range(1, 11)])
    assert packed.work and (packed.work.data.mean_length, packed.work.data.seen_length) == (25.0, 30.0)
    assert EXACT["sequence_len"] == LENGTH
