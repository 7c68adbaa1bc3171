"""Published speeds: what each implies, which no card can do, and what a report is set beside."""

from __future__ import annotations

import re

import msgspec
import pytest

from checks.catalogue import catalogue
from gpu_setup.render.compare import records_text
from harness.recipe.shapes import shapes_of
from harness.report.comparison_key import ModelUsed
from harness.report.published_speeds import (
    PublishedMatch,
    PublishedSpeed,
    RatedSpeed,
    match_published,
    parse_speeds,
    peak_tflops,
    published_speeds,
    rate_speed,
    rate_speeds,
)
from harness.report.run_report import Report
from tests.harness.report.examples import card, small

KNOWN = {each.record.id: each for each in rate_speeds(catalogue())}


def record(**facts: object) -> PublishedSpeed:
    """A record that gives everything. Synthetic: nobody published it."""
    whole = {
        "id": "made-up",
        "card": "RTX 3090",
        "model": "mistralai/Mistral-7B-v0.1",
        "method": "qlora",
        "quantisation": "nf4",
        "blocksize": 64,
        "double": True,
        "lora_r": 32,
        "lora_targets": ["all-linear"],
        "lora_dropout": 0.0,
        "precision": "bf16",
        "sequence": 2048,
        "documents": "filled",
        "trained_on": "everything",
        "tokens_per_step": 16384,
        "tokens_per_second": 1000.0,
        "counts": "processed",
        "basis": "made up",
        "stack": "made up",
        "source": "https://example.invalid/",
        "published": "2026-11-24",
        "read": "2026-11-24",
        "checked": False,
        **facts,
    }
    (found,) = parse_speeds({"records": [whole]})
    return found


def mistral(**parts: object) -> Report:
    """The synthetic 3090 with the shapes that its weights would have been drawn for."""
    report = card(**parts)  # type: ignore[arg-type]
    shapes = shapes_of("mistralai/Mistral-7B-v0.1")
    assert report.work and shapes
    model = ModelUsed(
        shapes.name, None, shapes.layers, shapes.hidden, shapes.intermediate, shapes.heads, shapes.kv_heads,
        shapes.head_dim, shapes.vocab, None,
    )  # fmt: skip
    return msgspec.structs.replace(report, work=msgspec.structs.replace(report.work, model=model))


def set_beside(report: Report, *known: PublishedSpeed) -> PublishedMatch:
    assert report.work and report.conditions
    rate = report.measurements.tokens_per_second.non_padding.median
    return match_published(report.work, report.conditions, rate, tuple(rate_speed(each, catalogue()) for each in known))


def test_every_record_says_where_it_is_from() -> None:
    assert len(published_speeds()) >= 25
    assert len({each.id for each in published_speeds()}) == len(published_speeds())
    for each in published_speeds():
        assert each.source.startswith("https://") and each.basis and each.read >= "2026-11-24"
        assert each.published == "undated" or each.published[:4].isdigit()


@pytest.mark.parametrize(
    ("name", "mfu"),
    [
        ("answer-ai-3090-qlora-2048", 0.488),
        ("answer-ai-4090-qlora-2048", 0.408),
        ("torchtune-4090-qlora-8b", 0.440),
        ("llama-factory-a100-fa2-2048", 0.233),
    ],
)
def test_the_implied_share_of_the_peak(name: str, mfu: float) -> None:
    assert KNOWN[name].mfu == pytest.approx(mfu, abs=0.002)
    assert KNOWN[name].mark == "plausible"


@pytest.mark.parametrize(
    "name",
    ["gigagpu-5060ti-qlora-8b", "gigagpu-5060ti-qlora-mistral", "gigagpu-3090-lora-8b", "torchtune-a6000-lora-8b"],
)
def test_published_figures_that_no_card_can_do(name: str) -> None:
    found = KNOWN[name]
    assert found.mark == "impossible", found.why
    assert "of the GPU's peak" in found.why


def test_what_does_not_say_how_many_tokens_is_unknown() -> None:
    assert {each.record.id for each in KNOWN.values() if each.mark == "unknown"} == {
        *("hf-blog-a100-mistral", "ms-swift-a100-qwen", "arxiv-2509.12229-4060"),
    }


def test_a_formula_by_hand() -> None:
    """Llama-2 7B at 2048 with r 64 on six matrices: (4 N + 6 N_lora + 6 L h l) a token."""
    shapes = shapes_of("meta-llama/Llama-2-7b-hf")
    assert shapes
    lora = 32 * 64 * (3 * (4096 + 4096) + 3 * (4096 + 11008))
    expected = 4 * (shapes.block_parameters + 4096 * 32000) + 6 * lora + 6 * 32 * 4096 * 2048
    assert KNOWN["answer-ai-3090-qlora-2048"].flops_per_token == expected


