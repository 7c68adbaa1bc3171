"""The harness's job from recipe to report. Each stage ends in a document, so that an interrupted job can resume.

recipe ─▶ environment ─▶ model ─▶ train (run.json, worker.jsonl) ─▶ examine (examination.json) ─▶ Report
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from checks.catalogue import Catalogue, Stack
from checks.facts.host import Host
from harness.dataset.alpaca import read_alpaca
from harness.environment.base_model import ensure_model
from harness.environment.build import Environment, ensure_environment
from harness.environment.torch_build import read_torch_build, require_right_build
from harness.environment.worker_process import WORKER, WorkerContext, worker_environment
from harness.measure.gpu_processes import desktop_note
from harness.measure.run_context import read_run_context, trained_card
from harness.process.diagnosis import known_cause, last_error
from harness.process.worker_log import read_worker_log
from harness.recipe.axolotl_config import find_dataset, local_datasets
from harness.recipe.loader import SAMPLES, LossBand, Recipe, check_keys
from harness.report.run_report import FinishedRun, Report, build_report, summarise_host
from harness.training.examination import DOCUMENT as EXAMINATION
from harness.training.examination import Examination, ExaminationSettings, examine, held_out_file, read_examination
from harness.training.launch import RunSpec, mark_interrupted, new_run_folder, read_run, train
from machine.errors import BadUsage, OutsideFailed
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths

KEYS = "axolotl-keys.json"


class Job(msgspec.Struct, frozen=True):
    """What to train: a recipe on a stack, with the recipe's data or the user's own, and with changed keys.

    `device` and `conditions` come from environment/stack_choice.py: the card to train on, and the cards, driver and
    kernel that the figures are valid for. `budget`: measured seconds after which the training ends early (for a
    benchmark; None: it runs to its last step).
    """

    recipe: Recipe
    stack: Stack
    data: Path | None = None
    overrides: dict[str, Any] = {}
    device: str | None = None
    conditions: tuple[str, ...] = ()
    budget: float | None = None


class TrainingSetup(msgspec.Struct, frozen=True):
    """What a job trains with: its environment, its base model, and `inputs`, the digest of all that decides the run."""

    environment: Environment
    base_model: str
    inputs: str


class Workplace(NamedTuple):
    """`machine` starts the job's programs (this machine, or a container); `environment` None: a venv is made."""

    machine: Machine
    paths: Paths
    emit: Emit
    environment: Environment | None = None


def prepare(
    job: Job, machine: Machine, paths: Paths, emit: Emit, environment: Environment | None = None
) -> TrainingSetup:
    """Check data and recipe, then provide environment and model. Bad input is reported before anything long starts.

    `environment`: an existing one (of an image); without it a venv is made.
    """
    _check_data(job)
    _check_code(job)
    if environment is None:
        environment = ensure_environment(job.stack, machine, paths, emit)
    else:
        build = read_torch_build(environment.python, machine)
        build = require_right_build(job.stack, build, Path(environment.folder))
        environment = msgspec.structs.replace(environment, torch_cuda=build.cuda, torch_hip=build.hip)
    check_keys(job.recipe, _known_keys(environment, machine))
    base_model = ensure_model(job.recipe, environment, machine, paths, emit)
    return TrainingSetup(environment, base_model, inputs_digest(job, environment, base_model))


