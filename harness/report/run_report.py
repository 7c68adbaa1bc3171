"""The report of a run, or of a benchmark's launches: what was run, on what, how fast, and whether it learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules import cards
from harness.atomic_files import read_document, write_atomic
from harness.environment.build import Environment
from harness.measure.metrics import Measurements, computed_tflops, losses, measure, merge_launches
from harness.measure.plausibility import possible_tflops
from harness.measure.run_context import MeasuringMethod, RunContext
from harness.measure.smoke_criteria import Smoke, judge_smoke
from harness.measure.verdict import (
    SpeedVerdict,
    Verdict,
    card_notes,
    card_was_shared,
    interval_too_wide,
    judge_smoke_speed,
    judge_speed,
    kernel_words,
    over_ceiling,
)
from harness.process.worker_log import StartEvent, WorkerLog
from harness.recipe.loader import LossBand, Recipe
from harness.report.collect_work import HostConditions, conditions_of, config_of, read_data_digest, read_shapes, work_of
from harness.report.comparison_key import Conditions, Work, digest_of
from harness.training.examination import AnswerPair, Examination
from harness.training.launch import RunRecord
from machine.errors import BadUsage, reason

DOCUMENT = "report.json"


class FinishedRun(NamedTuple):
    """A run that ended well, and what is known of it; `recipe` has the limits that the run is judged by."""

    recipe: Recipe
    record: RunRecord
    log: WorkerLog
    folder: Path
    examination: Examination | None = None


class RecipeUsed(msgspec.Struct, frozen=True):
    name: str
    title: str
    digest: str
    base_model: str
    warmup_steps: int = 0
    sequence_len: int | None = None
    micro_batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    sample_packing: bool | None = None
    lora_r: int | None = None
    optimizer: str | None = None
    seed: int | None = None


class RowCounts(msgspec.Struct, frozen=True):
    """`given`: rows in the data; `trained` and `held_out`: rows that Axolotl used in an epoch; `dropped`: the rest.

    None: not known.
    """

    given: int | None
    trained: int | None
    held_out: int | None
    dropped: int | None


class HostSummary(msgspec.Struct, frozen=True):
    """The host's properties that shape the figures; no host name, user name or serial number."""

    os: str | None
    kernel: str | None
    cpu: str | None
    cores: int | None
    memory_bytes: int | None
    cards: tuple[str, ...]
    driver: str | None
    stub: bool = False
    power_limit_watts: float | None = None


class EnvironmentUsed(msgspec.Struct, frozen=True):
    stack: str
    lock_digest: str
    python: str
    torch: str
    torch_from: str
    torch_verified: str
    worker: StartEvent | None = None


class LaunchFigures(msgspec.Struct, frozen=True):
    """One process launch of a benchmark. Figures are medians; None: not known.

    `cut_by_budget`: the time budget ended it before the last step.
    """

    folder: str
    seed: int | None
    seconds: float | None
    steps: int
    warmup_steps: int | None
    processed: float | None
    non_padding: float | None
    step_seconds: float | None
    loss: float | None
    joules_per_token: float | None
    ceiling_tflops: float | None
    temperature: float | None
    cut_by_budget: bool = False


BaselineVerdict = Literal["regression", "better", "same", "inconclusive"]


class BaselineResult(msgspec.Struct, frozen=True):
    """The comparison with a baseline. `share`: how much faster (+) or slower (-) than the baseline."""

    verdict: BaselineVerdict
    share: float
    sentence: str
    started_at: str


class Report(msgspec.Struct, frozen=True):
    """The result of a run. `smoke` and `answers` are null where only the speed was measured.

    `reasons`: why the verdict is not pass; they are among the `notes` too.
    `work`: what was measured, must be equal in reports that are compared; `conditions`: how and on what it ran;
    `digest`: over everything that shapes the figures. They are null in reports of versions that did not record them.
    """

    recipe: RecipeUsed
    host: HostSummary
    environment: EnvironmentUsed
    measurements: Measurements
    verdict: Verdict
    notes: tuple[str, ...]
    started_at: str
    seconds: float | None
    folder: str
    smoke: Smoke | None = None
    answers: tuple[AnswerPair, ...] = ()
    rows: RowCounts | None = None
    work: Work | None = None
    conditions: Conditions | None = None
    digest: str | None = None
    method: MeasuringMethod | None = None
    launches: tuple[LaunchFigures, ...] = ()
    attention: str | None = None
    baseline: BaselineResult | None = None
    reasons: tuple[str, ...] = ()


