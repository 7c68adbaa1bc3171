"""Tuning: the untuned recipe → one change at a time, each in a separate process → untuned and tuned recipe in turn.

    fit (enough memory?) ─▶ train for some seconds ─▶ faster? ─▶ the same losses at dropout 0? ─▶ tries/NN.json

Every try writes a document to state/tune/DIGEST, so that an interrupted tuning resumes where it was. A try that runs
out of memory or crashes is a result like any other.
"""

from __future__ import annotations

import time
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from harness.atomic_files import read_if_valid, write_atomic
from harness.environment.worker_process import WorkerContext
from harness.jobs.tune_search import (
    Duel,
    TuneChange,
    TuneFacts,
    TuneTry,
    changes_digest,
    compare_in_pairs,
    fastest_try,
    next_change,
    same_losses,
    tuned_recipe_text,
)
from harness.measure.metrics import measure
from harness.memory.available import GIB, available_memory
from harness.memory.fit import FitOptions, job_for
from harness.memory.prediction import predict
from harness.pipeline import Job, TrainingSetup
from harness.process.worker_log import WorkerLog, read_worker_log
from harness.recipe.loader import SAMPLES, Recipe
from harness.training.launch import RunSpec, new_run_folder, train
from harness.training.monitor import HangLimits
from machine.errors import BadUsage, Interrupted, Problem
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Owner, Paths

STAGE = "tune"
PAIRS = 3
SHORTEST, LONGEST = 10.0, 60.0
# what a process needs on the host in addition to its tensors: Python, PyTorch, the data
HOST_RESERVE = 2_000_000_000
DOCUMENTS, PROOF_STEPS, PROOF_LENGTH = 8, 3, 2048
# a try whose first step takes longer is aborted: on a CPU, compiling takes ten minutes and saves little
PATIENCE = HangLimits(first_seconds=180.0)


class TuneResult(msgspec.Struct, frozen=True):
    """The result of tuning: all tries, the number of the best one, and `duel`, its comparison in turn with the untuned
    recipe (null where no try was faster).

    `recipe` is the tuned recipe's file. `complete`: nothing was left to try.
    """

    name: str
    where: str
    tries: tuple[TuneTry, ...]
    best: int
    duel: Duel | None
    complete: bool
    recipe: str | None
    folder: str
    minutes: float
    notes: tuple[str, ...] = ()


class TuneSettings(NamedTuple):
    """`where`: the card's name, or the CPU; `room`: bytes that a run may use (None: not known, every change is tried).

    `packages`: installed attention and loss kernels that Axolotl does not require.
    """

    minutes: float
    where: str = "the CPU"
    room: int | None = None
    packages: frozenset[str] = frozenset()


OPTIONAL_KERNELS = ("cut_cross_entropy", "flash_attn", "liger_kernel")


def tune_settings(job: Job, setup: TrainingSetup, host: Host, catalogue: Catalogue, minutes: float) -> TuneSettings:
    gpu = job.stack.vendor != "cpu"
    card = available_memory(None, host, catalogue) if gpu else None
    folder = Path(setup.environment.folder)
    packages = (name for name in OPTIONAL_KERNELS if any(folder.glob(f"lib/python*/site-packages/{name}")))
    room = memory_limit(host, card.bytes if card else None) if card or not gpu else None
    return TuneSettings(minutes, card.card if card else "the CPU", room, frozenset(packages))


