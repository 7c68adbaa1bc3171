"""From steps to figures: which steps count, what the interval is, and three counts of tokens."""

from __future__ import annotations

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.intervals import median_interval
from harness.measure.measurement import series
from harness.measure.metrics import measure, steady_steps
from tests.harness.examples import log, step


def test_steady_steps_are_after_the_warm_up_without_evaluation() -> None:
    steps = [step(1), step(2), step(3), step(4, interrupted=True), step(5, seconds=0.0), step(6)]
    assert [kept.step for kept in steady_steps(steps, 2)] == [3, 6]
    assert [kept.step for kept in steady_steps(steps, 0)] == [1, 2, 3, 6]


@pytest.mark.parametrize(
    ("n", "ranks"),
    # the table of order statistics for the median at 95 %, as in Conover, Practical Nonparametric Statistics
    [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (15, (4, 12)), (20, (6, 15)), (25, (8, 18))],
)
def test_the_interval_by_known_ranks(n: int, ranks: tuple[int, int] | None) -> None:
    values = [float(value) for value in range(n, 0, -1)]
    assert median_interval(values) == (None if ranks is None else (float(ranks[0]), float(ranks[1])))


@given(st.lists(st.floats(0.001, 1e6), min_size=6, max_size=200))
def test_the_interval_holds_the_median(values: list[float]) -> None:
    interval = median_interval(values)
    assert interval is not None
    assert min(values) <= interval[0] <= median(values) <= interval[1] <= max(values)


def test_the_interval_covers_what_it_says() -> None:
    import random

    chance = random.Random(0)
    hits = 0
    for _ in range(2000):
        interval = median_interval([chance.gauss(0, 1) for _ in range(15)])
        assert interval is not None
        hits += interval[0] <= 0 <= interval[1]
    assert 0.95 <= hits / 2000 <= 0.98


def test_nothing_measured_is_not_known_and_says_why() -> None:
    empty = series([], "tokens/s")
    assert (empty.median, empty.ci95, empty.n) == (None, None, 0)
    assert empty.note


def test_three_counts_of_tokens_and_the_time() -> None:
    steps = [step(number, seconds=2.0, processed=400, non_padding=300, trainable=100) for number in range(1, 10)]
    found = measure(log(*steps), warmup=3)
    speed = found.tokens_per_second
    assert (speed.processed.median, speed.non_padding.median, speed.trainable.median) == (200.0, 150.0, 50.0)
    assert (speed.processed.n, speed.processed.unit) == (6, "tokens/s")
    assert found.step_seconds.median == 2.0
    assert found.tokens_per_step.trainable.raw == (100.0,) * 6
    assert found.own_share.median == pytest.approx(0.0005)


def test_the_warm_up_is_in_the_loss_and_not_in_the_speed() -> None:
    found = measure(log(step(1, loss=5.0, seconds=60.0), step(2, loss=4.0), step(3, loss=3.0)), warmup=1)
    assert found.step_seconds.raw == (1.0, 1.0)
    assert (found.loss.first.median, found.loss.last.median) == (5.0, 3.0)


def test_memory_is_the_workers_last_value_and_null_without_a_gpu() -> None:
    memory = measure(log(), 0).peak_memory
    assert memory.worker_rss.median == 2 << 30
    assert memory.device_allocated.median is None
    assert memory.device_allocated.note == "trained on the CPU"


def test_a_log_without_a_single_step() -> None:
    found = measure(log(steps=(), end=None), 3)
    every = (found.step_seconds, found.own_share, found.loss.first, found.peak_memory.worker_rss, found.mfu)
    assert all(value.median is None and value.note for value in every)


def test_what_was_not_measured_is_null_and_says_why() -> None:
    found = measure(log(), 0)
    for value in (found.mfu, found.matmul_ceiling_tflops, found.joules_per_token, found.other_load):
        assert (value.median, value.n) == (None, 0)
        assert value.note


def test_losses_that_are_not_finite_are_no_figures() -> None:
    found = measure(log(step(1, loss=4.0), step(2, loss="nan")), 0)
    assert found.loss.last.median == 4.0
