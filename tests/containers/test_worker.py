"""The parts of the worker that need no torch: its verification, and its end with gpu-setup."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest

from containers.verify import MARK, VerifyCheck, verdict
from harness.environment.worker_process import WORKER
from harness.jobs.image_runtime import INSIDE


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_verify", WORKER / "gpu_setup_worker" / "verify.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("target", "kernels", "fine"),
    [
        ("8.6", ["sm_75", "sm_80", "sm_86"], True),
        ("8.9", ["sm_80", "sm_86"], True),  # within its major version
        ("8.0", ["sm_86"], False),
        ("12.0", ["sm_80", "sm_90"], False),
        ("12.0", ["sm_90", "compute_90"], True),  # compiled when it starts
        ("9.0", ["sm_90a"], True),
        ("7.0", ["sm_75", "compute_120"], False),
        ("gfx1100", ["gfx1100", "gfx942:sramecc+"], True),
        ("gfx942", ["gfx942:sramecc+:xnack-"], True),
        ("gfx1030", ["gfx1100"], False),
        ("8.6", [], False),
    ],
)
def test_which_kernels_a_card_can_run(worker: ModuleType, target: str, kernels: list[str], fine: bool) -> None:
    assert (worker.covers([target], kernels) == []) is fine


def test_both_sides_agree_on_the_mark(worker: ModuleType) -> None:
    assert worker.MARK == MARK


@pytest.mark.parametrize(
    ("statuses", "word"),
    [(["pass", "skip"], "pass"), (["pass", "stub", "skip"], "stub"), (["stub", "fail"], "fail"), ([], "pass")],
)
def test_the_verdict_is_the_worst(statuses: list[str], word: str) -> None:
    assert verdict(tuple(VerifyCheck("x", "X", status, "because") for status in statuses)) == word


def test_in_a_container_a_training_ends_when_the_other_end_of_its_stdin_is_gone() -> None:
    """A killed gpu-setup is no process there that could be watched."""
    script = "import sys, time\nfrom gpu_setup_worker.parent import end_with_parent\nend_with_parent()\n"
    script += "print(repr(sys.stdin.readline()), flush=True)\ntime.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(WORKER), "PYTHONSAFEPATH": "1", **INSIDE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    # who asks the person something gets no answer, and does not wait for one
    assert child.stdout.readline() == "''\n"
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(20) == 128 + signal.SIGTERM
    child.stdout.close()
