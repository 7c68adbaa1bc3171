"""A benchmark: is the card in use? → is NF4 arithmetic correct? → (soak) → launches → documents.

    launch:  ceiling before ─▶ [axolotl train + sensors] ─▶ ceiling after

Each launch is a separate process with its own seed, so that the interval over launches includes what changes from
process to process: memory layout, clocks, the order of the data. harness/measure/run_context.py reads the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from checks.facts.host import Host
from harness.atomic_files import write_atomic
from harness.environment.worker_process import WorkerContext
from harness.jobs.soak import soak
from harness.measure import run_context
from harness.measure.gpu_processes import read_card_use, refuse_foreign
from harness.measure.matmul_ceiling import Products, measure_ceiling, products_of, products_seen
from harness.measure.nf4 import check_nf4
from harness.measure.run_context import MeasuringMethod, Mode, Soak
from harness.measure.telemetry import record_telemetry
from harness.measure.workload import (
    EXACT,
    RECIPE,
    Workload,
    WorkloadKind,
    ensure_documents,
    exact_workload,
    overrides_for,
)
from harness.pipeline import Job, TrainingSetup, Workplace, inputs_digest, run_spec
from harness.recipe.axolotl_config import run_config
from harness.training.launch import mark_interrupted, new_run_folder, train
from machine.errors import Interrupted, Problem
from machine.events import Emit, Event
from machine.local import Machine

STAGE = "bench"
UP_BUDGET = 90.0
QUICK_BUDGET = 120.0
SHORT_CEILING, LONG_CEILING = 4.0, 30.0
LEAST_LAUNCHES = 3
# tokens of a launch by device: some minutes each, and on the fastest card more than an energy counter's minute
QUICK_TOKENS: Mapping[str, int] = {"gpu": 1 << 17, "cpu": 1 << 14}
RECORD_TOKENS: Mapping[str, int] = {"gpu": 1 << 19, "cpu": 1 << 15}
FEWEST_RECORD_STEPS = 8


class BenchSettings(msgspec.Struct, frozen=True):
    """`tokens`: per launch, for exact documents; `budget`: measured seconds after which a launch ends early."""

    mode: Mode
    workload: WorkloadKind
    tokens: int
    budget: float | None
    launches: int
    ceiling_seconds: float
    soak: bool


def bench_settings(
    mode: Mode, gpu: bool, workload: WorkloadKind | None = None, steps: int | None = None, launches: int = 0
) -> BenchSettings:
    """The settings of each mode. With a given number of steps there is no time limit."""
    kind = "gpu" if gpu else "cpu"
    if mode == "record":
        tokens = RECORD_TOKENS[kind]
        return BenchSettings(mode, workload or EXACT, tokens, None, max(launches, LEAST_LAUNCHES), LONG_CEILING, True)
    budget = (QUICK_BUDGET if mode == "quick" else UP_BUDGET) if steps is None else None
    usual = EXACT if mode == "quick" else RECIPE
    return BenchSettings(mode, workload or usual, QUICK_TOKENS[kind], budget, max(launches, 1), SHORT_CEILING, False)


def describe_settings(chosen: BenchSettings, soak: Soak | None) -> str:
    """How the figures were measured, in a few words."""
    launches = f"{chosen.launches} launches" if chosen.launches > 1 else "one launch"
    if soak is None:
        return f"{launches}, not soaked"
    if soak.settled is None:
        return f"{launches}, temperature not known: no sensor"
    if soak.settled:
        return f"{launches}, soaked"
    return f"{launches}, temperature not stable after {soak.seconds / 60:.0f} minutes"


class BenchLaunch(NamedTuple):
    """A finished launch: the job as it was run, and its folder."""

    job: Job
    setup: TrainingSetup
    folder: Path


def bench(
    job: Job, setup: TrainingSetup, chosen: BenchSettings, host: Host, place: Workplace
) -> tuple[BenchLaunch, ...]:
    """Every launch of a benchmark, in order."""
    machine, emit = place.machine, place.emit
    job = with_short_warmup(job) if chosen.mode == "quick" else job
    check_preconditions(job, setup, host, machine, emit)
    soaked = soak(job, setup, host, machine, place.paths, emit) if chosen.soak else None
    first_seed = int(job.overrides.get("seed", job.recipe.config.get("seed") or 42))
    done = []
    for number in range(chosen.launches):
        seeded = {"seed": first_seed + number} if chosen.launches > 1 else {}
        workload, changes = prepare_launch(job, setup, chosen, first_seed + number, place)
        launch = msgspec.structs.replace(job, overrides={**changes, **job.overrides, **seeded}, budget=chosen.budget)
        if chosen.launches > 1:
            emit(Event("note", STAGE, f"Launch {number + 1} of {chosen.launches}, seed {first_seed + number}"))
        method = MeasuringMethod(
            chosen.mode, describe_settings(chosen, soaked), workload, chosen.budget, chosen.ceiling_seconds, soaked
        )
        own = msgspec.structs.replace(setup, inputs=inputs_digest(launch, setup.environment, setup.base_model))
        done.append(BenchLaunch(launch, own, run_launch(launch, own, method, host, place)))
    return tuple(done)


def with_short_warmup(job: Job) -> Job:
    """A quick benchmark has no time for many warm-up steps: one, and any more that the measurement finds."""
    traits = msgspec.structs.replace(job.recipe.traits, warmup_steps=1)
    return msgspec.structs.replace(job, recipe=msgspec.structs.replace(job.recipe, traits=traits))


def prepare_launch(
    job: Job, setup: TrainingSetup, chosen: BenchSettings, seed: int, place: Workplace
) -> tuple[Workload, dict[str, Any]]:
    """The workload of a launch and its changes to the recipe's config; its documents are made where needed."""
    if chosen.workload != EXACT:
        workload = Workload(chosen.workload)
        return workload, overrides_for(workload, None)
    workload = exact_workload(job.recipe, job.overrides, chosen.tokens)
    if chosen.mode == "record" and "max_steps" not in job.overrides:
        workload = with_min_steps(workload, job.recipe.traits.warmup_steps + FEWEST_RECORD_STEPS)
    # tokenising needs no card
    worker = WorkerContext(setup.environment, place.machine, place.emit)
    data = ensure_documents(workload, setup.base_model, seed, worker, place.paths.cache)
    return workload, overrides_for(workload, data)


