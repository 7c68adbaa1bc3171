"""The guard by the highest clock seen: published records pass, impossible ones do not."""

from __future__ import annotations

import pytest

from harness.measure.plausibility import possible_tflops, tensor_rates
from harness.recipe.flops import sizes_of, sum_documents, training_flops
from harness.recipe.shapes import LINEARS, shapes_of


@pytest.mark.parametrize(
    ("target", "name", "multiprocessors", "clock", "published"),
    # peaks as cards.toml has them, at the data sheet's boost clock
    [
        ("8.6", "NVIDIA GeForce RTX 3090", 82, 1695, 71.0),
        ("8.9", "NVIDIA GeForce RTX 4090", 128, 2520, 165.2),
        ("12.0", "NVIDIA GeForce RTX 5090", 170, 2407, 209.5),
        ("8.0", "NVIDIA A100-SXM4-80GB", 108, 1410, 312.0),
        ("9.0", "NVIDIA H100 80GB HBM3", 132, 1830, 989.4),
        ("8.6", "NVIDIA RTX A6000", 84, 1800, 154.8),
        ("gfx942", "AMD Instinct MI300X", 304, 2100, 1307.4),
    ],
)
def test_the_data_sheets_peak_is_possible_and_little_more(
    target: str, name: str, multiprocessors: int, clock: float, published: float
) -> None:
    limit = possible_tflops(target, name, multiprocessors, clock)
    assert limit is not None
    assert published <= limit <= 1.03 * published


def test_an_overclocked_card_may_do_more() -> None:
    stock = possible_tflops("8.6", "NVIDIA GeForce RTX 3090", 82, 1695)
    fast = possible_tflops("8.6", "NVIDIA GeForce RTX 3090", 82, 2100)
    assert stock and fast and fast > 1.2 * stock


@pytest.mark.parametrize(
    ("target", "multiprocessors", "clock"),
    [(None, 82, 1695), ("8.6", None, 1695), ("8.6", 82, None), ("gfx1100", 48, 2500)],
)
def test_without_the_cards_data_there_is_no_limit(
    target: str | None, multiprocessors: int | None, clock: float | None
) -> None:
    assert possible_tflops(target, "x", multiprocessors, clock) is None


def test_a_published_3090_figure_of_155_percent_is_impossible() -> None:
    """33.3 samples a second of 512 tokens, a LoRA on an 8 B model: about 155 % of the card's peak."""
    llama = shapes_of("meta-llama/Llama-3.1-8B")
    assert llama is not None
    seen = sum_documents([512])
    tflops = training_flops(sizes_of(llama, 16, LINEARS), seen) / 512 * 33.3 * 512 / 1e12
    limit = possible_tflops("8.6", "NVIDIA GeForce RTX 3090", 82, 2100)
    assert limit is not None and tflops > limit


def test_each_rate_says_where_it_is_from() -> None:
    assert all(rate.because and rate.flops > 0 for rate in tensor_rates().values())