@pytest.mark.parametrize(
    ("tokens_per_second", "facts", "mark"),
    [
        (1000.0, {}, "plausible"),
        (50.0, {}, "plausible"),
        (2100.0, {}, "implausible"),
        (2800.0, {}, "impossible"),
        (1500.0, {"checkpointing": False}, "plausible"),
        (1500.0, {"checkpointing": True}, "implausible"),
        (2000.0, {"checkpointing": True}, "impossible"),
        (2800.0, {"bound": "at-most"}, "unknown"),
        (2800.0, {"documents": "packed"}, "implausible"),
        (3000.0, {"documents": "packed"}, "impossible"),
        (None, {}, "unknown"),
        (1000.0, {"card": "RTX 9999"}, "unknown"),
        (1000.0, {"model": "somebody/unknown"}, "unknown"),
    ],
)
def test_marks(tokens_per_second: float | None, facts: dict[str, object], mark: str) -> None:
    assert rate_speed(record(tokens_per_second=tokens_per_second, **facts), catalogue()).mark == mark


def test_a_familys_peak_is_known_where_its_cards_agree() -> None:
    assert peak_tflops("A100", catalogue()) == 312
    assert peak_tflops("RTX 3090", catalogue()) == 71
    assert peak_tflops("H100", catalogue()) is None, "its boards differ"
    assert peak_tflops("RTX", catalogue()) is None
    assert peak_tflops("RTX 4060", catalogue()) is None, "a Ti is another card"


def test_your_3090_reaches_94_percent_of_the_best_published() -> None:
    found = set_beside(mistral(tokens_per_second=940.0), record(), record(id="slower", tokens_per_second=800.0))
    assert found.share == pytest.approx(0.94, abs=0.005)
    assert found.best and found.best.record.id == "made-up"
    assert found.sentence == "Your RTX 3090: 94% of the best published."


@pytest.mark.parametrize(
    ("facts", "differs"),
    [
        ({"model": "mistralai/Mistral-7B-v0.3"}, "model Mistral-7B-v0.3"),
        ({"model": "meta-llama/Llama-2-7b-hf"}, "model Llama-2-7b-hf"),
        ({"method": "lora"}, "method lora"),
        ({"lora_r": 64}, "LoRA r 64"),
        ({"lora_targets": ["q_proj", "v_proj"]}, "LoRA targets q+v"),
        ({"sequence": 4096}, "sequence 4,096"),
        ({"documents": "packed"}, "packed documents"),
        ({"tokens_per_step": 4096}, "4,096 tokens a step"),
        ({"trained_on": "answers"}, "mask answers"),
        ({"counts": "trainable"}, "trainable tokens counted"),
        ({"precision": "fp16"}, "precision fp16"),
        ({"quantisation": "gptq-int4"}, "quantisation gptq-int4"),
        ({"double": False}, "double quantisation False"),
    ],
)
def test_other_work_is_not_comparable(facts: dict[str, object], differs: str) -> None:
    found = set_beside(mistral(), record(**facts))
    assert (found.best, found.share) == (None, None)
    (other,) = found.others
    assert differs in other.differs and other.not_given == ()
    assert "%" not in found.sentence


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({"lora_dropout": None}, "LoRA dropout"),
        ({"lora_targets": []}, "LoRA targets"),
        ({"trained_on": None}, "mask"),
        ({"double": None}, "double quantisation"),
        ({"documents": "unknown"}, "document lengths"),
        ({"counts": "unknown"}, "which tokens count"),
        ({"tokens_per_step": None}, "tokens a step"),
    ],
)
def test_what_is_not_given_cannot_be_shown_to_be_the_same(facts: dict[str, object], missing: str) -> None:
    found = set_beside(mistral(), record(**facts))
    (other,) = found.others
    assert found.best is None and (other.differs, other.not_given) == ((), (missing,))


def test_speeds_of_another_card_are_not_shown() -> None:
    assert set_beside(mistral(), record(card="RTX 3090 Ti")).sentence == "Nothing is published for the RTX 3090."


def test_an_impossible_figure_is_not_the_best() -> None:
    found = set_beside(mistral(), record(tokens_per_second=5000.0))
    assert found.best is None and "implausible" in found.sentence


def test_seven_named_matrices_are_all_linear() -> None:
    seven = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert set_beside(mistral(), record(lora_targets=seven)).share is not None


def test_a_cpu_is_not_compared_with_published_speeds() -> None:
    assert set_beside(small()).sentence == "Trained on a CPU: there are no published speeds to compare with."


def test_the_real_records_are_comparable_with_nothing_we_can_say_yet() -> None:
    report = mistral()
    assert report.work and report.conditions
    found = match_published(report.work, report.conditions, 1000.0, rate_speeds(catalogue()))
    assert found.best is None
    assert {each.judged.record.card for each in found.others} == {"RTX 3090"}


def test_an_unknown_field_is_no_record() -> None:
    with pytest.raises(msgspec.ValidationError):
        parse_speeds({"records": [{"id": "x", "speed": 3}]})


def test_the_list_fits_80_columns_but_for_addresses() -> None:
    found: tuple[RatedSpeed, ...] = tuple(KNOWN.values())
    for line in re.sub(r"\x1b\[[0-9;]*m", "", records_text(found)).splitlines():
        assert len(line) <= 80 or "https://" in line, line