def tune(
    job: Job, setup: TrainingSetup, wanted: TuneSettings, machine: Machine, paths: Paths, emit: Emit
) -> TuneResult:
    """Tune the job's recipe within the given minutes.

    Raises Problem only where the untuned recipe itself does not run; an interruption keeps the finished tries.
    """
    minutes, where = wanted.minutes, wanted.where
    folder = paths.state / "tune" / setup.inputs[:16]
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    tuner = _Tuner(
        job, setup, folder, wanted.room, machine, emit, min(LONGEST, max(SHORTEST, minutes * 60 / 30)), paths.owner
    )
    begin = time.monotonic()

    def seconds_left() -> float:
        return minutes * 60 - (time.monotonic() - begin)

    tries = list(read_tries(folder))
    if tries:
        emit(Event("note", STAGE, f"Resuming after {len(tries)} {'try' if len(tries) == 1 else 'tries'}: {folder}"))
    else:
        tries.append(tuner.measure_untuned())
    if tries[0].status != "measured":
        raise BadUsage(
            "tune.untuned", "The untuned recipe does not run.", tries[0].reason, "gpu-setup bench shows why."
        )
    facts = TuneFacts(job.stack.vendor != "cpu", wanted.packages, _document_tokens(tuner))
    config = {**job.recipe.config, **job.overrides}
    complete = False
    while seconds_left() > _final_seconds(tries):
        change = next_change(config, tries, facts)
        if change is None:
            complete = True
            break
        best = fastest_try(tries)
        assert best is not None
        tries.append(tuner.try_change(len(tries), change, best, tries[0]))
    best = fastest_try(tries)
    assert best is not None
    found = tuner.run_duel(best, folder) if best.changes else None
    kept = found is not None and found.ratio > 1
    recipe = _write_recipe(job.recipe, best, found, where, folder) if kept else None
    return TuneResult(
        job.recipe.name, where, tuple(tries), best.number if kept else 0, found, complete, recipe, str(folder),
        (time.monotonic() - begin) / 60, tuple(_notes(complete, kept, job)),
    )  # fmt: skip


def read_tries(folder: Path) -> tuple[TuneTry, ...]:
    """The tries of an earlier tuning, in order, up to the first document that cannot be read."""
    found: list[TuneTry] = []
    for path in sorted((folder / "tries").glob("*.json")):
        entry = read_if_valid(path, TuneTry)
        if entry is None or entry.number != len(found):
            break
        found.append(entry)
    return tuple(found)


