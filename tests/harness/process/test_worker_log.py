"""The worker's JSON lines: whatever the bytes, what stands whole in them is read."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from harness.process.worker_log import WorkerLog, parse_worker_log, read_worker_log

STEP = (
    b'{"event": "step", "step": 1, "seconds": 1.5, "micro_batches": 2, "processed": 512, "non_padding": 400, '
    b'"trainable": 180, "loss": 4.5, "interrupted": false, "own_seconds": 0.002, "rss_bytes": 1024, '
    b'"device_allocated_bytes": null, "device_reserved_bytes": null}\n'
)


def test_a_whole_log() -> None:
    log = parse_worker_log(
        b'{"event": "start", "schema": 1, "device": "x86_64", "device_type": "cpu", "torch": "2.13.0+cpu"}\n'
        b'{"event": "train-begin", "planned_steps": 1}\n' + STEP + b'{"event": "train-end", "steps": 1}\n'
    )
    assert log.start and log.start.torch == "2.13.0+cpu"
    assert log.begin and log.begin.planned_steps == 1
    assert [(step.processed, step.non_padding, step.trainable, step.loss) for step in log.steps] == [
        (512, 400, 180, 4.5)
    ]
    assert log.end and log.end.steps == 1
    assert log.stopped is None


def test_a_line_cut_by_a_kill_is_left_out() -> None:
    second = STEP.replace(b'"step": 1,', b'"step": 2,')
    for cut in range(1, len(second) - 2):
        assert [step.step for step in parse_worker_log(STEP + second[:cut]).steps] == [1]
    assert [step.step for step in parse_worker_log(STEP + second).steps] == [1, 2]


def test_losses_that_are_not_finite_come_as_words() -> None:
    log = parse_worker_log(
        STEP.replace(b"4.5", b'"nan"') + b'{"event": "stopped", "reason": "the loss is nan at step 1"}\n'
    )
    assert log.steps[0].loss == "nan"
    assert log.stopped and log.stopped.reason == "the loss is nan at step 1"


def test_what_a_newer_worker_adds_is_passed_over() -> None:
    newer = STEP.replace(b"}", b', "joules": 3}')
    assert len(parse_worker_log(b'{"event": "energy", "joules": 3}\n' + newer).steps) == 1


def test_a_resumed_run_counts_each_step_once() -> None:
    """Cut after step 3, gone on with from the checkpoint of step 2."""
    numbered = [STEP.replace(b'"step": 1,', b'"step": %d,' % number) for number in range(6)]
    again = [line.replace(b"4.5", b"4.25") for line in numbered]
    begin = b'{"event": "train-begin", "planned_steps": 5, "done_steps": %d}\n'
    log = parse_worker_log(
        begin % 0 + numbered[1] + b'{"event": "evaluated", "step": 1, "loss": 3.5}\n' + numbered[2]
        + b'{"event": "saved", "step": 2, "bytes": 10}\n' + numbered[3]
        + b'{"event": "evaluated", "step": 3, "loss": 3.0}\n'
        + b'{"event": "stop-asked", "step": 3}\n' + b'{"event": "st\n'
        + begin % 2 + again[3] + again[4] + again[5] + b'{"event": "train-end", "steps": 5}\n'
    )  # fmt: skip
    assert [(step.step, step.loss) for step in log.steps] == [(1, 4.5), (2, 4.5), (3, 4.25), (4, 4.25), (5, 4.25)]
    assert (log.sessions, log.stop_request, [each.step for each in log.evaluations]) == (2, None, [1])
    assert [each.step for each in log.saved] == [2]
    assert log.end is not None


@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    assert isinstance(parse_worker_log(raw), WorkerLog)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_around_a_step(before: bytes, after: bytes) -> None:
    log = parse_worker_log(before + b"\n" + STEP + after)
    assert log.steps[-1].step == 1


def test_deep_nesting_does_not_end_the_reader() -> None:
    assert parse_worker_log(b'{"event": "step", "x": ' + b"[" * 100_000 + b"\n" + STEP).steps


def test_no_log_means_no_plugin(tmp_path: Path) -> None:
    assert read_worker_log(tmp_path / "worker.jsonl") is None
