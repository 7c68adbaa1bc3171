"""The harness's job from recipe to report, in stages that are each a document, so that a cut run goes on.

recipe ─▶ environment ─▶ model ─▶ train (run.json, worker.jsonl) ─▶ examine (examination.json) ─▶ Report
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from checks.catalogue import Catalogue, Stack
from checks.facts.host import Host
from harness.config import local_datasets, locate
from harness.dataset.alpaca import read_alpaca
from harness.environment import Environment, ensure
from harness.examine import DOCUMENT as EXAMINATION
from harness.examine import Examination, examine, held_out_file, read_examination
from harness.launch import Run, mark_cut_off, new_folder, read_run, train
from harness.models import ensure_model
from harness.recipe import SAMPLES, Recipe, check_keys
from harness.report import Report, build_report, summary
from harness.trainer_log import cause, last_error
from harness.worker_log import WorkerLog, read_worker_log
from harness.worker_process import WORKER, worker_environment
from machine.door import Machine
from machine.errors import BadUsage, OutsideFailed
from machine.events import Emit, Event
from machine.paths import Paths

KEYS = "axolotl-keys.json"


class Job(msgspec.Struct, frozen=True):
    """What is to be proven: a recipe, on a stack, on the recipe's data or a person's own, with changed keys.

    `device` and `conditions` come from harness/stack.py: the card to train on, and what the figures hold for.
    """

    recipe: Recipe
    stack: Stack
    data: Path | None = None
    overrides: dict[str, Any] = {}
    device: str | None = None
    conditions: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """What a job needs before it can train."""

    environment: Environment
    base_model: str
    inputs: str


def prepare(job: Job, machine: Machine, paths: Paths, emit: Emit, environment: Environment | None = None) -> Ready:
    """Data and recipe checked, environment and model there. Bad input is told before anything long begins.

    `environment`: one that is there already (an image's); without it a venv is made.
    """
    _check_data(job)
    environment = environment or ensure(job.stack, machine, paths, emit)
    check_keys(job.recipe, _known_keys(environment, machine))
    base_model = ensure_model(job.recipe, environment, machine, paths, emit)
    return Ready(environment, base_model, inputs_digest(job, environment, base_model))


def inputs_digest(job: Job, environment: Environment, base_model: str) -> str:
    """sha256 over everything that decides a run and its figures: work, software, cards, driver and kernel."""
    files = sorted(WORKER.rglob("*.py")) + sorted(SAMPLES.glob("*.json"))
    files += [job.data] if job.data else list(local_datasets(job.recipe))
    parts = [job.recipe.text, repr(job.recipe.traits), repr(sorted(job.overrides.items())), base_model]
    parts += [environment.lock_digest, environment.torch, environment.python_version, job.stack.name]
    parts += [environment.image] if environment.image else []
    parts += [job.device or "", *job.conditions]
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def fresh_run(job: Job, ready: Ready, machine: Machine, runs: Path, emit: Emit) -> Path:
    """Train in a new folder and return it; runs that were cut off before are marked as such."""
    mark_cut_off(runs)
    folder = new_folder(runs, job.recipe)
    train(
        job.recipe, ready.environment, ready.base_model, folder, machine, emit, ready.inputs, job.data, job.overrides,
        job.device,
    )  # fmt: skip
    return folder


def finished_run(ready: Ready, runs: Path) -> Path | None:
    """The newest finished run with the same inputs, if there is one."""
    for folder in sorted(runs.glob("*/"), reverse=True):
        try:
            run = read_run(folder)
        except BadUsage:
            continue
        if run.status == "done" and run.inputs == ready.inputs and (folder / "adapter").is_dir():
            return folder
    return None


def examined(job: Job, ready: Ready, folder: Path, machine: Machine, emit: Emit) -> Examination:
    """The examination of a run: read when it is there, else made."""
    try:
        return read_examination(folder / EXAMINATION)
    except (OSError, msgspec.MsgspecError):
        held_out = held_out_file(job.recipe.traits, folder, job.data is not None)
        offline = job.recipe.traits.model != "hub"
        return examine(
            ready.base_model, folder, held_out, ready.environment, machine, emit, offline=offline, device=job.device
        )


def with_held_out(job: Job) -> Job:
    """The job with a tenth of its data held out, where nothing else would be there to judge the training by."""
    if job.data is not None or job.recipe.traits.held_out != "split" or job.recipe.config.get("val_set_size"):
        return job
    return msgspec.structs.replace(job, overrides={"val_set_size": 0.1, **job.overrides})


def reported(
    job: Job, ready: Ready, folder: Path, host: Host, catalogue: Catalogue, examination: Examination | None
) -> Report:
    """The report of a finished run."""
    run, log = _finished(folder)
    return build_report(job.recipe, run, log, ready.environment, summary(host, catalogue), folder, examination)


def _finished(folder: Path) -> tuple[Run, WorkerLog]:
    log = read_worker_log(folder / "worker.jsonl")
    if log is None:
        raise BadUsage("run.none", f"{folder} holds no worker log.", "", "Run the same command again.")
    return read_run(folder), log


def _check_data(job: Job) -> None:
    """Read every Alpaca file that the job trains on, so that bad data is told at once and not after Axolotl's start."""
    if job.data is not None:
        read_alpaca(job.data)
        return
    for file, entry in local_datasets(job.recipe).items():
        if entry.get("type") == "alpaca":
            read_alpaca(file)
    for entry in job.recipe.config.get("datasets") or []:
        if entry["path"].endswith((".json", ".jsonl")) and locate(entry["path"], job.recipe) is None:
            raise BadUsage(
                "recipe.no-data",
                f"The recipe {job.recipe.name} trains on {entry['path']}, and there is no such file.",
                "It is looked for beside the recipe and among the shipped samples.",
                f"Put it beside {job.recipe.path}, or correct `datasets` there.",
            )


def _known_keys(environment: Environment, machine: Machine) -> frozenset[str]:
    """The config keys of the Axolotl in this environment, asked once and kept beside it."""
    file = environment.beside / KEYS
    try:
        return msgspec.json.decode(file.read_bytes(), type=frozenset[str])
    except (OSError, msgspec.MsgspecError):
        argv = (str(environment.python), "-m", "gpu_setup_worker.keys", "list", str(file))
        outcome = machine.run(argv, timeout=180, env=worker_environment(environment))
        if not outcome.ok:
            known = cause(outcome.stderr)
            raise OutsideFailed(
                "environment.axolotl",
                "Axolotl does not start in the training environment.",
                last_error(outcome.stderr),
                known.next if known else f"Remove {environment.folder} and run the same command again.",
            ) from None
        return msgspec.json.decode(file.read_bytes(), type=frozenset[str])


def tell_reuse(emit: Emit, folder: Path) -> None:
    emit(Event("end", "train", f"already done with the same inputs, taken from {folder}"))
