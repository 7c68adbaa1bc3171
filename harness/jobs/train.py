"""Training on a person's own data: checked first, kept so that it can be gone on with, and told what came of it.

data ─▶ check ─▶ (fit) ─▶ environment, model ─▶ train with checkpoints ─▶ examine ─▶ model card ─▶ Trained
          what was asked stands in train.json of the run's folder, so that --resume needs nothing else
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import write_atomic
from harness.dataset.alpaca import read_alpaca
from harness.dataset.check import Wanted, check
from harness.memory.available import AvailableMemory
from harness.memory.fit import FitOptions, predict_fit
from harness.pipeline import Job, TrainingSetup, count_recipe_rows, recipe_for_verdict
from harness.process.worker_log import WorkerLog, read_worker_log
from harness.recipe.loader import Recipe, load_recipe
from harness.training.background import BackgroundUnit
from harness.training.checkpoints import remove_all
from harness.training.examination import AnswerPair, Examination
from harness.training.launch import (
    LOCK,
    CheckpointPolicy,
    RunRecord,
    mark_interrupted,
    new_run_folder,
    read_run,
    resume_point,
    train,
)
from harness.training.monitor import HangLimits
from machine.errors import BadAnswer, BadUsage, Interrupted, Problem, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import make

STAGE = "train"
REQUEST = "train.json"
# evaluations and checkpoints by step: so many a pass over the data, and so many in all; the clock adds checkpoints
A_PASS, AT_MOST = 5, 10
# a held-out row and one to train on
FEWEST_ROWS = 2


class TrainingRequest(msgspec.Struct, frozen=True):
    """What a person asked for: all that `--resume` needs. `recipe` is a name or a path; `data_digest` its sha256."""

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
    step: int
    held_out_loss: float | None


class TrainingResult(msgspec.Struct, frozen=True):
    """The answer of `train`. `status` is done, or started for a training in the background, of which only what was
    asked is known. `best_step`: the step whose weights the adapter has, where the held-out loss chose them.

    `resumed_from`: the steps that it was gone on from; `data_sha256` and `rows` say what it was trained on.
    """

    recipe: str
    base_model: str
    status: str
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
    """The file's sha256 and its rows; raises BadAnswer for data that must be mended first, unless they are accepted."""
    rows = read_alpaca(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    found = check(file, None, Wanted(names=False), emit)
    errors = [finding for finding in found.findings if finding.severity == "error"]
    warnings = sum(1 for finding in found.findings if finding.severity == "warning")
    if errors and not accept:
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise BadAnswer(
            "data.errors",
            f"{file} should be mended before it is trained on: {errors[0].summary}{more}.",
            errors[0].why,
            f"gpu-setup data check {file} shows everything, gpu-setup data clean {file} mends much of it; "
            "--accept-data trains on it as it is.",
        )
    if len(rows) < FEWEST_ROWS:
        raise BadAnswer(
            "data.too-few",
            f"{file} holds {len(rows)} row.",
            "One is held out, so at least two are needed; about 100 visibly change a model.",
            "Add rows and run the same command again.",
        )
    said = [f"{len(errors)} errors accepted"] if errors else []
    said += [f"{warnings} kinds of warnings (gpu-setup data check {file})"] if warnings else []
    emit(Event("end", "check", ", ".join([f"{len(rows):,} rows", *said])))
    return digest, len(rows)


def refuse_too_large(
    recipe: Recipe, overrides: dict[str, Any], room: AvailableMemory | None, accept: bool, emit: Emit
) -> None:
    """Raises BadAnswer for what the card's free memory does not hold by prediction; what is not known is told."""
    config = {key: value for key, value in {**recipe.config, **overrides}.items() if value is not None}
    try:
        told = predict_fit(msgspec.structs.replace(recipe, config=config), FitOptions(), room)
    except BadUsage as unknown:
        emit(Event("note", "fit", f"Whether it fits is not known: {unknown.what}"))
        return
    if told.fits is None or told.card_bytes is None:
        return
    words = f"{told.total_bytes / 1e9:.1f} GB predicted, {told.card_bytes / 1e9:.1f} GB may be taken on {told.card}"
    if told.fits or accept:
        emit(Event("end" if told.fits else "warning", "fit", words))
        return
    largest = told.largest
    seq = f"sequence_len {largest.seq:,}" if largest and largest.seq else "another model"
    raise BadAnswer(
        "train.does-not-fit",
        f"{recipe.name} does not fit: {words}.",
        f"{told.card_source}. The prediction is explained by: gpu-setup fit --recipe {recipe.name}.",
        f"Close what else uses the card, or take {seq} or a smaller micro_batch_size; --accept-memory tries it anyway.",
    )


def training_overrides(recipe: Recipe, wish: TrainingSettings) -> dict[str, Any]:
    """What a training on other data changes in a recipe: how long, and when it is evaluated and saved.

    A recipe whose max_steps was counted for its own data makes as many passes over a person's; evaluations and
    checkpoints by step lie together, so that the weights with the lowest held-out loss can be kept.
    """
    changes: dict[str, Any] = {}
    epochs = wish.epochs or recipe.config.get("num_epochs") or 1
    if wish.steps is not None:
        changes["max_steps"] = wish.steps
    elif wish.epochs is not None or recipe.config.get("max_steps"):
        epochs = wish.epochs or recipe_passes(recipe) or epochs
        changes |= {"num_epochs": epochs, "max_steps": None}
    share = 1 / min(AT_MOST, max(1, round(A_PASS * epochs)))
    # a share of all steps, which only the trainer knows; one of 1 would be taken for every step
    every = wish.save_steps or (share if share < 1 else 0.5)
    changes |= {
        "save_steps": every, "eval_steps": every, "save_total_limit": 2, "load_best_model_at_end": wish.patience > 0,
        "saves_per_epoch": None, "evals_per_epoch": None, "save_strategy": None, "eval_strategy": None,
        "early_stopping_patience": None, "resume_from_checkpoint": None,
    }  # fmt: skip
    return changes | ({"seed": wish.seed} if wish.seed is not None else {})


def recipe_passes(recipe: Recipe) -> int | None:
    """How often the recipe goes over its own data in its max_steps, in whole passes; None where that is not known."""
    steps: int | None = recipe.config.get("max_steps")
    rows = count_recipe_rows(recipe) if steps else None
    if not steps or not rows:
        return None
    a_step: int = (recipe.config.get("micro_batch_size") or 1) * (recipe.config.get("gradient_accumulation_steps") or 1)
    return max(1, round(steps * a_step / rows))


def training_request(job: Job, wish: TrainingSettings, recipe_name: str, digest: str, rows: int) -> TrainingRequest:
    assert job.data is not None
    return TrainingRequest(
        recipe=recipe_name if not Path(recipe_name).is_file() else str(Path(recipe_name).absolute()),
        recipe_digest=job.recipe.digest,
        data=str(job.data),
        data_digest=digest,
        rows=rows,
        overrides={**job.overrides, **training_overrides(job.recipe, wish)},
        keep=CheckpointPolicy(wish.save_seconds, wish.patience),
        hung_seconds=wish.hung_seconds,
    )


def with_work_digest(asked: TrainingRequest, ready: TrainingSetup) -> TrainingRequest:
    """With the digest of all that decides the weights; drivers and kernels may change between two sessions."""
    environment = ready.environment
    parts = (
        asked.recipe_digest, asked.data_digest, repr(sorted(asked.overrides.items())), repr(asked.keep.patience),
        ready.base_model, environment.lock_digest, environment.torch, environment.stack,
    )  # fmt: skip
    return msgspec.structs.replace(asked, work=hashlib.sha256("\0".join(parts).encode()).hexdigest())


def read_request(folder: Path) -> TrainingRequest:
    """What the run in this folder was asked for; raises BadUsage where it is none of `train`, or cannot be the same."""
    try:
        asked = msgspec.json.decode((folder / REQUEST).read_bytes(), type=TrainingRequest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadUsage(
            "train.none",
            f"{folder} is not the folder of a training on your data.",
            f"Its {REQUEST} cannot be read: {error}.",
            "Give the folder that gpu-setup train has named.",
        ) from error
    recipe = load_recipe(asked.recipe)
    if recipe.digest != asked.recipe_digest:
        raise BadUsage(
            "train.recipe-changed",
            f"The recipe {asked.recipe} was changed since this training began.",
            "Half of it would be trained by one recipe, half by another.",
            "Bring back the old recipe, or start anew: gpu-setup train DATA --fresh",
        )
    return asked


def find_same_work(runs: Path, work: str) -> Path | None:
    """The newest run of the same work: cut off, or finished."""
    for place in sorted(runs.glob(f"*/{REQUEST}"), reverse=True):
        folder = place.parent
        try:
            asked = msgspec.json.decode(place.read_bytes(), type=TrainingRequest)
            if asked.work == work:
                return folder
        except (OSError, msgspec.MsgspecError, BadUsage):
            continue
    return None


def choose_run_folder(asked: TrainingRequest, job: Job, out: Path | None, fresh: bool, runs: Path) -> Path:
    """The run's folder: the person's, the one that has the same work, or a new one. Raises Refused when taken."""
    if out is None:
        mark_interrupted(runs)
        return (None if fresh else find_same_work(runs, asked.work)) or new_run_folder(runs, job.recipe)
    if (out / REQUEST).exists() and not fresh:
        there = msgspec.json.decode((out / REQUEST).read_bytes(), type=TrainingRequest)
        if there.work == asked.work:
            return out
        raise Refused(
            "train.other-work",
            f"In {out} lies another training.",
            "Its data, recipe, options or software are not the same.",
            "Give another --out; to go on with that one: gpu-setup train --resume " + str(out),
        )
    if out.exists() and any(out.iterdir()):
        raise Refused("train.out-taken", f"{out} is not empty.", "Nothing is written over.", "Give another --out.")
    return make(out)


def run_training(
    asked: TrainingRequest, job: Job, ready: TrainingSetup, folder: Path, machine: Machine, emit: Emit
) -> tuple[RunRecord, WorkerLog]:
    """Train in the folder, or go on there; a run that is done is returned as it is. A Problem says what is kept."""
    _refuse_running(folder)
    write_atomic(folder / REQUEST, msgspec.json.format(msgspec.json.encode(asked)))
    if (folder / "run.json").exists() and read_run(folder).status == "done":
        emit(Event("end", STAGE, f"already done with the same data and settings (--fresh trains anew): {folder}"))
    else:
        seconds = asked.hung_seconds
        hung = HangLimits() if seconds is None else HangLimits(0.0, seconds / 2, 0.0, seconds)
        again = f"gpu-setup train --resume {folder}"
        try:
            train(
                recipe_for_verdict(job), ready.environment, ready.base_model, folder, machine, emit, asked.work,
                job.data, asked.overrides, job.device, asked.keep, hung,
            )  # fmt: skip
        except KeyboardInterrupt as stop:
            raise _stop_error(folder, again) from stop
        except Interrupted as stop:
            raise _stop_error(folder, again, stop.what) from stop
        except Problem as problem:
            if resume_point(folder) is not None and problem.code != "train.loss-not-finite":
                problem.next = f"{problem.next} To go on from the last checkpoint: {again}"
            raise
        remove_all(folder / "adapter")
    log = read_worker_log(folder / "worker.jsonl")
    if log is None:
        raise BadUsage("run.none", f"{folder} holds no worker log.", "", "Run the same command again with --fresh.")
    return read_run(folder), log


def _refuse_running(folder: Path) -> None:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            return
    except Timeout as error:
        raise Refused(
            "train.running",
            f"The training in {folder} is running now.",
            "Another gpu-setup holds it.",
            f"Wait for it, or look on: tail -f {folder}/axolotl.log",
        ) from error


def _stop_error(folder: Path, again: str, what: str = "") -> Interrupted:
    point = resume_point(folder)
    kept = f"The checkpoint of step {point.step} is kept." if point else "No checkpoint was made yet."
    return Interrupted("train.stopped", what or "Stopped.", kept, f"To go on: {again}")


def training_result(
    asked: TrainingRequest,
    run: RunRecord,
    log: WorkerLog,
    base_model: str,
    folder: Path,
    examination: Examination | None,
) -> TrainingResult:
    """Everything that is known of a finished training."""
    losses = [step.loss for step in log.steps if isinstance(step.loss, float)]
    evaluations = tuple(
        HeldOutEvaluation(each.step, each.loss if isinstance(each.loss, float) else None) for each in log.evaluations
    )
    known = [each for each in evaluations if each.held_out_loss is not None]
    best = min(known, key=lambda each: each.held_out_loss or 0.0).step if known and asked.keep.patience else None
    before = examination.before.held_out_loss if examination and examination.before else None
    after = examination.after.held_out_loss if examination and examination.after else None
    return TrainingResult(
        recipe=run.recipe,
        base_model=base_model,
        status=run.status,
        folder=str(folder),
        data_sha256=asked.data_digest,
        rows=asked.rows,
        adapter=str(folder / "adapter"),
        steps=log.steps[-1].step if log.steps else 0,
        planned_steps=log.begin.planned_steps if log.begin else None,
        seconds=run.seconds,
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        evaluations=evaluations,
        best_step=best,
        stopped_early=log.early_stop is not None,
        resumed_from=run.resumed_from,
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
        notes.append(f"The adapter has the weights of step {best}: there the loss on the held-out rows was lowest.")
    if best is not None:
        notes.append("The held-out rows chose the step, so their loss flatters a little; judge by new questions.")
    if before is not None and after is not None and after >= before:
        notes.append("The loss on the held-out rows did not fall: more rows, or another learning_rate.")
    if log.skipped_saves:
        notes.append(f"{len(log.skipped_saves)} checkpoints were left out: {log.skipped_saves[-1].reason}.")
    return tuple(notes)
