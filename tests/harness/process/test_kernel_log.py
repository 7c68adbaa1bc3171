"""What the kernel said while a training ran explains its end: lines as drivers and kernel print them."""

from __future__ import annotations

import pytest

from harness.process.diagnosis import hang_failure, training_failure
from harness.process.kernel_events import card_cause, lines_between, memory_cause
from machine.errors import OUTSIDE_FAILED
from tests.harness.examples import log, step

# synthetic addresses; the sources of such lines stand in tests/checks/faults/data/nvidia.toml
LOST = (
    "[ 1200.100000] NVRM: GPU at PCI:0000:01:00: GPU-0d3d2d5d-0000-0000-0000-000000000000",
    "[ 1200.100001] NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    "[ 1200.100002] NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.",
)
FAULT = "[ 1200.100000] NVRM: Xid (PCI:0000:01:00): 31, pid=4242, name=python, Ch 00000008, MMU Fault: ENGINE GRAPHICS"
RING = "[ 1200.100000] amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1200, emitted seq=1202"
# mm/oom_kill.c of kernel 6.8
OOM = (
    "[ 1200.000000] Out of memory: Killed process 4242 (axolotl) total-vm:41234560kB, anon-rss:30123456kB, "
    "file-rss:1024kB, shmem-rss:0kB, UID:1000 pgtables:63000kB oom_score_adj:0"
)
LIMIT = OOM.replace("Out of memory", "Memory cgroup out of memory")
CUDA = "RuntimeError: CUDA error: an illegal memory access was encountered\n"


def test_a_card_that_fell_off_the_bus_is_named_whatever_the_program_said() -> None:
    problem = training_failure(1, CUDA, log(step(1), end=None), LOST)
    assert problem is not None
    assert (problem.code, problem.exit_code) == ("train.gpu-lost", OUTSIDE_FAILED)
    assert "Xid 79" in problem.what and "fallen off the bus" in problem.why
    assert "1 step finished" in problem.why
    assert "off completely" in problem.next


def test_a_hung_step_of_a_lost_card() -> None:
    assert hang_failure(900, log(step(1), end=None), LOST).code == "train.gpu-lost"
    problem = hang_failure(900, log(step(1), end=None))
    assert (problem.code, problem.exit_code) == ("train.hung", OUTSIDE_FAILED)
    assert "900 s" in problem.what and "1 step finished" in problem.why


def test_the_message_alone_is_enough() -> None:
    """Old drivers print it without a number that can be read."""
    found = card_cause(LOST[2:])
    assert found is not None and found[0].code == "gpu-lost"


def test_a_number_that_programs_cause_does_not_hide_their_message() -> None:
    problem = training_failure(1, "torch.OutOfMemoryError: CUDA out of memory.\n", None, [FAULT])
    assert problem is not None and problem.code == "train.out-of-memory-device"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (FAULT.replace("): 31,", "): 48,"), "Xid 48"),
        (RING, "hung or was reset"),
    ],
)
def test_a_card_in_trouble(line: str, words: str) -> None:
    problem = training_failure(-6, "Aborted\n", log(step(1), end=None), [line])
    assert problem is not None
    assert problem.code == "train.gpu-failed"
    assert words in problem.what and line.split("] ")[1][:40] in problem.why


@pytest.mark.parametrize(("line", "words"), [(OOM, "the computer's memory"), (LIMIT, "was reached")])
def test_the_out_of_memory_killer(line: str, words: str) -> None:
    problem = training_failure(-9, "", log(step(1), step(2), end=None), [line])
    assert problem is not None
    assert problem.code == "train.out-of-memory-host"
    assert words in problem.what.lower() and "2 steps" in problem.why


def test_a_helper_of_the_training_that_was_killed() -> None:
    """Then the training itself ends with an error of its own, which says nothing."""
    problem = training_failure(
        1, "RuntimeError: One of the subprocesses has abruptly died during map operation.\n", None, [OOM]
    )
    assert problem is not None and problem.code == "train.out-of-memory-host"


def test_only_the_time_of_the_run_counts() -> None:
    lines = ("[   10.000000] " + LOST[1][15:], *LOST, "no time")
    assert lines_between(lines, begin=1000.0, now=1300.0) == LOST
    assert lines_between(lines, begin=2000.0, now=2100.0) == ()
    assert memory_cause(()) is None and card_cause(()) is None
