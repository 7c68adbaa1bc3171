"""When a speed stands: loss band, physics, interval, ceiling; and what belongs beside it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from harness.measure.measurement import single
from harness.measure.metrics import Measurements, measure
from harness.measure.verdict import attention_notes, judge_speed, kernel_words, outside_band, remarks
from harness.process.worker_log import AttentionEvent, BudgetSpentEvent, StartEvent, WorkerLog
from harness.recipe.loader import LossBand
from tests.harness.examples import log, step


def run(spread: float, count: int = 60, device: str = "cpu", **parts: Any) -> WorkerLog:
    """Steps whose times have this spread."""
    chance = random.Random(3)
    steps = [step(number, seconds=chance.gauss(1.0, spread), loss=2.0) for number in range(1, count + 1)]
    return log(*steps, start=StartEvent(device_type=device, attention="sdpa"), **parts)


def judged(recorded: WorkerLog, **facts: Any) -> tuple[str, str]:
    found = judge_speed(measure(recorded, 3), recorded, **facts)
    return found.verdict, " ".join(found.reasons)


def changed(recorded: WorkerLog, **fields: Any) -> Measurements:
    return msgspec.structs.replace(measure(recorded, 3), **fields)


@pytest.mark.parametrize(
    ("device", "spread", "verdict"),
    [("cpu", 0.05, "pass"), ("cpu", 0.5, "inconclusive"), ("gpu", 0.005, "pass"), ("gpu", 0.2, "inconclusive")],
)
def test_the_interval_decides(device: str, spread: float, verdict: str) -> None:
    found, why = judged(run(spread, device=device))
    assert found == verdict
    needed = "± 1%" if device == "gpu" else "± 5%"
    assert verdict == "pass" or needed in why


def test_an_interval_just_too_wide_is_not_shown_as_the_limit() -> None:
    recorded = run(0.05)
    found = measure(recorded, 3)
    speed = msgspec.structs.replace(found.tokens_per_second.processed, median=167.388, ci95=(154.086, 170.847), n=28)
    wide = msgspec.structs.replace(
        found, tokens_per_second=msgspec.structs.replace(found.tokens_per_second, processed=speed)
    )
    assert judge_speed(wide, recorded).reasons[0].startswith("The speed is known only to ± 5.1%; ± 5% is needed")


def test_too_few_steps() -> None:
    assert judged(run(0.0, count=5)) == (
        "inconclusive",
        "Only 2 steps after the warm-up: at least 5 are needed for a speed.",
    )
    found, why = judged(run(0.0, count=8))
    assert found == "inconclusive" and "6 are needed" in why


def test_a_loss_outside_the_recipes_band_is_no_result() -> None:
    band = LossBand(1.4, 1.8, 10)
    found, why = judged(run(0.0), band=band)
    assert found == "fail" and "outside the recipe's band of 1.4 to 1.8" in why
    assert judged(run(0.0), band=LossBand(1.9, 2.1, 10))[0] == "pass"
    # one that was ended early has not come to where the band holds
    assert outside_band(run(0.0, budget_spent=BudgetSpentEvent(60)), band) == []
    assert outside_band(run(0.0, end=None), band) == []


def test_more_than_physics_allows_is_no_result() -> None:
    found, why = judged(run(0.0), computed=170.0, possible=88.0)
    assert found == "fail" and "170.0 TFLOP/s is more than the 88.0" in why
    assert judged(run(0.0), computed=60.0, possible=88.0)[0] == judged(run(0.0), computed=60.0)[0] == "pass"


def test_more_than_the_ceiling_is_inconclusive() -> None:
    recorded = run(0.0)
    above = judge_speed(changed(recorded, roof_share=single(1.2, "share")), recorded)
    assert above.verdict == "inconclusive" and "120% of the matmul ceiling" in above.reasons[0]
    assert judge_speed(changed(recorded, roof_share=single(0.7, "share")), recorded).verdict == "pass"


def test_other_load_explains_a_wide_interval() -> None:
    recorded = run(0.5)
    found = judge_speed(changed(recorded, other_load=single(0.4, "share")), recorded)
    assert "other programs used 40% of the CPU" in found.reasons[0]
    assert any("Other programs used 40%" in note for note in found.notes)


@pytest.mark.parametrize(
    ("kernels", "words", "finding"),
    [
        (("aten::_scaled_dot_product_flash_attention_for_cpu",), "flash (PyTorch)", False),
        (("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_attention_math"), "math", True),
        (("aten::_scaled_dot_product_efficient_attention",), "memory-efficient", False),
        (("flash_attn::_flash_attn_varlen_forward",), "flash-attn", False),
        ((), "none seen", False),
    ],
)
def test_the_back_end_that_ran(kernels: tuple[str, ...], words: str, finding: bool) -> None:
    recorded = run(0.0, attention=AttentionEvent(kernels))
    assert kernel_words(kernels) == words
    notes = attention_notes(recorded)
    assert bool(notes) is finding
    if finding:
        assert "asks for sdpa" in notes[0]


def test_a_run_that_gets_slower_gives_a_note() -> None:
    steps = [step(number, seconds=1.0 + 0.01 * number) for number in range(1, 61)]
    notes = remarks(measure(log(*steps), 3), log(*steps))
    assert any("slower than the first" in note for note in notes)


def test_recording_that_takes_more_than_1_percent_gives_a_note() -> None:
    slow = log(*(step(number, own_seconds=0.02) for number in range(1, 20)))
    assert any("more than 1 %" in note for note in remarks(measure(slow, 3), slow))
