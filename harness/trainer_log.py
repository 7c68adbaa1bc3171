"""What went wrong in a training process: from its exit, its last lines and the worker's log to a cause and a next step."""

from __future__ import annotations

import re

from harness.worker_log import WorkerLog
from machine.errors import BadAnswer, OutsideFailed, Problem

# in order: the first that matches wins. Each text was printed by the tool named, in the version of the cpu lock.
_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"No space left on device",
        "disk-full",
        "The disk is full.",
        "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk, and run the same command again.",
    ),
    (
        r"(CUDA|HIP) out of memory|OutOfMemoryError",
        "out-of-memory-device",
        "The card's memory is full.",
        "Lower sequence_len, then micro_batch_size in the recipe; close what else uses the card.",
    ),
    (
        r"MemoryError|can't allocate memory|Cannot allocate memory|std::bad_alloc|failed to map segment",
        "out-of-memory-host",
        "The computer's memory is full, or limited for this process.",
        "Close other programs, raise the limit (ulimit -v, the container's memory), or lower micro_batch_size.",
    ),
    (
        r"Key was rejected|no kernel image is available|invalid device function",
        "no-kernel-image",
        "This build of PyTorch has no kernels for the card.",
        "Run gpu-setup doctor: it names the stack that fits the card.",
    ),
    (
        r"GatedRepoError|401 Client Error|403 Client Error|gated repo",
        "model-gated",
        "The model asks for a licence click and a token.",
        "Accept the licence on the model's page and run `hf auth login`, or take --recipe smollm2-135m-qlora.",
    ),
    (
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|couldn't connect to|RepositoryNotFoundError",
        "model-missing",
        "The model or the dataset cannot be fetched.",
        "Check its name and the network; --recipe smollm2-135m-qlora needs neither hub nor network.",
    ),
    (
        r"ModuleNotFoundError: No module named|cannot open shared object file",
        "library-missing",
        "A library is missing in the training environment.",
        "Run gpu-setup environment: it checks every file and repairs what is broken.",
    ),
    (
        r"pydantic_core\._pydantic_core\.ValidationError|validation errors? for",
        "recipe-invalid",
        "Axolotl refuses the recipe.",
        "Correct the key that it names.",
    ),
)  # fmt: skip


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
    for pattern, code, what, following in _CAUSES:
        found = re.search(pattern, tail)
        if found:
            return OutsideFailed(
                f"train.{code}", f"Training failed: {what}", f"{_line(tail, found)} {_reached(log)}", following
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
        f"Training failed (exit {rc}).",
        f"{_last_error(tail)} {_reached(log)}",
        "Look at axolotl.log of the run.",
    )


def _reached(log: WorkerLog | None) -> str:
    if log is None or not log.steps:
        return "No step was finished."
    return f"{log.steps[-1].step} steps were finished and are kept."


def _line(tail: str, found: re.Match[str]) -> str:
    begin = tail.rfind("\n", 0, found.start()) + 1
    end = tail.find("\n", found.end())
    return tail[begin : end if end >= 0 else len(tail)].strip()[-300:]


def _last_error(tail: str) -> str:
    lines = [line.strip() for line in tail.splitlines() if re.match(r"\s*\w*(Error|Exception|Exit)\b", line)]
    return (lines or tail.strip().splitlines() or ["It printed nothing."])[-1][-300:]