class _Tuner(msgspec.Struct):
    """Runs the tries of one job in its environment; `seconds`: how long each is measured; `owner`: as which user."""

    job: Job
    setup: TrainingSetup
    folder: Path
    room: int | None
    machine: Machine
    emit: Emit
    seconds: float
    owner: Owner | None = None

    def measure_untuned(self) -> TuneTry:
        begin = time.monotonic()
        try:
            entry = self._measure(TuneTry(0, "untuned", "untuned", {}, "measured"), None)
            return self._save(msgspec.structs.replace(entry, seconds=time.monotonic() - begin))
        except Interrupted:
            raise
        except Problem as problem:
            problem.next = f"The untuned recipe itself does not run, so there is nothing to tune. {problem.next}"
            raise

    def try_change(self, number: int, change: TuneChange, best: TuneTry, untuned: TuneTry) -> TuneTry:
        """One change on top of the best so far: skipped if too large, measured, and its losses compared if faster."""
        whole = {**best.changes, **change.changes}
        entry = TuneTry(number, change.group, change.label, whole, "measured", why=change.why)
        self.emit(Event("start", STAGE, f"Try {number}: {change.label} ({change.why})"))
        needed = self._predicted_bytes(whole)
        if self.room is not None and needed is not None and needed > self.room:
            reason = f"needs {needed / GIB:.1f} GiB of {self.room / GIB:.1f} GiB, as gpu-setup fit predicts"
            return self._save(msgspec.structs.replace(entry, status="no-room", reason=reason))
        begin = time.monotonic()
        try:
            entry = self._measure(entry, best, untuned)
        except Interrupted:
            raise
        except Problem as problem:
            entry = msgspec.structs.replace(
                entry, status="failed", reason=f"{problem.what} {problem.why}".strip()[:400]
            )
        return self._save(msgspec.structs.replace(entry, seconds=time.monotonic() - begin))

    def run_duel(self, best: TuneTry, folder: Path) -> Duel:
        """Untuned and tuned in turn, PAIRS times; finished runs of an interrupted comparison are reused."""
        kept = folder / f"duel-{changes_digest(best.changes)}.json"
        speeds: dict[str, list[float]] = {"untuned": [], "tuned": []}
        if kept.is_file():
            speeds = msgspec.json.decode(kept.read_bytes(), type=dict[str, list[float]])
        for number in range(PAIRS):
            for side, changes in (("untuned", {}), ("tuned", best.changes)):
                if len(speeds[side]) > number:
                    continue
                self.emit(Event("note", STAGE, f"Final comparison, {number + 1} of {PAIRS}: {side}"))
                speeds[side].append(_speed(self._train(changes)))
                write_atomic(kept, msgspec.json.encode(speeds))
        return compare_in_pairs(speeds["untuned"], speeds["tuned"])

    def _measure(self, entry: TuneTry, best: TuneTry | None, untuned: TuneTry | None = None) -> TuneTry:
        begin = time.monotonic()
        log = self._train(entry.changes)
        found = measure(log, self.job.recipe.traits.warmup_steps)
        speed = found.tokens_per_second.non_padding
        peak = found.peak_memory.device_reserved.median or found.peak_memory.worker_rss.median
        entry = msgspec.structs.replace(
            entry,
            tokens_per_second=_speed(log),
            ci95=speed.ci95,
            steps=len(log.steps),
            rows=log.start.rows if log.start else None,
            peak_bytes=round(peak) if peak else None,
            run_seconds=time.monotonic() - begin,
        )
        self.emit(Event("end", STAGE, f"{entry.label}: {entry.tokens_per_second:.1f} non-padding tokens/s"))
        if best is None:
            return msgspec.structs.replace(entry, proof=self._measure_losses(entry.changes))
        assert untuned is not None
        return entry if fastest_try((best, entry)) is best else self._check_result(entry, untuned)

    def _check_result(self, entry: TuneTry, untuned: TuneTry) -> TuneTry:
        """A faster try: does it compute the same, on the same rows?"""
        if entry.rows != untuned.rows:
            reason = f"trains on {entry.rows} rows instead of {untuned.rows}"
            return msgspec.structs.replace(entry, status="different", reason=reason)
        entry = msgspec.structs.replace(entry, proof=self._measure_losses(entry.changes))
        if same_losses(entry.proof, untuned.proof, precision_of(self.job.recipe.config)):
            return entry
        losses = (", ".join(f"{loss:.5f}" for loss in proof) for proof in (entry.proof, untuned.proof))
        return msgspec.structs.replace(entry, status="different", reason="the losses {} instead of {}".format(*losses))

    def _train(self, changes: dict[str, Any]) -> WorkerLog:
        """Some seconds of training with the changes: enough to measure the speed, not to get a useful adapter."""
        overrides = {
            **self.job.overrides, **changes, "max_steps": 1_000_000, "num_epochs": None, "val_set_size": 0,
            "save_strategy": "no", "evals_per_epoch": None, "saves_per_epoch": None,
        }  # fmt: skip
        return self._run(overrides, self.seconds, PATIENCE if changes else None)

    def _measure_losses(self, changes: dict[str, Any]) -> tuple[float, ...]:
        """The losses of the same eight documents in each of three optimizer steps, whatever the batch."""
        now = {**self.job.recipe.config, **self.job.overrides, **changes}
        size = 1 if now.get("sample_packing") else gcd(DOCUMENTS, int(now.get("micro_batch_size") or 1))
        overrides = {
            **self.job.overrides, **changes,
            "datasets": [{"path": str(self._comparison_rows()), "ds_type": "json", "type": "alpaca"}],
            "num_epochs": PROOF_STEPS, "max_steps": PROOF_STEPS, "val_set_size": 0, "lora_dropout": 0.0,
            "lr_scheduler": "constant", "warmup_steps": 0, "warmup_ratio": None, "save_strategy": "no",
            "evals_per_epoch": None, "saves_per_epoch": None, "sequence_len": PROOF_LENGTH, "micro_batch_size": size,
            "gradient_accumulation_steps": 1 if now.get("sample_packing") else DOCUMENTS // size,
            "pad_to_sequence_len": False, "loss_watchdog_threshold": None, "loss_watchdog_patience": None,
        }  # fmt: skip
        log = self._run(overrides, None, PATIENCE if changes else None)
        return tuple(step.loss for step in log.steps if isinstance(step.loss, float))

    def _run(self, overrides: dict[str, Any], seconds: float | None, hung: HangLimits | None) -> WorkerLog:
        folder = new_run_folder(self.folder / "runs", self.job.recipe, self.owner)
        spec = RunSpec(
            self.job.recipe, self.setup.base_model, self.setup.inputs, self.job.data, overrides,
            hung=hung or HangLimits(), budget=seconds,
        )  # fmt: skip
        return train(spec, folder, WorkerContext(self.setup.environment, self.machine, _quiet, self.job.device))

    def _comparison_rows(self) -> Path:
        """A file of eight questions with the same answer.

        Axolotl 0.19 weights every micro batch equally, however many tokens it trains on (its trainer assumes that the
        model does not count them). Only answers of one length have the same loss in every grouping.
        """
        path = self.folder / "proof.json"
        if not path.is_file():
            rows = msgspec.json.decode((SAMPLES / "house-style.json").read_bytes(), type=list[dict[str, str]])
            same = [{**row, "output": rows[0]["output"]} for row in rows[:DOCUMENTS]]
            write_atomic(path, msgspec.json.encode(same))
        return path

    def _predicted_bytes(self, changes: dict[str, Any]) -> int | None:
        """The memory that fit predicts: on a card all of it, on the host the tensors alone. None: unknown shapes."""
        config = {**self.job.recipe.config, **self.job.overrides, **changes}
        try:
            found = predict(job_for(msgspec.structs.replace(self.job.recipe, config=config), FitOptions()))
        except BadUsage:
            return None
        return found.device if self.job.stack.vendor != "cpu" else found.allocated

    def _save(self, entry: TuneTry) -> TuneTry:
        (self.folder / "tries").mkdir(exist_ok=True)
        document = msgspec.json.format(msgspec.json.encode(entry))
        write_atomic(self.folder / "tries" / f"{entry.number:02}.json", document)
        return entry


