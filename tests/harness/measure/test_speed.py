"""MFU, ceiling and memory from a run and what was measured around it; several launches in one."""

from __future__ import annotations

from typing import Any

import pytest

from harness.measure.gpu_processes import CardUse
from harness.measure.matmul_ceiling import Ceiling
from harness.measure.metrics import (
    Measurements,
    computed_tflops,
    last_warm_up_step,
    measure,
    merge_launches,
    repetitions,
)
from harness.measure.run_context import RunContext
from harness.measure.telemetry import CardSample, Telemetry
from harness.process.worker_log import StartEvent, WorkerLog
from harness.recipe.flops import hardware_flops, sizes_of, sum_documents, training_flops
from harness.recipe.shapes import LINEARS, shapes_of
from tests.harness.examples import log, step

MISTRAL = shapes_of("mistralai/Mistral-7B-v0.1")
assert MISTRAL is not None
SIZES = sizes_of(MISTRAL, 32, LINEARS)
# a 3090 at 1,000 tokens a second: 8 documents of 2048 in 16.384 s
SEEN = sum_documents([2048] * 8, 4096)
MICRO = 4


def training(seconds: float = 16.384, count: int = 20, device: str = "gpu", **facts: Any) -> WorkerLog:
    usual: dict[str, Any] = {
        "seconds": seconds,
        "processed": SEEN.tokens,
        "non_padding": SEEN.tokens,
        "trainable": SEEN.tokens,
        "documents": 8,
        "squares": SEEN.squares,
        "window_squares": SEEN.window_squares,
        "micro_batches": MICRO,
        "micro_seconds": (seconds / MICRO * 0.99,) * MICRO,
        "micro_processed": (SEEN.tokens // MICRO,) * MICRO,
        "micro_non_padding": (SEEN.tokens // MICRO,) * MICRO,
        "micro_trainable": (SEEN.tokens // MICRO,) * MICRO,
        "wait_seconds": 0.016384,
    }
    start = StartEvent(
        device="NVIDIA GeForce RTX 3090",
        device_type=device,
        precision="bf16",
        checkpointing=True,
        sizes=SIZES,
        multiprocessors=82,
    )
    steps = (step(number, **{**usual, **facts}) for number in range(1, count + 1))
    return log(*steps, start=start)


def ceiling(*rounds: float) -> Ceiling:
    return Ceiling("NVIDIA GeForce RTX 3090", "bf16", 4096, 30.0, rounds)


def measured(recorded: WorkerLog, **context: Any) -> Measurements:
    usual: dict[str, Any] = {
        "before": ceiling(62.0, 63.0, 62.5),
        "after": ceiling(61.5, 62.0, 62.0),
        "peak_tflops": 71.0,
    }
    return measure(recorded, 3, RunContext(**{**usual, **context}))


def test_a_3090_at_a_thousand_tokens_a_second() -> None:
    found = measured(training())
    assert found.tokens_per_second.non_padding.median == pytest.approx(1000)
    assert found.flops_per_token.median == pytest.approx(30.56e9, rel=2e-4)
    assert found.model_tflops.median == pytest.approx(30.56, rel=2e-4)
    assert found.mfu.median == pytest.approx(30.56 / 71, rel=2e-4)
    assert found.matmul_ceiling_tflops.median == pytest.approx(62.0)
    assert found.ceiling_share.median == pytest.approx(30.56 / 62.0, rel=2e-4)
    assert found.roof_share.median == pytest.approx(45.22 / 62.0, rel=1e-3)
    assert computed_tflops(training(), found) == pytest.approx(45.22, rel=1e-3)
    assert found.data_wait.median == pytest.approx(0.001)


def test_the_ceiling_says_when_and_how_long() -> None:
    assert (
        measured(training()).matmul_ceiling_tflops.note
        == "62.5 and 62 TFLOP/s in bf16 before and after the run, 60 s in all"
    )
    assert "after the run, 30 s" in str(measured(training(), before=None).matmul_ceiling_tflops.note)
    without = measured(training(), before=None, after=None)
    assert without.matmul_ceiling_tflops.median is without.ceiling_share.median is None
    assert without.mfu.median is not None


def test_a_cpu_has_a_ceiling_and_no_peak() -> None:
    found = measured(training(device="cpu"))
    assert found.mfu.median is None and "CPU" in str(found.mfu.note)
    assert found.ceiling_share.median == pytest.approx(30.56 / 62.0, rel=2e-4)


def test_the_peak_of_16_bit_products_is_none_for_32_bit() -> None:
    import msgspec

    recorded = training()
    assert recorded.start is not None
    wide = msgspec.structs.replace(recorded, start=msgspec.structs.replace(recorded.start, precision="fp32"))
    assert "16-bit" in str(measured(wide).mfu.note)


def test_few_long_steps_are_measured_by_their_micro_batches() -> None:
    """Two steps of a minute say little; their 8 micro batches say more, the optimizer's time shared out."""
    recorded = training(count=5)
    found = measured(recorded)
    assert found.step_seconds.n == 2
    assert found.tokens_per_second.processed.n == 2 * MICRO
    assert found.tokens_per_second.non_padding.median == pytest.approx(1000)
    assert found.model_tflops.median == pytest.approx(30.56, rel=2e-4)
    assert sum(unit.seconds for unit in repetitions(recorded.steps)) == pytest.approx(5 * 16.384)


def test_many_steps_are_their_own_unit() -> None:
    assert measured(training(count=40)).tokens_per_second.processed.n == 37


def test_a_broken_log_falls_back_to_steps() -> None:
    recorded = training(count=5, micro_processed=(1,))
    assert measured(recorded).tokens_per_second.processed.n == 2


def test_evaluations_between_long_steps_do_not_hide_the_speed() -> None:
    """Five steps of the reference with an evaluation around each: their micro batches still have times of their own."""
    import msgspec

    recorded = training(count=5, optimizer_seconds=0.147456)
    paused = tuple(
        msgspec.structs.replace(each, interrupted=True, seconds=each.seconds + 100.0) for each in recorded.steps
    )
    found = measured(msgspec.structs.replace(recorded, steps=paused))
    assert found.step_seconds.n == 0
    assert found.tokens_per_second.non_padding.n == 2 * MICRO
    assert found.tokens_per_second.non_padding.median == pytest.approx(1000)


def test_warm_up_is_found_within_steps() -> None:
    slow = training().steps
    import msgspec

    first = [msgspec.structs.replace(each, micro_seconds=(9.0, 9.0, 9.0, 9.0)) for each in slow[:6]]
    assert last_warm_up_step((*first, *slow[6:]), 3) == 6
    assert last_warm_up_step(slow, 3) == 3
    assert measured(training()).warmup_steps == 3


def test_memory_of_the_card_without_what_was_in_use_before() -> None:
    held = Telemetry(card=(CardSample(1.0, memory_used=1 << 30), CardSample(2.0, memory_used=20 << 30)))
    memory = measured(training(), telemetry=held, use=CardUse(memory_used=600 << 20)).peak_memory
    assert (memory.device_peak.median, memory.device_baseline.median) == (20 << 30, 600 << 20)
    assert memory.device_run.median == (20 << 30) - (600 << 20)
    alone = measured(training(), telemetry=held).peak_memory
    assert alone.device_baseline.median == 1 << 30, "else the first sample stands for before"
    assert measured(training()).peak_memory.device_run.median is None


def test_packing_costs_less_attention_than_its_sequence() -> None:
    packed = sum_documents([170] * 96, 4096)
    found = measured(
        training(non_padding=packed.tokens, squares=packed.squares, window_squares=packed.window_squares)
    ).flops_per_token.median
    assert found == pytest.approx(training_flops(SIZES, packed) / packed.tokens)
    assert found < 0.96 * 30.56e9


def test_a_log_without_documents_says_so() -> None:
    found = measured(training(squares=None, window_squares=None))
    assert found.mfu.median is None and found.mfu.note == "the documents' lengths were not recorded"
    bare = measure(log(), 0)
    assert bare.model_tflops.median is None and "sizes were not recorded" in str(bare.model_tflops.note)


def test_three_launches_in_one() -> None:
    runs = [measured(training(seconds)) for seconds in (16.384, 16.0, 17.0)]
    found = merge_launches(runs)
    speed = found.tokens_per_second.non_padding
    assert speed.median == pytest.approx(1000)
    assert speed.n == 3 and speed.raw == tuple(run.tokens_per_second.non_padding.median for run in runs)
    assert speed.ci95 == (pytest.approx(SEEN.tokens / 17), pytest.approx(SEEN.tokens / 16))
    assert (found.warmup_steps, merge_launches(runs[:1])) == (3, runs[0])
    assert found.mfu.ci95 is not None and found.joules_per_token.median is None


def test_hardware_and_model_flops_agree_without_checkpointing() -> None:
    assert hardware_flops(SIZES, SEEN, False) == training_flops(SIZES, SEEN)
