"""What went wrong in a training process: from its exit, its last lines and the worker's log to a cause."""

from __future__ import annotations

import re
from typing import NamedTuple

from harness.worker_log import WorkerLog
from machine.errors import BadAnswer, BadUsage, OutsideFailed, Problem


class Cause(NamedTuple):
    """What the text of a failed process tells: a stable code, one sentence, and what to do."""

    code: str
    what: str
    next: str


# in order: the first that matches wins. Each text was printed by the tool named, in the version of the cpu lock;
# those of a GPU are from PyTorch's sources (unverified here).
_CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        r"No space left on device|Disk quota exceeded",
        Cause(
            "disk-full",
            "The disk is full.",
            "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk, and run the same command again.",
        ),
    ),
    (
        r"(CUDA|HIP) out of memory|OutOfMemoryError",
        Cause(
            "out-of-memory-device",
            "The card's memory is full.",
            "Lower sequence_len, then micro_batch_size in the recipe; close what else uses the card.",
        ),
    ),
    (
        r"MemoryError|an't allocate memory|annot allocate memory|bad_alloc|failed to map segment|start new thread",
        Cause(
            "out-of-memory-host",
            "The computer's memory is full, or limited for this process.",
            "Close other programs, raise the limit (ulimit -v, the container's memory), or lower micro_batch_size.",
        ),
    ),
    (
        r"no kernel image is available|invalid device function",
        Cause(
            "no-kernel-image",
            "This build of PyTorch has no kernels for the card.",
            "Run gpu-setup doctor: it names the stack that fits the card.",
        ),
    ),
    (
        r"GatedRepoError|401 Client Error|403 Client Error|gated repo",
        Cause(
            "model-gated",
            "The model asks for a licence click and a token.",
            "Accept the licence on the model's page and run `hf auth login`, or take --recipe smollm2-135m-qlora.",
        ),
    ),
    (
        r"The dataset could not be loaded|DatasetNotFoundError",
        Cause(
            "data-missing",
            "The dataset cannot be fetched or found.",
            "Check its name in the recipe's datasets, and the network; --data FILE trains on a file of yours.",
        ),
    ),
    (
        r"couldn't connect to|an't load the (configuration|model|tokenizer)|(Repository|Entry)NotFound|OfflineMode",
        Cause(
            "model-missing",
            "The model cannot be fetched or found.",
            "Check base_model in the recipe, and the network; --recipe smollm2-135m-qlora needs no hub.",
        ),
    ),
    (
        r"ModuleNotFoundError: No module named|cannot open shared object file",
        Cause(
            "library-missing",
            "A library is missing in the training environment.",
            "Run gpu-setup environment: it checks every file and repairs what is broken.",
        ),
    ),
    (
        r"\bValidationError: |validation errors? for",
        Cause(
            "recipe-invalid",
            "Axolotl refuses the recipe.",
            "Correct the key that it names.",
        ),
    ),
)
# what a log line of Axolotl, a warning of Python or a progress bar looks like: no cause of an end
_CHATTER = re.compile(r"^\[[^]]*\] \[(WARNING|INFO|DEBUG)\]|Warning: |\d+%\|")
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Iteration|Warning)\b")


def cause(tail: str) -> Cause | None:
    """The known cause in a process's last lines. The last error is asked first: earlier ones may have been got over."""
    for text in (last_error(tail), _told(tail)):
        for pattern, known in _CAUSES:
            if re.search(pattern, text):
                return known
    return None


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


def failure(rc: int | None, tail: str, log: WorkerLog | None) -> Problem | None:
    """Why a training run is no result; None when it ran to its end. `tail`: the last lines that it printed."""
    if log is not None and log.stopped is not None:
        return BadAnswer(
            "train.loss-not-finite",
            f"Training stopped: {log.stopped.reason}.",
            "Too high a learning rate, a broken sample or a half-precision overflow makes the loss run away.",
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
            _reached(log),
            "Look at axolotl.log of the run.",
        )
    # a killed process could not say anything: what stands in its last lines is of before
    known = cause(tail) if rc != -9 else None
    if known is not None:
        kind = BadUsage if known.code == "recipe-invalid" else OutsideFailed
        return kind(
            f"train.{known.code}", f"Training failed: {known.what}", f"{last_error(tail)} {_reached(log)}", known.next
        )
    if rc is not None and rc < 0:
        return OutsideFailed(
            "train.killed",
            f"The training process was ended by signal {-rc}.",
            ("Signal 9 is most often the kernel's out-of-memory killer. " if rc == -9 else "") + _reached(log),
            "See `journalctl -k -b | grep -i 'killed process'`; then run the same command again.",
        )
    return OutsideFailed(
        "train.failed",
        f"Training failed ({ended(rc)}).",
        f"{last_error(tail)} {_reached(log)}",
        "Look at axolotl.log of the run.",
    )


def _reached(log: WorkerLog | None) -> str:
    if log is None or not log.steps:
        return "No step was finished."
    return f"{log.steps[-1].step} steps were finished and are kept."
