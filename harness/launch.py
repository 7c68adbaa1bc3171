"""One run: a folder with the config, the logs and the adapter; Axolotl started in the training environment.

recipe + model + data ─▶ runs/ID/config.yml ─▶ axolotl train ─▶ worker.jsonl, adapter/ ─▶ run.json
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from harness.config import run_config
from harness.document import disk_trouble, write_whole
from harness.environment import Environment
from harness.recipe import Recipe, Traits
from harness.trainer_log import failure
from harness.worker_log import WorkerLog, read_worker_log
from harness.worker_process import worker_environment
from machine.door import Machine
from machine.errors import BadAnswer, OutsideFailed, Problem
from machine.events import Emit, Event

STAGE = "train"
DOCUMENT = "run.json"
# held while the run's gpu-setup lives: a run marked as running whose lock is free was cut off
LOCK = "run.lock"
# Axolotl's imports and the model's loading, before the first step
START_SECONDS = 25.0


class Run(msgspec.Struct, frozen=True):
    """What was run, and how it ended: running, done, failed or interrupted. `problem`: the failure's code.

    `inputs` is the digest of everything that decides the run (harness/prove.py); `data`: a person's own data file;
    `device`: the card that it was kept to.
    """

    recipe: str
    traits: Traits
    recipe_digest: str
    status: str
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


def new_folder(runs: Path, recipe: Recipe) -> Path:
    """A fresh folder for a run, named by time and recipe; a second one within the same second gets a number."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for number in range(1, 100):
        folder = runs / (f"{stamp}-{recipe.name}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise OutsideFailed(
                "run.unwritable",
                f"The run's folder {folder} cannot be made.",
                f"The system says: {error.strerror}.",
                "Set GPU_SETUP_HOME to a folder that you can write, and run the same command again.",
            ) from error
    raise OutsideFailed("run.unwritable", f"No free name for a run in {runs}.", "", "Run the same command again.")


def train(
    recipe: Recipe,
    environment: Environment,
    base_model: str,
    folder: Path,
    machine: Machine,
    emit: Emit,
    inputs: str = "",
    data: Path | None = None,
    overrides: dict[str, Any] | None = None,
    device: str | None = None,
) -> WorkerLog:
    """Train, and return what the worker recorded. Raises Problem when it is no result; the folder stays, marked.

    Time left is told from the steps done; KeyboardInterrupt ends the process group and marks the run as interrupted.
    """
    from filelock import FileLock

    config = run_config(recipe, base_model, folder, data, overrides or {})
    run = Run(
        recipe=recipe.name,
        traits=recipe.traits,
        recipe_digest=recipe.digest,
        status="running",
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        base_model=base_model,
        stack=environment.stack,
        lock_digest=environment.lock_digest,
        torch=environment.torch,
        inputs=inputs,
        data=str(data) if data else None,
        device=device,
        overrides=overrides or {},
    )
    with FileLock(folder / LOCK):
        return _train(recipe, run, config, environment, folder, machine, emit)


def _train(
    recipe: Recipe,
    run: Run,
    config: dict[str, Any],
    environment: Environment,
    folder: Path,
    machine: Machine,
    emit: Emit,
) -> WorkerLog:
    import yaml

    _write(folder, run)
    write_whole(folder / "config.yml", yaml.safe_dump(config, sort_keys=False))
    emit(Event("start", STAGE, f"Training {recipe.name} with Axolotl: {folder}"))
    begin = time.monotonic()
    try:
        with disk_trouble(folder), _watching(folder / "worker.jsonl", emit):
            outcome = machine.stream(
                (
                    str(environment.python.parent / "axolotl"),
                    "train",
                    str(folder / "config.yml"),
                    "--launcher",
                    "python",
                ),
                lambda line: None,
                env=worker_environment(environment, folder, recipe.traits.model != "hub", run.device),
                cwd=str(folder),
                log=str(folder / "axolotl.log"),
            )
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        code = error.code if isinstance(error, Problem) else None
        with suppress(OutsideFailed):
            _write(folder, msgspec.structs.replace(run, status=status, seconds=time.monotonic() - begin, problem=code))
        raise
    log = read_worker_log(folder / "worker.jsonl")
    problem = failure(outcome.rc, outcome.stdout or outcome.problem, log) or _unsaved(folder)
    seconds = time.monotonic() - begin
    if problem is not None or log is None:
        assert problem is not None
        _write(folder, msgspec.structs.replace(run, status="failed", seconds=seconds, problem=problem.code))
        problem.next = f"{problem.next} Run: {folder}"
        raise problem
    _write(folder, msgspec.structs.replace(run, status="done", seconds=seconds))
    emit(Event("end", STAGE, f"{len(log.steps)} steps in {seconds:.0f} s"))
    return log


def _unsaved(folder: Path) -> Problem | None:
    if (folder / "adapter" / "adapter_model.safetensors").is_file():
        return None
    return BadAnswer(
        "train.no-adapter", "Training ended, but no adapter was saved.", "", "Look at axolotl.log of the run."
    )


def read_run(folder: Path) -> Run:
    """The run's document; raises BadUsage when the folder holds none."""
    from machine.errors import BadUsage

    try:
        return msgspec.json.decode((folder / DOCUMENT).read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadUsage(
            "run.none",
            f"{folder} is not the folder of a run.",
            f"Its {DOCUMENT} cannot be read: {error}.",
            "Give a run's folder.",
        ) from error


def mark_cut_off(runs: Path) -> None:
    """Mark as interrupted each run whose gpu-setup was killed and could not do it itself."""
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


def _write(folder: Path, run: Run) -> None:
    write_whole(folder / DOCUMENT, msgspec.json.format(msgspec.json.encode(run)))


@contextmanager
def _watching(path: Path, emit: Emit) -> Iterator[None]:
    """Tell each new step from the worker's log while the process runs."""
    done = threading.Event()
    begin = time.monotonic()

    def watch() -> None:
        told, size = -1, -1
        while not done.wait(0.5):
            grown = path.stat().st_size if path.exists() else 0
            if grown == size:
                continue
            size = grown
            log = read_worker_log(path)
            steps = log.steps if log else ()
            if len(steps) == told:
                continue
            told = len(steps)
            if not log or not log.begin or not steps:
                left = max(0.0, START_SECONDS - time.monotonic() + begin)
                emit(Event("progress", STAGE, "starting Axolotl", 0, None, "", left))
                continue
            recent = [step.seconds for step in steps[-8:]]
            left = (log.begin.planned_steps - steps[-1].step) * sum(recent) / len(recent)
            loss = steps[-1].loss
            text = f"loss {loss:.3f}" if isinstance(loss, float) else f"loss {loss}"
            emit(Event("progress", STAGE, text, steps[-1].step, log.begin.planned_steps, "steps", left))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