def inputs_digest(job: Job, environment: Environment, base_model: str) -> str:
    """sha256 over everything that decides a run and its figures: work, software, cards, driver and kernel."""
    files = sorted(WORKER.rglob("*.py")) + sorted(SAMPLES.glob("*.json"))
    files += [job.data] if job.data else list(local_datasets(job.recipe))
    parts = [job.recipe.text, repr(job.recipe.traits), repr(sorted(job.overrides.items())), base_model]
    parts += [environment.lock_digest, environment.torch, environment.python_version, job.stack.name]
    parts += [environment.image] if environment.image else []
    parts += [job.device or "", *job.conditions]
    # a run with a time limit is not the same as a complete one
    parts += [f"budget {job.budget}"] if job.budget is not None else []
    digest = hashlib.sha256("\0".join(parts).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def run_spec(job: Job, setup: TrainingSetup) -> RunSpec:
    return RunSpec(
        recipe_for_verdict(job), setup.base_model, setup.inputs, job.data, job.overrides, budget=job.budget
    )  # fmt: skip


def train_in_new_folder(job: Job, setup: TrainingSetup, place: Workplace) -> Path:
    """Train in a new folder and return it; earlier runs that were killed are marked as interrupted."""
    runs = place.paths.runs
    mark_interrupted(runs)
    folder = new_run_folder(runs, job.recipe, place.paths.owner)
    train(run_spec(job, setup), folder, WorkerContext(setup.environment, place.machine, place.emit, job.device))
    return folder


def find_finished_run(setup: TrainingSetup, runs: Path) -> Path | None:
    """The newest finished run with the same inputs, if there is one."""
    for folder in sorted(runs.glob("*/"), reverse=True):
        try:
            run = read_run(folder)
        except BadUsage:
            continue
        if run.status == "done" and run.inputs == setup.inputs and (folder / "adapter").is_dir():
            return folder
    return None


def recipe_for_verdict(job: Job) -> Recipe:
    """The recipe with the limits that the job is judged by: for data other than its own, no limits were measured."""
    if job.data is None and "datasets" not in job.overrides:
        return job.recipe
    return msgspec.structs.replace(job.recipe, traits=job.recipe.traits.on_other_data())


def count_rows(job: Job) -> int | None:
    """How many rows the job's data hold; None where they are on a hub or not in Alpaca files."""
    if "datasets" in job.overrides:
        return None
    if job.data is not None:
        return len(read_alpaca(job.data))
    return count_recipe_rows(job.recipe)


def count_recipe_rows(recipe: Recipe) -> int | None:
    """How many rows the recipe's own data hold; None where they are on a hub or not in Alpaca files."""
    files = [file for file, entry in local_datasets(recipe).items() if entry.get("type") == "alpaca"]
    if not files or len(files) < len(recipe.config.get("datasets") or []):
        return None
    return sum(len(read_alpaca(file)) for file in files)


def loss_band(job: Job) -> LossBand | None:
    """The range that the final loss must be in: known only for the recipe as it is written, at any seed."""
    # another attention kernel computes the same
    as_written = job.data is None and not set(job.overrides) - {"seed", "sdpa_varlen"}
    return job.recipe.traits.loss_band if as_written else None


def examine_run(job: Job, setup: TrainingSetup, folder: Path, machine: Machine, emit: Emit) -> Examination | None:
    """The examination of a run: read where it exists, else made. None where nothing can be learnt."""
    if job.recipe.traits.throughput_only:
        return None
    try:
        return read_examination(folder / EXAMINATION)
    except (OSError, msgspec.MsgspecError):
        held_out = held_out_file(job.recipe.traits, folder, job.data is not None)
        wanted = ExaminationSettings(held_out, offline=job.recipe.traits.model != "hub")
        worker = WorkerContext(setup.environment, machine, emit, job.device)
        return examine(setup.base_model, folder, wanted, worker)


def with_held_out(job: Job) -> Job:
    """The job with a tenth of its data held out, where otherwise no data would be left to judge the training by."""
    traits = job.recipe.traits
    if job.data is not None or traits.held_out != "split" or traits.throughput_only:
        return job
    if job.recipe.config.get("val_set_size"):
        return job
    return msgspec.structs.replace(job, overrides={"val_set_size": 0.1, **job.overrides})


def report_run(
    job: Job, setup: TrainingSetup, folder: Path, host: Host, catalogue: Catalogue, examination: Examination | None
) -> Report:
    """The report of a finished run, with what was measured before, during and after it."""
    log = read_worker_log(folder / "worker.jsonl")
    if log is None:
        raise BadUsage("run.none", f"{folder} contains no worker log.", "", "Run the same command again.")
    run = FinishedRun(recipe_for_verdict(job), read_run(folder), log, folder, examination)
    card = trained_card(host, catalogue, job.stack.vendor, job.device)
    around = read_run_context(folder, card)
    report = build_report(
        run, setup.environment, summarise_host(host, catalogue), around, count_rows(job), loss_band(job)
    )
    shared = desktop_note(around.use, host)
    return msgspec.structs.replace(report, notes=(*report.notes, shared)) if shared else report


def _check_code(job: Job) -> None:
    """Refuse a recipe that would let code from the model's repository run."""
    if {**job.recipe.config, **job.overrides}.get("trust_remote_code"):
        raise BadUsage(
            "recipe.remote-code",
            f"The recipe {job.recipe.name} sets trust_remote_code.",
            "Then anybody who can change the model's repository can run any program on this machine.",
            f"Remove it from {job.recipe.path}; models that transformers supports by itself do not need it.",
        )


def _check_data(job: Job) -> None:
    """Read every Alpaca file that the job trains on: bad data is reported at once, not after Axolotl's start."""
    if job.data is not None:
        read_alpaca(job.data)
        return
    for file, entry in local_datasets(job.recipe).items():
        if entry.get("type") == "alpaca":
            read_alpaca(file)
    for entry in job.recipe.config.get("datasets") or []:
        if entry["path"].endswith((".json", ".jsonl")) and find_dataset(entry["path"], job.recipe) is None:
            raise BadUsage(
                "recipe.no-data",
                f"The recipe {job.recipe.name} trains on {entry['path']}, but this file does not exist.",
                "gpu-setup searches the recipe's folder and the shipped samples.",
                f"Put the file into the folder of {job.recipe.path}, or correct `datasets` there.",
            )


def _known_keys(environment: Environment, machine: Machine) -> frozenset[str]:
    """The config keys of the Axolotl in this environment, read once and kept in the environment's folder."""
    file = environment.notes_folder / KEYS
    try:
        return msgspec.json.decode(file.read_bytes(), type=frozenset[str])
    except (OSError, msgspec.MsgspecError):
        argv = (str(environment.python), "-m", "gpu_setup_worker.keys", "list", str(file))
        outcome = machine.run(argv, timeout=180, env=worker_environment(environment))
        if not outcome.ok:
            known = known_cause(outcome.stderr)
            raise OutsideFailed(
                "environment.axolotl",
                "Axolotl does not start in the training environment.",
                last_error(outcome.stderr),
                known.next if known else f"Remove {environment.folder} and run the same command again.",
            ) from None
        return msgspec.json.decode(file.read_bytes(), type=frozenset[str])


def report_reuse(emit: Emit, folder: Path) -> None:
    emit(Event("end", "train", f"already done with the same inputs; using the run in {folder}"))
