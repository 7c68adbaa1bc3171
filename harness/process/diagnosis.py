"""What went wrong in a training process: from its exit, its last lines and the worker's log to a cause."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.process.failure_causes import CAUSES
from harness.process.kernel_events import card_cause, memory_cause
from harness.process.worker_log import WorkerLog
from machine.causes import Cause, find_cause
from machine.errors import BadAnswer, OutsideFailed, Problem

# what a log line of Axolotl, a warning of Python or a progress bar looks like: no cause of an end
_CHATTER = re.compile(r"^\[[^]]*\] \[(WARNING|INFO|DEBUG)\]|Warning: |\d+%\|")
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Iteration|Warning)\b")


def cause(tail: str) -> Cause | None:
    """The known cause in a process's last lines. The last error is asked first: earlier ones may have been got over."""
    return find_cause(CAUSES, last_error(tail)) or find_cause(CAUSES, _told(tail))


def last_error(tail: str) -> str:
    """The last exception's words in one line, at most 300 characters; without one, the last line that was printed."""
    lines = _told(tail).splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if _ERROR.match(lines[number]):
            words = [line.strip() for line in lines[number:] if "errors.pydantic.dev" not in line]
            return re.sub(r" \[type=.*", "", " ".join(words))[:300]
    return (lines or ["It printed nothing."])[-1].strip()[:300]


def ended(rc: int | None) -> str:
    """How a process ended, in words."""
    if rc is None:
        return "it could not be started"
    return f"signal {-rc}" if rc < 0 else f"exit {rc}"


def _told(tail: str) -> str:
    return "\n".join(line for line in tail.splitlines() if line.strip() and not _CHATTER.search(line))


def failure(rc: int | None, tail: str, log: WorkerLog | None, kernel: Sequence[str] = ()) -> Problem | None:
    """Why a training run is no result; None when it ran to its end. `tail`: the last lines that it printed; `kernel`:
    what the kernel said meanwhile.
    """
    if log is not None and log.stopped is not None:
        return BadAnswer(
            "train.loss-not-finite",
            f"Training stopped: {log.stopped.reason}.",
            "Too high a learning rate, a broken sample or a half-precision overflow makes the loss run away. "
            + reached(log),
            "Lower learning_rate in the recipe (a tenth is a good try); the steps before are kept.",
        )
    if rc == 0 and log is None:
        return BadAnswer(
            "train.no-worker-log",
            "Training ended, but the worker wrote no log, so nothing was measured.",
            "Axolotl only warns when a plugin cannot be loaded and trains on without it.",
            "Look for “plugin” in axolotl.log of the run; `plugins` must hold gpu_setup_worker.plugin.Telemetry.",
        )
    if rc == 0 and log is not None and log.end is not None:
        return None
    if rc == 0:
        return BadAnswer(
            "train.unfinished",
            "Training ended before its last step.",
            reached(log),
            "Look at axolotl.log of the run.",
        )
    # what the card's driver said explains what the process said
    told = card_cause(kernel)
    # a killed process could not say anything: what stands in its last lines is of before
    known = cause(tail) if rc != -9 and told is None else None
    # the kernel knows what ended a helper, the process can only guess
    told = told or (memory_cause(kernel) if known is None or known.code == "helper-killed" else None)
    if told is not None:
        return _told_by_kernel(*told, log)
    if known is not None:
        return known.kind(
            f"train.{known.code}", f"Training failed: {known.why}", f"{last_error(tail)} {reached(log)}", known.next
        )
    if rc is not None and rc < 0:
        return OutsideFailed(
            "train.killed",
            f"The training process was ended by signal {-rc}.",
            ("Signal 9 is most often the kernel's out-of-memory killer. " if rc == -9 else "") + reached(log),
            "See `journalctl -k -b | grep -i 'killed process'`; then run the same command again.",
        )
    return OutsideFailed(
        "train.failed",
        f"Training failed ({ended(rc)}).",
        f"{last_error(tail)} {reached(log)}",
        "Look at axolotl.log of the run.",
    )


def _told_by_kernel(known: Cause, line: str, log: WorkerLog | None) -> Problem:
    why = f"The kernel says: {line.strip()[:300]}. {reached(log)}"
    return OutsideFailed(f"train.{known.code}", f"Training failed: {known.why}", why, known.next)


def hung_step(seconds: float, log: WorkerLog | None, kernel: Sequence[str] = ()) -> Problem:
    """A training that gave no sign for so long that it was ended; the card's own trouble explains it."""
    if (told := card_cause(kernel)) is not None:
        return _told_by_kernel(*told, log)
    return OutsideFailed(
        "train.hung",
        f"Training hung: no step was finished for {seconds:.0f} s, so it was ended.",
        reached(log),
        "See gpu-setup doctor and `journalctl -k -b` for the card's errors; then run the same command again.",
    )


def undone(code: str, what: str, tail: str, how: str, otherwise: str) -> OutsideFailed:
    """Another process than the training did not do its work. `what` without a full stop; `tail`: its last lines.

    `code` (room.failed) and the next step `otherwise` hold where the cause is not known; `how` it ended.
    """
    known = cause(tail)
    return OutsideFailed(
        f"{code.partition('.')[0]}.{known.code}" if known else code,
        f"{what} ({how}).{f' {known.why}' if known else ''}",
        last_error(tail),
        known.next if known else otherwise,
    )


def reached(log: WorkerLog | None) -> str:
    """What is there of a run that did not come to its end."""
    if log is None or not log.steps:
        return "No step was finished."
    if log.saved:
        return f"{log.steps[-1].step} steps were finished; the checkpoint of step {log.saved[-1].step} is kept."
    return f"{log.steps[-1].step} steps were finished and are kept."
