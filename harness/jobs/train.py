"""Training on the user's own data: checked first, with checkpoints to resume from, and with a summary at the end.

data ─▶ check ─▶ (fit) ─▶ environment, model ─▶ train with checkpoints ─▶ examine ─▶ model card ─▶ TrainingResult
          the specification is saved as train.json in the run's folder, so that --resume needs nothing else
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.atomic_files import disk_errors, read_document, write_atomic
from harness.dataset.alpaca import read_alpaca
from harness.dataset.check import CheckSettings, check
from harness.environment.worker_process import WorkerContext
from harness.memory.available import GIB, AvailableMemory
from harness.memory.fit import FitOptions, predict_fit
from harness.pipeline import Job, TrainingSetup, count_recipe_rows, run_spec
from harness.process.worker_log import WorkerLog, read_worker_log
from harness.recipe.loader import Recipe, load_recipe
from harness.report.run_report import FinishedRun
from harness.training.background import BackgroundUnit
from harness.training.checkpoints import remove_all
from harness.training.examination import AnswerPair
from harness.training.launch import (
    LOCK,
    CheckpointPolicy,
    mark_interrupted,
    new_run_folder,
    read_run,
    resume_point,
    train,
)
from harness.training.monitor import SKIP_REASONS, HangLimits
from machine.errors import BadAnswer, BadUsage, Interrupted, Problem, Refused, reason
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Owner, make

STAGE = "train"
SPEC = "train.json"
# evaluations and checkpoints by step: per pass over the data, and at most in total; the clock adds checkpoints
A_PASS, AT_MOST = 5, 10
# one held-out row and one to train on
FEWEST_ROWS = 2


class TrainingSpec(msgspec.Struct, frozen=True):
    """The specification of a training: all that `--resume` needs. `recipe` is a name or a path; `data_digest` a sha256;
    `work` the digest of all that decides the weights.
    """

    recipe: str
    recipe_digest: str
    data: str
    data_digest: str
    rows: int
    overrides: dict[str, Any]
    keep: CheckpointPolicy = CheckpointPolicy()
    hung_seconds: float | None = None
    work: str = ""


class TrainingSettings(msgspec.Struct, frozen=True):
    """The options that change the training; None: as the recipe has it."""

    epochs: float | None = None
    steps: int | None = None
    seed: int | None = None
    save_steps: int | None = None
    patience: int = 3
    save_seconds: float = 600.0
    hung_seconds: float | None = None


class HeldOutEvaluation(msgspec.Struct, frozen=True):
    """The loss on the held-out rows after a step; null: not finite."""

    step: int
    held_out_loss: float | None


class TrainingResult(msgspec.Struct, frozen=True):
    """The result of `train`. `status`: started, for a training in the background, about which nothing else is known.
    `best_step`: the step whose weights the adapter has, where the held-out loss selected them.

    `resumed_from`: the steps of the checkpoints that the run was resumed from; `data_sha256` and `rows`: the data that
    it was trained on.
    """

    recipe: str
    base_model: str
    status: Literal["done", "started"]
    folder: str
    data_sha256: str
    rows: int
    adapter: str | None = None
    merged: str | None = None
    steps: int | None = None
    planned_steps: int | None = None
    seconds: float | None = None
    loss_first: float | None = None
    loss_last: float | None = None
    evaluations: tuple[HeldOutEvaluation, ...] = ()
    best_step: int | None = None
    stopped_early: bool = False
    resumed_from: tuple[int, ...] = ()
    held_out_before: float | None = None
    held_out_after: float | None = None
    answers: tuple[AnswerPair, ...] = ()
    background: BackgroundUnit | None = None
    notes: tuple[str, ...] = ()


def check_data(file: Path, accept: bool, emit: Emit) -> tuple[str, int]:
    """The file's sha256 and its number of rows; raises BadAnswer for data with errors, unless these are accepted."""
    rows = read_alpaca(file)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    found = check(file, None, CheckSettings(names=False), emit)
    errors = [finding for finding in found.findings if finding.severity == "error"]
    warnings = sum(1 for finding in found.findings if finding.severity == "warning")
    if errors and not accept:
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise BadAnswer(
            "data.errors",
            f"{file} has errors to correct before training: {errors[0].summary}{more}.",
            errors[0].why,
            f"`gpu-setup data check {file}` shows all of them, `gpu-setup data clean {file}` corrects many; "
            "--accept-data trains on the file as it is.",
        )
    if len(rows) < FEWEST_ROWS:
        raise BadAnswer(
            "data.too-few",
            f"{file} has only {len(rows)} row.",
            "One row is held out, so training needs at least two; about 100 rows visibly change a model.",
            "Add rows, then run the same command again.",
        )
    words = [f"accepted errors: {len(errors)}"] if errors else []
    words += [f"kinds of warnings: {warnings} (gpu-setup data check {file})"] if warnings else []
    emit(Event("end", "check", ", ".join([f"{len(rows):,} rows", *words])))
    return digest, len(rows)