def summarise_host(host: Host, catalogue: Catalogue) -> HostSummary:
    """The properties of the host that belong in a benchmark's report."""
    return HostSummary(
        os=host.os.pretty,
        kernel=host.kernel.release,
        cpu=host.resources.cpu,
        cores=host.resources.cores,
        memory_bytes=host.resources.memory_total,
        cards=tuple(cards.name(card, catalogue) for card in host.cards or ()),
        driver=host.nvidia.module_version or host.amd.module_version or host.nvidia.nvml_driver,
        stub=host.nvidia.stub or host.amd.stub,
        power_limit_watts=_power_limit(host),
    )


def _power_limit(host: Host) -> float | None:
    """The GPUs' power limit, where all GPUs that report one have the same."""
    limits = {gpu.power_limit for gpu in host.nvidia.nvml or ()} | {gpu.power_cap for gpu in host.amd.gpus or ()}
    known = limits - {None}
    return known.pop() if len(known) == 1 else None


def build_report(
    run: FinishedRun,
    environment: Environment,
    host: HostSummary,
    context: RunContext | None = None,
    given: int | None = None,
    band: LossBand | None = None,
) -> Report:
    """The report of one finished run, with its verdict. `given`: the number of rows in the data, where known.

    `context`: what was measured around the run; `band`: the range for its last loss, where known.
    """
    recipe, record, log, folder, examination = run
    context = context or RunContext()
    method = context.method
    measurements = measure(log, recipe.traits.warmup_steps, context)
    smoke = judge_smoke(log, examination, recipe.traits) if examination else None
    # a run that only shows learning does not need a precise speed
    speed = judge_smoke_speed(measurements) if smoke and method is None else _speed(measurements, log, context, band)
    config = config_of(recipe, record)
    work = work_of(config, log, read_shapes(recipe, record), read_data_digest(recipe, record))
    label = method.label if method is not None else None
    conditions = conditions_of(config, log, environment, _hardware(host, measurements), recipe, label)
    rows = count_rows(log, given)
    return Report(
        recipe=RecipeUsed(
            name=recipe.name,
            title=recipe.traits.title,
            digest=recipe.digest,
            base_model=str(recipe.config["base_model"]),
            warmup_steps=recipe.traits.warmup_steps,
            sequence_len=config.get("sequence_len"),
            micro_batch_size=config.get("micro_batch_size"),
            gradient_accumulation_steps=config.get("gradient_accumulation_steps"),
            sample_packing=config.get("sample_packing"),
            lora_r=config.get("lora_r"),
            optimizer=config.get("optimizer"),
            seed=config.get("seed", 42),
        ),
        host=host,
        environment=EnvironmentUsed(
            environment.stack,
            environment.lock_digest,
            environment.python_version,
            environment.torch,
            environment.torch_from,
            environment.torch_verified,
            log.start,
        ),
        measurements=measurements,
        verdict="fail" if smoke is not None and not smoke.passed else speed.verdict,
        reasons=speed.reasons,
        notes=(*speed.reasons, *_recipe_notes(recipe, config, rows), *_notes(host, log, context), *speed.notes),
        started_at=record.started_at,
        seconds=record.seconds,
        folder=str(folder),
        smoke=smoke,
        answers=examination.answers if examination else (),
        rows=rows,
        work=work,
        conditions=conditions,
        digest=digest_of(work, conditions, config),
        method=method,
        launches=(_launch(run, measurements, config.get("seed", 42)),),
        attention=kernel_words(log.attention.kernels) if log.attention else None,
    )


def _speed(measurements: Measurements, log: WorkerLog, context: RunContext, band: LossBand | None) -> SpeedVerdict:
    start, sensors = log.start or StartEvent(), measurements.sensors
    clock = sensors.highest_clock.median if sensors else None
    possible = possible_tflops(context.target, start.device, start.multiprocessors, clock)
    return judge_speed(measurements, log, band, possible, computed_tflops(log, measurements))


def _launch(run: FinishedRun, measurements: Measurements, seed: int | None) -> LaunchFigures:
    log = run.log
    every, sensors = losses(log), measurements.sensors
    return LaunchFigures(
        folder=str(run.folder),
        seed=seed,
        seconds=run.record.seconds,
        steps=len(log.steps),
        warmup_steps=measurements.warmup_steps,
        processed=measurements.tokens_per_second.processed.median,
        non_padding=measurements.tokens_per_second.non_padding.median,
        step_seconds=measurements.step_seconds.median,
        loss=every[-1] if every else None,
        joules_per_token=measurements.joules_per_token.median,
        ceiling_tflops=measurements.matmul_ceiling_tflops.median,
        temperature=sensors.temperature.median if sensors else None,
        cut_by_budget=log.budget_spent is not None,
    )


