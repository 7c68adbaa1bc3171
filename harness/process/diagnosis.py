"""Why a training process failed: from its exit status, its last lines of output and the worker's log to a cause."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.process.failure_causes import CAUSES
from harness.process.kernel_events import card_cause, memory_cause
from harness.process.worker_log import WorkerLog
from machine.causes import Cause, find_cause
from machine.errors import BadAnswer, OutsideFailed, Problem

# log lines of Axolotl, warnings of Python and progress bars: never the cause of a failure
_CHATTER = re.compile(r"^\[[^]]*\] \[(WARNING|INFO|DEBUG)\]|Warning: |\d+%\|")
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Iteration|Warning)\b")


def known_cause(tail: str) -> Cause | None:
    """The known cause in a process's last lines. The last error comes first: an earlier one may have been handled."""
    return find_cause(CAUSES, last_error(tail)) or find_cause(CAUSES, _relevant_lines(tail))


def last_error(tail: str) -> str:
    """The last exception's message in one line of at most 300 characters; without one, the last line of output."""
    lines = _relevant_lines(tail).splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if _ERROR.match(lines[number]):
            words = [line.strip() for line in lines[number:] if "errors.pydantic.dev" not in line]
            return re.sub(r" \[type=.*", "", " ".join(words))[:300]
    return (lines or ["It printed nothing."])[-1].strip()[:300]


def describe_exit(rc: int | None) -> str:
    """How a process ended, in words."""
    if rc is None:
        return "it could not be started"
    return f"signal {-rc}" if rc < 0 else f"exit {rc}"


def _relevant_lines(tail: str) -> str:
    return "\n".join(line for line in tail.splitlines() if line.strip() and not _CHATTER.search(line))


def training_failure(rc: int | None, tail: str, log: WorkerLog | None, kernel: Sequence[str] = ()) -> Problem | None:
    """Why a training run has no result; None: it ran to its end. `tail`: its last lines of output; `kernel`: the
    kernel's messages during the run.
    """
    if log is not None and log.stopped is not None:
        return BadAnswer(
            "train.loss-not-finite",
            f"Training stopped: {log.stopped.reason}.",
            "The learning rate is too high, a sample is broken, or a half-precision value overflowed. "
            + progress_summary(log),
            "Lower learning_rate in the recipe (for example to a tenth); the earlier steps are kept.",
        )
    if rc == 0 and log is None:
        return BadAnswer(
            "train.no-worker-log",
            "Training ended, but the worker wrote no log, so nothing was measured.",
            "Axolotl only warns when it cannot load a plugin, and trains without it.",
            "Search for “plugin” in the run's axolotl.log; `plugins` must contain gpu_setup_worker.plugin.Telemetry.",
        )
    if rc == 0 and log is not None and log.end is not None:
        return None
    if rc == 0:
        return BadAnswer(
            "train.unfinished",
            "Training ended before its last step.",
            progress_summary(log),
            "See the run's axolotl.log.",
        )
    # an error of the card explains what the process printed
    found = card_cause(kernel)
    # a killed process could print nothing: its last lines are from before
    known = known_cause(tail) if rc != -9 and found is None else None
    # the kernel knows what killed a helper process, the process can only guess
    found = found or (memory_cause(kernel) if known is None or known.code == "helper-killed" else None)
    if found is not None:
        return _kernel_failure(*found, log)
    if known is not None:
        return known.kind(
            f"train.{known.code}",
            f"Training failed: {known.why}",
            f"{_sentence(last_error(tail))} {progress_summary(log)}",
            known.next,
        )
    if rc is not None and rc < 0:
        return OutsideFailed(
            "train.killed",
            f"The training process was killed by signal {-rc}.",
            ("Signal 9 usually comes from the kernel's out-of-memory killer. " if rc == -9 else "")
            + progress_summary(log),
            "See `journalctl -k -b | grep -i 'killed process'`; then run the same command again.",
        )
    return OutsideFailed(
        "train.failed",
        f"Training failed ({describe_exit(rc)}).",
        f"{_sentence(last_error(tail))} {progress_summary(log)}",
        "See the run's axolotl.log.",
    )


def _kernel_failure(known: Cause, line: str, log: WorkerLog | None) -> Problem:
    why = f"The kernel says: {line.strip().rstrip('.')[:300]}. {progress_summary(log)}"
    return OutsideFailed(f"train.{known.code}", f"Training failed: {known.why}", why, known.next)


def hang_failure(seconds: float, log: WorkerLog | None, kernel: Sequence[str] = ()) -> Problem:
    """A training that wrote nothing for so long that it was aborted; an error of the card explains it."""
    if (found := card_cause(kernel)) is not None:
        return _kernel_failure(*found, log)
    return OutsideFailed(
        "train.hung",
        f"Training hung: no step finished within {seconds:.0f} s, so it was aborted.",
        progress_summary(log),
        "See `gpu-setup doctor` and `journalctl -k -b` for errors of the card; then run the same command again.",
    )


def process_failure(code: str, what: str, tail: str, how: str, otherwise: str) -> OutsideFailed:
    """The failure of another process than the training. `what`: without a full stop; `tail`: its last lines; `how`: how
    it ended. `code` (room.failed) and the next step `otherwise` are used where the cause is not known.
    """
    known = known_cause(tail)
    return OutsideFailed(
        f"{code.partition('.')[0]}.{known.code}" if known else code,
        f"{what} ({how}).{f' {known.why}' if known else ''}",
        last_error(tail),
        known.next if known else otherwise,
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def progress_summary(log: WorkerLog | None) -> str:
    """What is kept of a run that did not reach its end."""
    if log is None or not log.steps:
        return "No step finished."
    last = log.steps[-1].step
    finished = "1 step finished" if last == 1 else f"{last} steps finished"
    return f"{finished}; the checkpoint of step {log.saved[-1].step} is kept." if log.saved else f"{finished}."