def refuse_too_large(
    recipe: Recipe, overrides: dict[str, Any], room: AvailableMemory | None, accept: bool, emit: Emit
) -> None:
    """Raises BadAnswer for a job whose predicted memory exceeds the card's free memory; an unknown need is reported."""
    config = {key: value for key, value in {**recipe.config, **overrides}.items() if value is not None}
    try:
        result = predict_fit(msgspec.structs.replace(recipe, config=config), FitOptions(), room)
    except BadUsage as unknown:
        emit(Event("note", "fit", f"Whether it fits the card is not known: {unknown.what}"))
        return
    if result.fits is None or result.card_bytes is None:
        return
    words = (
        f"{result.total_bytes / GIB:.1f} GiB predicted, {result.card_bytes / GIB:.1f} GiB available on {result.card}"
    )
    if result.fits or accept:
        emit(Event("end" if result.fits else "warning", "fit", words))
        return
    largest = result.largest
    seq = f"sequence_len {largest.seq:,}" if largest and largest.seq else "another model"
    raise BadAnswer(
        "train.does-not-fit",
        f"{recipe.name} does not fit: {words}.",
        f"{result.card_source}. `gpu-setup fit --recipe {recipe.name}` explains the prediction.",
        f"Close other programs that use the card, or use {seq} or a smaller micro_batch_size; --accept-memory trains "
        "anyway.",
    )


def training_overrides(recipe: Recipe, settings: TrainingSettings) -> dict[str, Any]:
    """What training on other data changes in a recipe: how long it trains, and when it evaluates and saves.

    A recipe whose max_steps was chosen for its own data makes as many passes over the user's data. Each evaluation is
    at a checkpoint, so that the weights with the lowest held-out loss can be kept.
    """
    changes: dict[str, Any] = {}
    epochs = settings.epochs or recipe.config.get("num_epochs") or 1
    if settings.steps is not None:
        changes["max_steps"] = settings.steps
    elif settings.epochs is not None or recipe.config.get("max_steps"):
        epochs = settings.epochs or recipe_passes(recipe) or epochs
        changes |= {"num_epochs": epochs, "max_steps": None}
    share = 1 / min(AT_MOST, max(1, round(A_PASS * epochs)))
    # a share of all steps, whose number only the trainer knows; 1 would mean every step
    every = settings.save_steps or (share if share < 1 else 0.5)
    changes |= {
        "save_steps": every, "eval_steps": every, "save_total_limit": 2,
        "load_best_model_at_end": settings.patience > 0, "saves_per_epoch": None, "evals_per_epoch": None,
        "save_strategy": None, "eval_strategy": None, "early_stopping_patience": None, "resume_from_checkpoint": None,
    }  # fmt: skip
    return changes | ({"seed": settings.seed} if settings.seed is not None else {})


def recipe_passes(recipe: Recipe) -> int | None:
    """How many whole passes the recipe makes over its own data in max_steps; None where that is not known."""
    steps: int | None = recipe.config.get("max_steps")
    rows = count_recipe_rows(recipe) if steps else None
    if not steps or not rows:
        return None
    batch: int = (recipe.config.get("micro_batch_size") or 1) * (recipe.config.get("gradient_accumulation_steps") or 1)
    return max(1, round(steps * batch / rows))