def combine_launches(reports: tuple[Report, ...]) -> Report:
    """One report of several launches of the same work: medians of the launches' medians, intervals over launches."""
    if len(reports) == 1:
        return reports[0]
    last = reports[-1]
    measurements = merge_launches([report.measurements for report in reports])
    kind = last.environment.worker.device_type if last.environment.worker else "cpu"
    reasons = (
        *interval_too_wide(measurements, kind, len(reports)),
        *over_ceiling(measurements),
        *card_was_shared(measurements),
    )
    failed = [report for report in reports if report.verdict == "fail"]
    own = dict.fromkeys(note for report in failed or reports for note in report.notes if not _of_one_run(note))
    words = f"{len(reports)} launches, each with its own seed: intervals are over their medians."
    return msgspec.structs.replace(
        last,
        recipe=reports[0].recipe,
        work=reports[0].work,
        conditions=reports[0].conditions,
        digest=reports[0].digest,
        measurements=measurements,
        verdict="fail" if failed else "inconclusive" if reasons else "pass",
        reasons=tuple(dict.fromkeys([*(each for report in failed for each in report.reasons), *reasons])),
        notes=(*reasons, *own, words),
        launches=tuple(launch for report in reports for launch in report.launches),
        started_at=reports[0].started_at,
        seconds=sum(report.seconds or 0.0 for report in reports),
    )


ONE_RUN = "One run, one seed: the interval shows how well this run's median is known, not how runs differ."


def _of_one_run(note: str) -> bool:
    """Whether a note is about the spread of a single run, which says nothing about several."""
    return note == ONE_RUN or note.startswith("The speed is known only to ")


def _hardware(host: HostSummary, measurements: Measurements) -> HostConditions:
    """With the power limit that the GPU's driver enforced during the run, else the one that was set before."""
    enforced = measurements.sensors.power_limit.median if measurements.sensors else None
    limit = host.power_limit_watts if enforced is None else enforced
    return HostConditions(host.os, host.kernel, host.cpu, host.cores, host.cards, host.driver, limit)


def count_rows(log: WorkerLog, given: int | None) -> RowCounts:
    trained = log.start.rows if log.start else None
    held_out = log.start.held_out_rows if log.start else None
    known = given is not None and trained is not None
    return RowCounts(
        given, trained, held_out, given - trained - (held_out or 0) if known and given and trained else None
    )


def _recipe_notes(recipe: Recipe, config: dict[str, Any], rows: RowCounts) -> tuple[str, ...]:
    notes = []
    if recipe.traits.throughput_only:
        notes.append("Throughput only: the weights are randomly initialised, so the losses mean nothing.")
    if rows.dropped:
        notes.append(
            f"{rows.dropped} of {rows.given} rows were not trained on: Axolotl skips empty rows and rows longer than "
            f"sequence_len ({config.get('sequence_len')} tokens). gpu-setup data check --recipe NAME lists them."
        )
    return tuple(notes)


def _notes(host: HostSummary, log: WorkerLog, context: RunContext) -> tuple[str, ...]:
    notes = card_notes(context.use, log.start is not None and log.start.device_type == "gpu")
    if log.budget_spent is not None:
        notes.append(f"Stopped after {log.budget_spent.step} steps: the time budget was used up.")
    if log.start and log.start.device_type == "cpu":
        notes.append("Trained on the CPU: compare only with other CPUs.")
    if host.stub:
        notes.append("A stand-in library replaced the driver: nothing here was measured on a GPU.")
    notes.append(ONE_RUN)
    return tuple(notes)


def write_report(folder: Path, document: bytes, page: str | None) -> Path:
    """Write report.json (the enveloped `document`) and, where rendered, report.html into the run's folder."""
    for name, content in ((DOCUMENT, document), ("report.html", page.encode() if page else None)):
        if content is not None:
            write_atomic(folder / name, content)
    return folder / DOCUMENT


class _ReportDocument(msgspec.Struct):
    data: Report


def read_report(path: Path) -> Report:
    """A report from its file or from its run's folder; raises BadUsage when the file is not a report."""
    file = path / DOCUMENT if path.is_dir() else path
    try:
        return read_document(file, _ReportDocument).data
    except (OSError, msgspec.MsgspecError) as error:
        raise BadUsage(
            "report.unreadable",
            f"{file} is not a report of gpu-setup.",
            f"{reason(error)}.",
            "Give a run's folder or its report.json.",
        ) from error
