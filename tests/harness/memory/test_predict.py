"""The prediction counts what the article and people's arithmetic count, and moves the way memory does."""

from __future__ import annotations

import msgspec
import pytest

from harness.memory.fit import FitOptions, job_for, largest
from harness.memory.job import MemoryJob, constants, find_optimizer, job_from_config
from harness.memory.prediction import inference_bytes, predict, trainable_parameters, weight_bytes
from harness.recipe.loader import load_recipe, recipe_names
from harness.recipe.shapes import LINEARS, Shapes, shapes_of
from machine.errors import BadUsage

REFERENCE = load_recipe("mistral-7b-qlora")


def mistral() -> Shapes:
    shapes = shapes_of("mistralai/Mistral-7B-v0.1")
    assert shapes
    return shapes


def job(**changes: object) -> MemoryJob:
    return msgspec.structs.replace(job_for(REFERENCE, FitOptions()), **changes)


def test_the_articles_inference_takes_14_gb_in_bf16() -> None:
    weights, cache = inference_bytes(job(method="lora", seq=4096, batch=1))
    assert weights == 2 * 7_241_732_096
    # 32 layers x 8 heads x 128 x (keys + values) x 2 bytes: 128 KiB a token
    assert cache == 4096 * 131_072


def test_the_articles_full_fine_tune_takes_90_gb_or_more() -> None:
    """Weights and gradients in 16 bit and AdamW's two states in 32: twelve bytes a parameter before any activation."""
    full = predict(job_for(REFERENCE, FitOptions(method="full", optimizer="paged_adamw_32bit", batch=1, seq=2048)))
    assert full.device > 88e9
    assert full.parts.weights + full.parts.gradients + full.parts.optimizer == pytest.approx(12 * 7_241_732_096)
    assert predict(load_job("mistral-7b-full", optimizer="paged_adamw_32bit")).device > 90e9


@pytest.mark.parametrize(("seq", "batch"), [(2048, 2), (4096, 1), (8192, 1)])
def test_the_articles_qlora_fits_under_16_gb(seq: int, batch: int) -> None:
    """Its recipe as far as it is known: rank 64, alpha 16, dropout 0.05, adamw_bnb_8bit; not its sequence and batch."""
    wishes = FitOptions(rank=64, optimizer="adamw_bnb_8bit", seq=seq, batch=batch)
    assert predict(job_for(REFERENCE, wishes)).device < 16e9


def test_axolotls_own_example_on_a_4090() -> None:
    """axolotl#708: its Mistral QLoRA at 8192 fits 24 GB with micro batches of 2, not of 4."""
    assert predict(job(batch=2)).device < 24 * 2**30 < predict(job(batch=4)).device


def load_job(recipe: str, **changes: object) -> MemoryJob:
    return msgspec.structs.replace(job_for(load_recipe(recipe), FitOptions()), **changes)


def test_nf4_takes_half_a_byte_and_its_constants() -> None:
    weights, quant_constants = weight_bytes(job())
    ends = 7_241_732_096 - 6_979_321_856
    assert weights == 6_979_321_856 / 2 + 2 * ends
    assert quant_constants == pytest.approx(6_979_321_856 * 0.127 / 8, rel=0.01)  # 0.127 bit a weight: the QLoRA paper
    _, single = weight_bytes(job(double_quant=False))
    assert single == 6_979_321_856 * 4 / 64


def test_the_adapter_of_the_reference() -> None:
    parts = predict(job()).parts
    assert trainable_parameters(job()) == 83_886_080
    assert parts.adapter == parts.gradients == 4 * 83_886_080
    assert parts.optimizer == pytest.approx(2.03 * 83_886_080)


def test_the_parts_add_up() -> None:
    found = predict(job())
    assert found.parts.total == found.device
    assert found.allocated < found.reserved < found.device
    assert found.device - found.reserved == pytest.approx(constants().context, abs=20)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"seq": 2048}, {"seq": 4096}),
        ({"batch": 1}, {"batch": 2}),
        ({"rank": 8}, {"rank": 64}),
        ({"checkpointing": True}, {"checkpointing": False}),
        ({"optimizer": "adamw_bnb_8bit"}, {"optimizer": "adamw_torch"}),
        ({"method": "qlora"}, {"method": "lora"}),
        ({"loss": "fused"}, {"loss": "whole"}),
        ({"attention": "fused"}, {"attention": "math", "checkpointing": False}),
        ({"varied": False}, {"varied": True}),
        ({"float32": "none"}, {"float32": "ends"}),
        ({"lora_kernels": True, "checkpointing": False}, {"lora_kernels": False, "checkpointing": False}),
        ({"double_quant": True}, {"double_quant": False}),
        ({"targets": LINEARS[:4], "checkpointing": False}, {"checkpointing": False}),
    ],
)
def test_each_knob_moves_memory_the_right_way(less: dict[str, object], more: dict[str, object]) -> None:
    assert predict(job(**less)).device < predict(job(**more)).device


def test_math_attention_grows_with_the_square() -> None:
    short, long = (predict(job(attention="math", seq=seq, batch=1)).parts.activations for seq in (4096, 8192))
    assert long > 3 * short


def test_the_largest_fits_and_one_more_does_not() -> None:
    room = 24 * 10**9
    found = largest(job(), room)
    assert predict(job(batch=found.batch)).device <= room < predict(job(batch=found.batch + 1)).device
    assert predict(job(seq=found.seq)).device <= room < predict(job(seq=found.seq + 64)).device


def test_nothing_fits_a_card_that_does_not_hold_the_weights() -> None:
    assert largest(job(), 4 * 10**9) == msgspec.convert({"batch": 0, "seq": 0}, type(largest(job(), 0)))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_prediction_and_fits_the_card_that_it_is_made_for(name: str) -> None:
    recipe = load_recipe(name)
    found = predict(job_for(recipe, FitOptions()))
    assert found.device > 0
    if recipe.traits.vram_gb:
        assert found.device + constants().reserve <= recipe.traits.vram_gb * 2**30


def test_an_unknown_optimizer_is_reported_with_similar_names() -> None:
    with pytest.raises(BadUsage, match="adamw_bnb_8bit"):
        find_optimizer("adamw_bnb_8bits")


@pytest.mark.parametrize("value", [0, -1, "many", True, 2.5])
def test_a_value_of_no_use_is_refused(value: object) -> None:
    with pytest.raises(BadUsage, match="micro_batch_size"):
        job_from_config({**REFERENCE.config, "micro_batch_size": value}, mistral())