def training_spec(job: Job, settings: TrainingSettings, recipe_name: str, digest: str, rows: int) -> TrainingSpec:
    assert job.data is not None
    return TrainingSpec(
        recipe=recipe_name if not Path(recipe_name).is_file() else str(Path(recipe_name).absolute()),
        recipe_digest=job.recipe.digest,
        data=str(job.data),
        data_digest=digest,
        rows=rows,
        overrides={**job.overrides, **training_overrides(job.recipe, settings)},
        keep=CheckpointPolicy(settings.save_seconds, settings.patience),
        hung_seconds=settings.hung_seconds,
    )


def with_work_digest(spec: TrainingSpec, setup: TrainingSetup) -> TrainingSpec:
    """With the digest of all that decides the weights; driver and kernel may change between two sessions."""
    environment = setup.environment
    parts = (
        spec.recipe_digest, spec.data_digest, repr(sorted(spec.overrides.items())), repr(spec.keep.patience),
        setup.base_model, environment.lock_digest, environment.torch, environment.stack,
    )  # fmt: skip
    return msgspec.structs.replace(spec, work=hashlib.sha256("\0".join(parts).encode()).hexdigest())


def read_spec(folder: Path) -> TrainingSpec:
    """The specification of the run in this folder; raises BadUsage where `train` cannot resume it."""
    try:
        spec = read_document(folder / SPEC, TrainingSpec)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadUsage(
            "train.none",
            f"{folder} is not the folder of a training on your data.",
            f"Its {SPEC} cannot be read: {reason(error)}.",
            "Give the folder that `gpu-setup train` printed.",
        ) from error
    recipe = load_recipe(spec.recipe)
    if recipe.digest != spec.recipe_digest:
        raise BadUsage(
            "train.recipe-changed",
            f"The recipe {spec.recipe} was changed since this training began.",
            "One part would be trained with the old recipe, the rest with the new one.",
            "Restore the old recipe, or start again: gpu-setup train DATA --fresh",
        )
    return spec


def find_same_work(runs: Path, work: str) -> Path | None:
    """The newest run of the same work, interrupted or finished."""
    for place in sorted(runs.glob(f"*/{SPEC}"), reverse=True):
        folder = place.parent
        try:
            spec = read_document(place, TrainingSpec)
            if spec.work == work:
                return folder
        except (OSError, msgspec.MsgspecError, BadUsage):
            continue
    return None


def refuse_taken(out: Path, fresh: bool) -> None:
    """Raise Refused for a folder that has files and is not that of an earlier training. Changes and makes nothing."""
    if (out / SPEC).exists() and not fresh:
        return
    with disk_errors(out):
        if out.exists() and any(out.iterdir()):
            raise Refused(
                "train.out-taken", f"{out} is not empty.", "gpu-setup overwrites no files there.", "Give another --out."
            )


def choose_run_folder(
    spec: TrainingSpec, job: Job, out: Path | None, fresh: bool, runs: Path, owner: Owner | None = None
) -> Path:
    """The run's folder: the user's, the one with the same work, or a new one. Raises Refused if it is in use.

    `owner`: the user that the training runs as, where that is not this process's; a new folder is made for it.
    """
    if out is None:
        mark_interrupted(runs)
        return (None if fresh else find_same_work(runs, spec.work)) or new_run_folder(runs, job.recipe, owner)
    if (out / SPEC).exists() and not fresh:
        existing = read_spec(out)
        if existing.work == spec.work:
            return out
        raise Refused(
            "train.other-work",
            f"{out} contains another training.",
            "Its data, recipe, options or software are different.",
            f"Give another --out; to resume the existing training: gpu-setup train --resume {out}",
        )
    refuse_taken(out, fresh)
    return make(out, owner)


