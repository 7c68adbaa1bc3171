"""The report of one run: what was run on what, how fast, whether it learnt, and the answers. One document."""

from __future__ import annotations

from pathlib import Path

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.document import write_whole
from harness.environment import Environment
from harness.examine import Answer, Examination
from harness.launch import Run
from harness.measure import FEWEST_STEPS, Measurements, measure
from harness.recipe import Recipe
from harness.smoke import Smoke, judge
from harness.worker_log import Start, WorkerLog
from machine.errors import BadUsage

DOCUMENT = "report.json"


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


class HostSummary(msgspec.Struct, frozen=True):
    """What shapes the figures and names nobody: no host or user name, no serial number."""

    os: str | None
    kernel: str | None
    cpu: str | None
    cores: int | None
    memory_bytes: int | None
    cards: tuple[str, ...]
    driver: str | None
    stub: bool = False


class EnvironmentUsed(msgspec.Struct, frozen=True):
    stack: str
    lock_digest: str
    python: str
    torch: str
    torch_from: str
    torch_verified: str
    worker: Start | None = None


class Report(msgspec.Struct, frozen=True):
    """`verdict`: pass, fail or inconclusive; `smoke` and `answers` are null where only speed was measured."""

    recipe: RecipeUsed
    host: HostSummary
    environment: EnvironmentUsed
    measurements: Measurements
    verdict: str
    notes: tuple[str, ...]
    started_at: str
    seconds: float | None
    folder: str
    smoke: Smoke | None = None
    answers: tuple[Answer, ...] = ()


def summary(host: Host, catalogue: Catalogue) -> HostSummary:
    """The host in the few facts that belong to a benchmark."""
    names = []
    for card in host.cards or ():
        known = catalogue.card(card.vendor, card.device, card.revision)
        names.append(known.name if known else f"{card.vendor}:{card.device}")
    return HostSummary(
        os=host.os.pretty,
        kernel=host.kernel.release,
        cpu=host.resources.cpu,
        cores=host.resources.cores,
        memory_bytes=host.resources.memory_total,
        cards=tuple(names),
        driver=host.nvidia.module_version or host.amd.module_version,
        stub=host.nvidia.stub or host.amd.stub,
    )


def build_report(
    recipe: Recipe,
    run: Run,
    log: WorkerLog,
    environment: Environment,
    host: HostSummary,
    folder: Path,
    examination: Examination | None,
) -> Report:
    """Everything that is known of one finished run, judged."""
    measurements = measure(log, recipe.traits.warmup_steps)
    smoke = judge(log, examination, recipe.traits) if examination else None
    config = {**recipe.config, **run.overrides}
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
        verdict=_verdict(measurements, smoke),
        notes=_notes(measurements, host, log),
        started_at=run.started_at,
        seconds=run.seconds,
        folder=str(folder),
        smoke=smoke,
        answers=examination.answers if examination else (),
    )


def _verdict(measurements: Measurements, smoke: Smoke | None) -> str:
    if smoke is not None and not smoke.passed:
        return "fail"
    return "pass" if measurements.step_seconds.n >= FEWEST_STEPS else "inconclusive"


def _notes(measurements: Measurements, host: HostSummary, log: WorkerLog) -> tuple[str, ...]:
    notes = []
    if measurements.step_seconds.n < FEWEST_STEPS:
        notes.append(f"Only {measurements.step_seconds.n} steady steps: too few for a speed.")
    if log.start and log.start.device_type == "cpu":
        notes.append("Trained on the processor: compare only with other processors.")
    if host.stub:
        notes.append("A stub library stood in for the driver: nothing here was measured on a GPU.")
    if measurements.own_share.median is not None and measurements.own_share.median > 0.01:
        notes.append(f"Recording took {measurements.own_share.median:.1%} of the step time: more than 1 %.")
    notes.append("One run, one seed: the interval says how well this run's median is known, not how runs differ.")
    return tuple(notes)


def write_report(report: Report, document: bytes, page: str | None) -> Path:
    """Write report.json (the enveloped `document`) and, where rendered, report.html into the run's folder."""
    folder = Path(report.folder)
    for name, content in ((DOCUMENT, document), ("report.html", page.encode() if page else None)):
        if content is not None:
            write_whole(folder / name, content)
    return folder / DOCUMENT


class _Enveloped(msgspec.Struct):
    data: Report


def read_report(path: Path) -> Report:
    """A report from its file or from its run's folder; raises BadUsage when it is none."""
    file = path / DOCUMENT if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Enveloped).data
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadUsage(
            "report.unreadable",
            f"{file} is not a report of gpu-setup.",
            f"{error}.",
            "Give a run's folder or its report.json.",
        ) from error
