"""One run: a folder with the config, the logs and the adapter; Axolotl started in the training environment.

recipe + model + data ─▶ runs/ID/config.yml ─▶ axolotl train ─▶ worker.jsonl, adapter/ ─▶ run.json
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.atomic_files import disk_errors, read_document, write_atomic
from harness.environment.worker_process import WorkerContext
from harness.process.diagnosis import hang_failure, training_failure
from harness.process.kernel_events import kernel_lines_since
from harness.process.worker_log import WorkerLog, read_worker_log
from harness.recipe.axolotl_config import run_config
from harness.recipe.loader import Recipe, Traits
from harness.training.checkpoints import Checkpoint, newest_complete, remove_later
from harness.training.monitor import STAGE, STOP, HangLimits, watch_run
from harness.training.portable_adapter import make_portable
from machine.errors import BadAnswer, Interrupted, OutsideFailed, Problem, reason
from machine.events import Event
from machine.paths import Owner, give

DOCUMENT = "run.json"
# held while the run's gpu-setup is running: a run marked as running whose lock is free was killed
LOCK = "run.lock"


RunStatus = Literal["running", "done", "failed", "interrupted"]


class CheckpointPolicy(msgspec.Struct, frozen=True):
    """When to save a checkpoint (every `seconds` at the latest), and when to stop early: after `patience` evaluations
    without a lower held-out loss (0: never).
    """

    seconds: float = 600.0
    patience: int = 0


class RunSpec(msgspec.Struct, frozen=True):
    """What a run trains. `inputs`: digest of everything that decides it; `data`: the user's own data file.

    With `keep`, an interrupted run in the same folder resumes from its newest complete checkpoint, and the first Ctrl-C
    saves a checkpoint before the run ends. `budget`: measured seconds after which the training ends early.
    """

    recipe: Recipe
    base_model: str
    inputs: str = ""
    data: Path | None = None
    overrides: dict[str, Any] = {}
    keep: CheckpointPolicy | None = None
    hung: HangLimits = HangLimits()
    budget: float | None = None


class RunRecord(msgspec.Struct, frozen=True):
    """What was run, and how it ended. `problem`: the failure's code.

    `inputs`: digest of everything that decides the run (harness/pipeline.py); `data`: the user's own data file;
    `device`: the only card that the run could use; `resumed_from`: the steps of the checkpoints that it was resumed
    from; `seconds`: all sessions together.
    """

    recipe: str
    traits: Traits
    recipe_digest: str
    status: RunStatus
    started_at: str
    base_model: str
    stack: str
    lock_digest: str
    torch: str
    inputs: str
    seconds: float | None = None
    problem: str | None = None
    data: str | None = None
    device: str | None = None
    overrides: dict[str, Any] = {}
    resumed_from: tuple[int, ...] = ()


def new_run_folder(runs: Path, recipe: Recipe, owner: Owner | None = None) -> Path:
    """A new folder for a run, named by time and recipe; a second one within the same second gets a number.

    `owner`: the user that the training runs as, where that is not this process's.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for number in range(1, 100):
        folder = runs / (f"{stamp}-{recipe.name}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
            give(folder, owner)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise OutsideFailed(
                "run.unwritable",
                f"The run's folder {folder} cannot be created.",
                f"The system says: {error.strerror}.",
                "Set GPU_SETUP_HOME to a folder that you can write, and run the same command again.",
            ) from error
    raise OutsideFailed(
        "run.unwritable", f"No free folder name for a run in {runs}.", "", "Run the same command again."
    )


def train(spec: RunSpec, folder: Path, worker: WorkerContext) -> WorkerLog:
    """Train, and return what the worker recorded. Raises Problem where the run has no result; its folder is kept.

    KeyboardInterrupt ends the process group and marks the run as interrupted.
    """
    from filelock import FileLock

    recipe, environment = spec.recipe, worker.environment
    config = run_config(recipe, spec.base_model, folder, spec.data, spec.overrides)
    run = RunRecord(
        recipe=recipe.name,
        traits=recipe.traits,
        recipe_digest=recipe.digest,
        status="running",
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        base_model=spec.base_model,
        stack=environment.stack,
        lock_digest=environment.lock_digest,
        torch=environment.torch,
        inputs=spec.inputs,
        data=str(spec.data) if spec.data else None,
        device=worker.device,
        overrides=spec.overrides,
    )
    with FileLock(folder / LOCK):
        point = resume_point(folder) if spec.keep is not None else None
        # later checkpoints are incomplete, or their steps will be repeated
        remove_later(folder / "adapter", point.step if point else -1)
        if point is not None:
            before = read_run(folder)
            run = msgspec.structs.replace(
                run,
                started_at=before.started_at,
                seconds=before.seconds,
                resumed_from=(*before.resumed_from, point.step),
            )
            config["resume_from_checkpoint"] = str(point.folder)
            worker.emit(Event("note", STAGE, f"Resuming after step {point.step}, from {point.folder}"))
        return _train(spec, run, config, folder, worker)


def resume_point(folder: Path) -> Checkpoint | None:
    """The checkpoint that an interrupted run in this folder would resume from."""
    log = read_worker_log(folder / "worker.jsonl")
    return newest_complete(folder / "adapter", log.begin.planned_steps if log and log.begin else None)


def _train(spec: RunSpec, run: RunRecord, config: dict[str, Any], folder: Path, worker: WorkerContext) -> WorkerLog:
    import yaml

    traits, machine, emit, keep = spec.recipe.traits, worker.machine, worker.emit, spec.keep
    _write(folder, run)
    write_atomic(folder / "config.yml", yaml.safe_dump(config, sort_keys=False))
    emit(Event("start", STAGE, f"Training {run.recipe} with Axolotl: {folder}"))
    begin = time.monotonic()
    before = run.seconds or 0.0

    def record_end(status: RunStatus, problem: str | None = None) -> float:
        seconds = before + time.monotonic() - begin
        _write(folder, msgspec.structs.replace(run, status=status, seconds=seconds, problem=problem))
        return seconds

    # a downloaded model does not need the hub any more, and the user's own data never did
    offline = traits.model != "hub" or (run.data is not None and Path(run.base_model).is_dir())
    variables = worker.variables(folder, offline)
    if spec.budget is not None:
        variables["GPU_SETUP_BUDGET"] = f"{spec.budget} {traits.warmup_steps}"
    if keep is not None:
        settings = {"seconds": keep.seconds, "patience": keep.patience, "stop": str(folder / STOP)}
        variables["GPU_SETUP_KEEP"] = msgspec.json.encode(settings).decode()
    try:
        with disk_errors(folder), watch_run(folder, emit, spec.hung, keep is not None) as watch:
            outcome = machine.stream(
                (
                    str(worker.environment.python.parent / "axolotl"),
                    "train",
                    str(folder / "config.yml"),
                    "--launcher",
                    "python",
                ),
                lambda line: None,
                watch.cancel,
                env=variables,
                cwd=str(folder),
                log=str(folder / "axolotl.log"),
            )
    except BaseException as error:
        with suppress(OutsideFailed):
            record_end(
                "failed" if isinstance(error, Exception) else "interrupted",
                error.code if isinstance(error, Problem) else None,
            )
        raise
    log = read_worker_log(folder / "worker.jsonl")
    if log is not None and log.stop_request is not None and outcome.ok:
        record_end("interrupted")
        raise Interrupted("train.stopped", f"Stopped after step {log.stop_request.step}, as requested.")
    problem: Problem | None
    kernel = () if outcome.ok else kernel_lines_since(machine, begin)
    if watch.hung is not None:
        problem = hang_failure(watch.hung, log, kernel)
    else:
        problem = training_failure(outcome.rc, outcome.stdout or outcome.problem, log, kernel) or _missing_adapter(
            folder
        )
    if problem is not None or log is None:
        assert problem is not None
        record_end("failed", problem.code)
        problem.next = f"{problem.next} Run: {folder}"
        raise problem
    make_portable(folder, spec.recipe, spec.base_model)
    seconds = record_end("done")
    emit(Event("end", STAGE, f"{len(log.steps)} steps in {seconds:.0f} s"))
    return log


def _missing_adapter(folder: Path) -> Problem | None:
    # an adapter, or the model itself where every weight was trained (in parts where it is large)
    saved = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
    if any((folder / "adapter" / name).is_file() for name in saved):
        return None
    return BadAnswer("train.no-adapter", "Training ended, but no adapter was saved.", "", "See the run's axolotl.log.")


def read_run(folder: Path) -> RunRecord:
    """The run's document; raises BadUsage when the folder holds none."""
    from machine.errors import BadUsage

    try:
        return read_document(folder / DOCUMENT, RunRecord)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadUsage(
            "run.none",
            f"{folder} is not the folder of a run.",
            f"Its {DOCUMENT} cannot be read: {reason(error)}.",
            "Give the folder of a run.",
        ) from error


def mark_interrupted(runs: Path) -> None:
    """Mark each run as interrupted whose gpu-setup was killed before it could do so."""
    from filelock import FileLock, Timeout

    from machine.errors import BadUsage

    for folder in runs.glob("*/"):
        try:
            run = read_run(folder)
            if run.status == "running":
                with FileLock(folder / LOCK, timeout=0):
                    _write(folder, msgspec.structs.replace(run, status="interrupted"))
        except (BadUsage, Timeout):
            continue


def _write(folder: Path, run: RunRecord) -> None:
    write_atomic(folder / DOCUMENT, msgspec.json.format(msgspec.json.encode(run)))
