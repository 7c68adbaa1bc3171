"""What the worker writes about measuring, decoded: one line of each kind as it stood in a real log."""

from __future__ import annotations

from harness.measure.metrics import documents_of, has_micro_times
from harness.process.worker_log import parse_worker_log
from harness.recipe.flops import Sizes

# a run of `tiny` on documents of 256 tokens, 2026-11-24, some fields left out
REAL = b"""
{"event": "start", "schema": 1, "device": "x86_64", "device_type": "cpu", "multiprocessors": null, "threads": 2, "attention": "sdpa", "precision": "fp32", "checkpointing": false, "trainable_parameters": 1347584, "rows": 56, "sizes": {"frozen": 2949120, "frozen_head": 0, "trained": 299008, "trained_head": 524288, "layers": 4, "width": 256, "windowed": 0, "window": null}, "matrices": [[256, 128, 8], [256, 256, 8], [256, 704, 8], [256, 2048, 1], [704, 256, 4]]}
{"event": "train-begin", "planned_steps": 14, "done_steps": 0}
{"event": "attention", "kernels": ["aten::_scaled_dot_product_flash_attention_for_cpu", "aten::scaled_dot_product_attention"]}
{"event": "step", "step": 1, "seconds": 2.29, "micro_batches": 1, "micro_seconds": [1.87], "wait_seconds": 0.048, "processed": 1024, "non_padding": 1024, "trainable": 1024, "micro_processed": [1024], "micro_non_padding": [1024], "micro_trainable": [1024], "documents": 4, "squares": 262144, "window_squares": 262144, "loss": 7.68, "interrupted": false, "own_seconds": 0.0297, "cpu_seconds": 1.73, "ended_at": 1795563816.39, "rss_bytes": 1047449600}
{"event": "budget-spent", "step": 1}
{"event": "train-end", "steps": 1, "rss_bytes": 1047449600}
"""  # noqa: E501 - lines of a log


def test_a_real_log() -> None:
    log = parse_worker_log(REAL)
    assert log.start and log.start.sizes == Sizes(2949120, 0, 299008, 4, 256, trained_head=524288)
    assert log.start.matrices[0] == (256, 128, 8)
    assert log.attention and len(log.attention.kernels) == 2
    (step,) = log.steps
    assert has_micro_times(step) and step.ended_at == 1795563816.39
    seen = documents_of(step)
    assert seen and (seen.tokens, seen.squares, seen.mean_length) == (1024, 4 * 256**2, 256.0)
    assert log.budget_spent and log.budget_spent.step == 1


def test_a_log_of_an_older_version_has_none_of_it() -> None:
    log = parse_worker_log(b'{"event": "step", "step": 1, "seconds": 1.0, "micro_batches": 1, "processed": 9, '
                           b'"non_padding": 8, "trainable": 7, "loss": 1.0, "own_seconds": 0.0}')  # fmt: skip
    (step,) = log.steps
    assert not has_micro_times(step) and documents_of(step) is None
    assert (log.attention, log.budget_spent) == (None, None)
