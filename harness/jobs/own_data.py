"""Before and after training on the user's own data: what to train, does it fit; then model card and merged model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.environment.worker_process import WorkerContext
from harness.jobs.default_recipe import SMALL
from harness.jobs.job_choice import JobRequest, choose_job
from harness.jobs.merge import merge
from harness.jobs.model_card import model_card_text, write_card
from harness.jobs.train import (
    TrainingResult,
    TrainingSettings,
    TrainingSpec,
    check_data,
    read_spec,
    refuse_too_large,
    training_spec,
)
from harness.memory.available import available_memory
from harness.pipeline import Job, TrainingSetup, Workplace
from harness.report.run_report import FinishedRun
from harness.training.portable_adapter import find_base_model
from machine.errors import BadUsage, Refused
from machine.events import Emit


class TrainRequest(NamedTuple):
    """The user's request: `data`, or the run to `resume`. `accept_…`: train although the check found errors."""

    data: Path | None
    resume: Path | None
    recipe: str | None
    settings: TrainingSettings
    accept_data: bool = False
    accept_memory: bool = False


def plan_training(
    request: TrainRequest, host: Host, catalogue: Catalogue, models: Path, emit: Emit
) -> tuple[TrainingSpec, Job]:
    """What to train, from the request or from the run to resume. Raises Problem where it cannot be trained."""
    if request.resume is not None:
        spec, job = _resume_spec(request.resume, host, catalogue, models, emit)
    else:
        spec, job = _new_spec(request, host, catalogue, models, emit)
    if job.stack.vendor != "cpu":
        room = available_memory(None, host, catalogue)
        refuse_too_large(job.recipe, spec.overrides, room, request.accept_memory, emit)
    return spec, job


def _resume_spec(run: Path, host: Host, catalogue: Catalogue, models: Path, emit: Emit) -> tuple[TrainingSpec, Job]:
    before = read_spec(run)
    data = Path(before.data)
    job = choose_job(host, catalogue, JobRequest(before.recipe, data), models)
    digest, _ = check_data(data, True, emit)
    if digest != before.data_digest:
        raise BadUsage(
            "train.data-changed",
            f"{data} was changed since the training in {run} began.",
            "One part would be trained on the old rows, the rest on the new ones.",
            f"Restore the old file, or start again: gpu-setup train {data}",
        )
    return before, job


def _new_spec(
    request: TrainRequest, host: Host, catalogue: Catalogue, models: Path, emit: Emit
) -> tuple[TrainingSpec, Job]:
    assert request.data is not None
    job = choose_job(host, catalogue, JobRequest(request.recipe, request.data), models)
    if job.recipe.traits.throughput_only:
        raise Refused(
            "train.throughput-only",
            f"The recipe {job.recipe.name} has randomly initialised weights: it measures speed, and learns nothing.",
            "",
            f"Use a recipe with pretrained weights, for example --recipe {SMALL}.",
        )
    digest, rows = check_data(request.data, request.accept_data, emit)
    return training_spec(job, request.settings, request.recipe or job.recipe.name, digest, rows), job


def write_adapter_card(result: TrainingResult, run: FinishedRun, setup: TrainingSetup, tool_version: str) -> None:
    """Write the model card into the adapter's folder."""
    base = find_base_model(run.recipe, setup.base_model)
    write_card(run.folder / "adapter", model_card_text(run, result, base, tool_version, merged=False))


def with_merged(
    result: TrainingResult, run: FinishedRun, setup: TrainingSetup, place: Workplace, tool_version: str
) -> TrainingResult:
    """The result with the merged model's folder, which is made unless it exists."""
    target = run.folder / "merged"
    if not target.exists():
        worker = WorkerContext(setup.environment, place.machine, place.emit, run.record.device)
        merge(run.record, run.folder, target, "bfloat16", worker)
        base = find_base_model(run.recipe, setup.base_model)
        write_card(target, model_card_text(run, result, base, tool_version, merged=True))
    return msgspec.structs.replace(result, merged=str(target))
