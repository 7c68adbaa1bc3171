"""From a dead training process to a cause: the real words of Axolotl 0.19.0, and texts that only look like one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.process.diagnosis import known_cause, last_error, process_failure, training_failure
from harness.process.worker_log import StoppedEvent
from machine.errors import BAD_ANSWER, OUTSIDE_FAILED, USAGE
from tests.harness.examples import log, step

# the last 40 lines of real runs (Axolotl 0.19.0, torch 2.13.0+cpu), each made to fail on purpose
HOST_MEMORY = "out-of-memory-host"
LOGS = Path(__file__).with_name("logs")


def real(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "code", "exit_code", "words"),
    [
        ("recipe-invalid", "recipe-invalid", USAGE, "Adapter 'nonsense' is not built in"),
        ("model-missing-offline", "model-missing", OUTSIDE_FAILED, "couldn't connect to 'https://huggingface.co'"),
        ("model-missing", "model-missing", OUTSIDE_FAILED, "Can't load the configuration"),
        ("data-missing", "data-missing", OUTSIDE_FAILED, "tatsu-lab/alpaca"),
        ("memory-at-import", "out-of-memory-host", OUTSIDE_FAILED, "failed to map segment"),
        ("memory-at-import-2", "out-of-memory-host", OUTSIDE_FAILED, "MemoryError"),
        ("memory-at-preparing", "helper-killed", OUTSIDE_FAILED, "abruptly died"),
        ("memory-at-loading", "out-of-memory-host", OUTSIDE_FAILED, "os error 12"),
        ("memory-at-loading-2", "out-of-memory-host", OUTSIDE_FAILED, "Cannot allocate memory"),
    ],
)
def test_real_failures(name: str, code: str, exit_code: int, words: str) -> None:
    problem = training_failure(1, real(name), None)
    assert problem is not None
    assert (problem.code, problem.exit_code) == (f"train.{code}", exit_code)
    assert words in problem.why
    assert problem.what.startswith("Training failed: ")
    assert problem.next


@pytest.mark.parametrize(
    ("text", "code"),
    [
        # from the sources of PyTorch and huggingface_hub: unverified here, where there is no GPU and no gated model
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out-of-memory-device"),
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB.", "out-of-memory-device"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "no-kernel-image"),
        ("RuntimeError: HIP error: invalid device function", "no-kernel-image"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo", "model-gated"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", HOST_MEMORY),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc", HOST_MEMORY),
        ("OSError: [Errno 28] No space left on device: '/home/ada/run/adapter'", "disk-full"),
        ("ModuleNotFoundError: No module named 'bitsandbytes'", "library-missing"),
        ("ImportError: libgomp.so.1: cannot open shared object file: No such file or directory", "library-missing"),
    ],
)  # fmt: skip
def test_other_causes(text: str, code: str) -> None:
    problem = training_failure(1, f"Traceback (most recent call last):\n  File x\n{text}\n", None)
    assert problem is not None and problem.code == f"train.{code}"


def test_a_warning_of_before_is_not_the_cause() -> None:
    chatter = (
        "[2026-11-24 20:30:01,001] [WARNING] [axolotl] libcuda.so.1: cannot open shared object file\n"
        "/env/x.py:3: UserWarning: CUDA initialization: No space left on device\n"
        " 33%|███▎      | 1/3 [00:00<00:01,  1.00it/s]\n"
    )
    assert known_cause(chatter) is None
    problem = training_failure(1, chatter + "ValueError: batch is empty\n", log(step(1)))
    assert problem is not None
    assert (problem.code, problem.why) == (
        "train.failed",
        "ValueError: batch is empty. 1 step finished.",
    )


def test_an_error_that_was_got_over_does_not_hide_the_last_one() -> None:
    """Axolotl first tries a plugin's short name, fails, and goes on: it was not that which ended the run."""
    tail = real("no-plugin") + "ModuleNotFoundError: No module named 'x'\nMemoryError\n"
    problem = training_failure(1, tail, None)
    assert problem is not None and problem.code == "train.out-of-memory-host"


def test_killed_says_the_signal_whatever_was_printed_before() -> None:
    problem = training_failure(-9, "ModuleNotFoundError: No module named 'x'\n", log(step(1), step(2), end=None))
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("train.killed", OUTSIDE_FAILED)
    assert "signal 9" in problem.what
    assert "out-of-memory killer" in problem.why
    assert "2 steps finished." in problem.why


def test_an_abort_may_say_its_cause() -> None:
    problem = training_failure(-6, "terminate called after throwing an instance of 'std::bad_alloc'\n", None)
    assert problem is not None and problem.code == "train.out-of-memory-host"
    problem = training_failure(-6, "Aborted\n", None)
    assert problem is not None and problem.code == "train.killed"


def test_a_loss_that_is_not_finite_counts_before_anything_else() -> None:
    """Axolotl itself ends such a run well, and prints a loss of 0."""
    assert "'loss': '0', 'grad_norm': 'nan'" in real("nan")
    stopped = log(step(1), step(2, loss="nan"), stopped=StoppedEvent("the loss is nan at step 2"))
    problem = training_failure(0, real("nan"), stopped)
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("train.loss-not-finite", BAD_ANSWER)
    assert "nan at step 2" in problem.what
    assert "learning_rate" in problem.next


def test_a_run_without_the_workers_log_is_no_result_although_axolotl_ended_well() -> None:
    problem = training_failure(0, real("no-plugin"), None)
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("train.no-worker-log", BAD_ANSWER)


def test_a_log_without_an_end() -> None:
    problem = training_failure(0, "", log(step(1), end=None))
    assert problem is not None and problem.code == "train.unfinished"


def test_a_run_to_its_end_has_no_problem() -> None:
    assert training_failure(0, "anything", log()) is None


def test_a_process_that_could_not_be_started() -> None:
    problem = training_failure(None, "absent", None)
    assert problem is not None
    assert (problem.code, problem.why) == ("train.failed", "absent. No step finished.")
    assert "could not be started" in problem.what


def test_the_last_error_in_one_line() -> None:
    assert last_error("") == "It printed nothing."
    assert last_error("a\n\nb\n") == "b"
    assert last_error(real("recipe-invalid")).startswith(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error"
    )
    assert "errors.pydantic.dev" not in last_error(real("recipe-invalid"))
    assert len(last_error("ValueError: " + "x" * 1000)) == 300


@given(st.text(max_size=300), st.sampled_from([None, 0, 1, -9, -11]))
def test_any_text(tail: str, rc: int | None) -> None:
    problem = training_failure(rc, tail, None)
    assert problem is not None and problem.what and problem.next


def test_another_process_that_failed_is_reported_with_its_cause_or_its_log() -> None:
    known = process_failure(
        "merge.failed", "The adapter could not be merged", "MemoryError\n", "exit code 1", "Look there."
    )
    assert known.code == "merge.out-of-memory-host"
    assert known.what.startswith("The adapter could not be merged (exit code 1). The computer's memory is full")
    other = process_failure(
        "merge.failed", "The adapter could not be merged", "ValueError: odd\n", "exit code 1", "Look there."
    )
    assert (other.code, other.what) == ("merge.failed", "The adapter could not be merged (exit code 1).")
    assert (other.why, other.next) == ("ValueError: odd", "Look there.")