def with_min_steps(workload: Workload, steps: int) -> Workload:
    """The workload with at least so many steps: long steps need more tokens than usual."""
    if workload.steps is None or workload.tokens_per_step is None or workload.steps >= steps:
        return workload
    return msgspec.structs.replace(workload, steps=steps, token_budget=steps * workload.tokens_per_step)


def check_preconditions(job: Job, setup: TrainingSetup, host: Host, machine: Machine, emit: Emit) -> None:
    """Raises Refused for a card that other programs use, BadAnswer for wrong 4-bit arithmetic: no speed would count."""
    vendor = job.stack.vendor
    refuse_foreign(read_card_use(vendor, run_context.slot_of(host, vendor, job.device), machine))
    if job.recipe.config.get("load_in_4bit"):
        check_nf4(WorkerContext(setup.environment, machine, emit, job.device), job.conditions)


def run_launch(job: Job, setup: TrainingSetup, method: MeasuringMethod, host: Host, place: Workplace) -> Path:
    """One launch, with the ceiling before and after, and the sensors during it. Returns its folder."""
    vendor = job.stack.vendor
    machine, runs = place.machine, place.paths.runs
    which = run_context.slot_of(host, vendor, job.device)
    use = read_card_use(vendor, which, machine)
    refuse_foreign(use)
    mark_interrupted(runs)
    folder = new_run_folder(runs, job.recipe, place.paths.owner)
    write_atomic(folder / run_context.CARD_USE, msgspec.json.encode(use))
    write_atomic(folder / run_context.METHOD, msgspec.json.encode(method))
    config = run_config(job.recipe, setup.base_model, folder, job.data, job.overrides)
    products = products_of(config, setup.base_model)
    seconds, worker = method.ceiling_seconds, WorkerContext(setup.environment, machine, place.emit, job.device)
    _ceiling(products, seconds, folder / run_context.BEFORE, worker)
    with record_telemetry(machine, vendor, which, folder / run_context.TELEMETRY):
        log = train(run_spec(job, setup), folder, worker)
    # a model whose shapes are in no table: they are known once it was loaded
    products = products or products_seen(config, log.start)
    _ceiling(products, seconds, folder / run_context.AFTER, worker)
    return folder


def _ceiling(products: Products | None, seconds: float | None, out: Path, worker: WorkerContext) -> None:
    """Measure the ceiling. Without it the run is still valid: a failure is a warning, and the figure is null."""
    if products is None or not seconds:
        return
    try:
        measure_ceiling(products, seconds, out, worker)
    except Interrupted:
        raise
    except Problem as problem:
        worker.emit(Event("warning", STAGE, f"No matmul ceiling: {problem.what} {problem.why}".rstrip()))
