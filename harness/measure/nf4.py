"""Is the 4-bit arithmetic (NF4) of bitsandbytes correct here? Checked before a benchmark, once per environment, GPU and
driver.

A wheel with wrong 4-bit products trains fast and learns nothing (bitsandbytes#2087), so its speed would mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from harness.atomic_files import read_if_valid, write_atomic
from harness.environment.build import Environment
from harness.environment.worker_process import WORKER, WorkerContext
from harness.process.diagnosis import describe_exit, process_failure
from machine.errors import BadAnswer, Problem
from machine.events import Event
from machine.local import Outcome

STAGE = "nf4"
PATIENCE = 300.0


class Nf4Check(msgspec.Struct, frozen=True):
    """The error of each comparison as a share of the rounding bound: above 1 is wrong. Kept beside the environment."""

    of_bound: dict[str, float]

    @property
    def worst(self) -> float:
        return max(self.of_bound.values())


def digest(environment: Environment, device: str | None, conditions: Sequence[str]) -> str:
    """sha256 over what the result depends on: software, GPU, driver, kernel, and the check itself."""
    check = (WORKER / "gpu_setup_worker" / "nf4_check.py").read_bytes()
    parts = [environment.lock_digest, environment.torch, environment.python_version, environment.image or ""]
    return hashlib.sha256(check + "\0".join([*parts, device or "", *conditions]).encode()).hexdigest()


def check_nf4(worker: WorkerContext, conditions: Sequence[str] = ()) -> Nf4Check:
    """The result; a kept one where nothing has changed. Raises BadAnswer when a product is wrong."""
    name = f"nf4-{digest(worker.environment, worker.device, conditions)[:16]}.json"
    file = worker.environment.notes_folder / name
    kept = read_if_valid(file, Nf4Check)
    if kept is not None and kept.of_bound:
        return kept
    worker.emit(Event("start", STAGE, "Comparing 4-bit products with their exact values"))
    outcome = worker.machine.run(
        (worker.python, "-m", "gpu_setup_worker.nf4_check"),
        timeout=PATIENCE,
        env=worker.variables(),
    )
    found = parse_nf4(outcome)
    write_atomic(file, msgspec.json.encode(found))
    worker.emit(
        Event("end", STAGE, f"4-bit arithmetic verified (error at most {found.worst:.0%} of the rounding bound)")
    )
    return found


def parse_nf4(outcome: Outcome) -> Nf4Check:
    """The check's figures; raises BadAnswer when one is above its bound, OutsideFailed when the check did not run."""
    try:
        figures = msgspec.json.decode(outcome.stdout, type=dict[str, float])
    except msgspec.MsgspecError:
        figures = {}
    wrong = [name for name, share in figures.items() if not share <= 1.0]
    if outcome.ok and figures and not wrong:
        return Nf4Check(figures)
    raise _wrong(wrong, figures) if wrong else _could_not_run(outcome)


def _wrong(wrong: list[str], figures: dict[str, float]) -> Problem:
    return BadAnswer(
        "bench.nf4-wrong",
        f"4-bit arithmetic gives wrong results on this machine: {', '.join(wrong[:3])}.",
        f"The largest error is {max(figures.values()):.3g} times what rounding explains, so training in 4 bit would "
        "learn nothing.",
        "Use another build of bitsandbytes or another stack; `gpu-setup image verify` runs the same check. "
        "On RDNA3 see bitsandbytes#2087.",
    )


def _could_not_run(outcome: Outcome) -> Problem:
    return process_failure(
        "bench.nf4",
        "The check of 4-bit arithmetic did not run",
        outcome.stderr or outcome.stdout,
        outcome.problem or describe_exit(outcome.rc),
        "Run gpu-setup environment, then the same command again.",
    )