def run_training(
    spec: TrainingSpec, job: Job, setup: TrainingSetup, folder: Path, machine: Machine, emit: Emit
) -> FinishedRun:
    """Train in the folder, or resume there; a finished run is returned as it is. A Problem says what is kept."""
    _refuse_running(folder)
    write_atomic(folder / SPEC, msgspec.json.format(msgspec.json.encode(spec)))
    if (folder / "run.json").exists() and read_run(folder).status == "done":
        emit(Event("end", STAGE, f"already done with the same data and settings (--fresh trains again): {folder}"))
    else:
        seconds = spec.hung_seconds
        hung = HangLimits() if seconds is None else HangLimits(0.0, seconds / 2, 0.0, seconds)
        again = f"gpu-setup train --resume {folder}"
        try:
            run = msgspec.structs.replace(
                run_spec(job, setup), inputs=spec.work, overrides=spec.overrides, keep=spec.keep, hung=hung
            )
            train(run, folder, WorkerContext(setup.environment, machine, emit, job.device))
        except KeyboardInterrupt as stop:
            raise _stop_error(folder, again) from stop
        except Interrupted as stop:
            raise _stop_error(folder, again, stop.what) from stop
        except Problem as problem:
            if resume_point(folder) is not None and problem.code != "train.loss-not-finite":
                problem.next = f"{problem.next} To resume from the last checkpoint: {again}"
            raise
        remove_all(folder / "adapter")
    log = read_worker_log(folder / "worker.jsonl")
    if log is None:
        raise BadUsage("run.none", f"{folder} contains no worker log.", "", "Run the same command again with --fresh.")
    return FinishedRun(job.recipe, read_run(folder), log, folder)


def _refuse_running(folder: Path) -> None:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            return
    except Timeout as error:
        raise Refused(
            "train.running",
            f"The training in {folder} is running now.",
            "Another gpu-setup process is training there.",
            f"Wait for it, or follow its log: tail -f {folder}/axolotl.log",
        ) from error


def _stop_error(folder: Path, again: str, what: str = "") -> Interrupted:
    point = resume_point(folder)
    kept = f"The checkpoint of step {point.step} is kept." if point else "No checkpoint was saved yet."
    return Interrupted("train.stopped", what or "Stopped.", kept, f"To resume: {again}")


def training_result(spec: TrainingSpec, run: FinishedRun) -> TrainingResult:
    """Everything that is known about a finished training."""
    recipe, record, log, folder, examination = run
    losses = [step.loss for step in log.steps if isinstance(step.loss, float)]
    evaluations = tuple(
        HeldOutEvaluation(each.step, each.loss if isinstance(each.loss, float) else None) for each in log.evaluations
    )
    known = [each for each in evaluations if each.held_out_loss is not None]
    best = min(known, key=lambda each: each.held_out_loss or 0.0).step if known and spec.keep.patience else None
    before = examination.before.held_out_loss if examination and examination.before else None
    after = examination.after.held_out_loss if examination and examination.after else None
    return TrainingResult(
        recipe=record.recipe,
        base_model=str(recipe.config["base_model"]),
        status="done",
        folder=str(folder),
        data_sha256=spec.data_digest,
        rows=spec.rows,
        adapter=str(folder / "adapter"),
        steps=log.steps[-1].step if log.steps else 0,
        planned_steps=log.begin.planned_steps if log.begin else None,
        seconds=record.seconds,
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        evaluations=evaluations,
        best_step=best,
        stopped_early=log.early_stop is not None,
        resumed_from=record.resumed_from,
        held_out_before=before,
        held_out_after=after,
        answers=examination.answers if examination else (),
        notes=_notes(log, best, before, after),
    )


def _notes(log: WorkerLog, best: int | None, before: float | None, after: float | None) -> tuple[str, ...]:
    notes = []
    last = log.steps[-1].step if log.steps else 0
    if log.early_stop is not None:
        notes.append(
            f"Stopped early at step {log.early_stop.step}: nothing after step {log.early_stop.best_step} was better."
        )
    if best is not None and best != last:
        notes.append(f"The adapter has the weights of step {best}, where the loss on the held-out rows was lowest.")
    if best is not None:
        notes.append(
            "The step was selected by the held-out rows, so their loss is slightly too low; judge by new questions."
        )
    if before is not None and after is not None and after >= before:
        notes.append("The loss on the held-out rows did not fall: try more rows, or another learning_rate.")
    if log.skipped_saves:
        skipped, last_skip = len(log.skipped_saves), log.skipped_saves[-1].reason
        notes.append(f"Skipped checkpoints: {skipped}, because {SKIP_REASONS.get(last_skip, last_skip)}.")
    return tuple(notes)