def _speed(log: WorkerLog) -> float:
    """Non-padding tokens per second over all steps after warm-up: steps of many lengths have no typical one."""
    found = measure(log, 1)
    steps = [step for step in log.steps if step.step > (found.warmup_steps or 1) and step.seconds > 0]
    steps = steps or [step for step in log.steps if step.seconds > 0]
    return sum(step.non_padding for step in steps) / sum(step.seconds for step in steps)


def _document_tokens(tuner: _Tuner) -> float | None:
    """Tokens of an average document in the untuned recipe's first run."""
    for folder in sorted((tuner.folder / "runs").glob("*/")):
        log = read_worker_log(folder / "worker.jsonl")
        steps = [step for step in log.steps if step.documents] if log else []
        if steps:
            return sum(step.non_padding for step in steps) / sum(step.documents or 0 for step in steps)
    return None


def _final_seconds(tries: list[TuneTry]) -> float:
    """Seconds for the final comparison, and one more try before it."""
    longest = max((entry.seconds for entry in tries), default=0.0)
    return 2 * PAIRS * tries[0].run_seconds + longest


def memory_limit(host: Host, gpu: int | None) -> int | None:
    """Bytes that a run may use: the card's, or the host's minus what a process needs in addition to its tensors."""
    if gpu is not None:
        return gpu
    available = host.resources.memory_available
    return available - HOST_RESERVE if available is not None else None


def precision_of(config: dict[str, Any]) -> str:
    return next((name for name in ("bf16", "fp16") if config.get(name)), "fp32")


def _write_recipe(recipe: Recipe, best: TuneTry, found: Duel | None, where: str, folder: Path) -> str:
    text = tuned_recipe_text(recipe.name, recipe.text, best, found.ratio if found else None, where)
    return str(write_atomic(folder / f"{recipe.name}-tuned.yaml", text))


def _notes(complete: bool, kept: bool, job: Job) -> list[str]:
    notes = []
    if not complete:
        notes.append("The time was over before every change was tried; run the same command again to continue.")
    if not kept:
        notes.append("No change was faster than the recipe as it is.")
    if job.stack.vendor == "cpu":
        notes.append("Tuned for the CPU: the fastest recipe for a GPU is different.")
    return notes


def _quiet(_event: Event) -> None:
    """Drop a try's own progress: it would hide the progress of the tuning."""
