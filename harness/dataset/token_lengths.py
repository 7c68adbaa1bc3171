"""Token counts of checked rows with a recipe's tokenizer and Axolotl's prompt, in the training environment.

checked rows ─▶ rows.jsonl, config.yml ─▶ gpu_setup_worker.tokens ─▶ Tokens, findings, steps and time
"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import NamedTuple

import msgspec

from checks.catalogue import Stack
from harness.dataset.block_reader import read_blocks
from harness.dataset.check import CheckedFile
from harness.dataset.findings import (
    DataFinding,
    DataReport,
    Example,
    PlannedSteps,
    TokenCounts,
    kinds,
    make_finding,
    sort_findings,
)
from harness.dataset.row import decode_row, row_of
from harness.dataset.row_writer import encode_row
from harness.dataset.stats import LengthCount
from harness.environment.base_model import ensure_model
from harness.environment.build import ensure_environment
from harness.environment.worker_process import worker_environment
from harness.measure.metrics import Measurements, measure
from harness.process.worker_log import read_worker_log
from harness.recipe.axolotl_config import run_config
from harness.recipe.loader import Recipe
from harness.training.launch import read_run
from machine.errors import BadUsage, OutsideFailed
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths

STAGE = "tokens"


class TokenizerPlace(NamedTuple):
    """Where the counting runs: in the stack's environment on this machine."""

    stack: Stack
    machine: Machine
    paths: Paths


class WorkerCounts(msgspec.Struct, frozen=True):
    """The worker's document; lists have one entry per usable row, in the file's order."""

    lengths: list[int]
    trainable: list[int]
    ends: list[bool]
    dropped: list[int]
    over_length_does: str
    sequence_len: int
    held_out: int
    packing: bool
    efficiency: float | None
    batches: int
    steps: int
    epochs: float


class TokenRows(NamedTuple):
    """Row numbers in the file, by kind of finding."""

    over_length: array[int]
    no_trainable: array[int]
    no_eos: array[int]
    lengths: dict[int, int]


def count_tokens(
    checked: CheckedFile, recipe: Recipe, place: TokenizerPlace, emit: Emit
) -> tuple[TokenCounts, TokenRows]:
    """Raises OutsideFailed when the environment or the tokenizer is not available."""
    environment = ensure_environment(place.stack, place.machine, place.paths, emit)
    base_model = ensure_model(recipe, environment, place.machine, place.paths, emit)
    folder = checked.stats.folder
    numbers = _write_rows(checked, folder / "rows.jsonl")
    _write_config(checked, recipe, base_model, folder)
    emit(Event("start", STAGE, f"Counting tokens with the tokenizer of {recipe.name}"))

    def on_line(line: str) -> None:
        if line.startswith("counted "):
            emit(Event("progress", STAGE, "rows", float(line.split()[1]), float(len(numbers)), "rows"))

    out = folder / "tokens.json"
    argv = (
        str(environment.python), "-m", "gpu_setup_worker.tokens", "--config", str(folder / "config.yml"),
        "--rows", str(folder / "rows.jsonl"), "--out", str(out),
    )  # fmt: skip
    offline = recipe.traits.model != "hub"
    outcome = place.machine.stream(argv, on_line, env=worker_environment(environment, offline=offline))
    if not outcome.ok or not out.is_file():
        said = [line for line in outcome.stdout.strip().splitlines() if line.strip()]
        raise OutsideFailed(
            "data.tokens",
            f"Counting tokens with {recipe.name} failed (exit status {outcome.rc}).",
            (said or ["It printed nothing."])[-1][:300],
            "A recipe whose model is on a hub needs the network once; --recipe smollm2-135m-qlora works without."
            if recipe.traits.model == "hub"
            else "Check the training environment with gpu-setup environment, then run the same command again.",
        )
    counted = msgspec.json.decode(out.read_bytes(), type=WorkerCounts)
    emit(Event("end", STAGE, f"{sum(counted.lengths):,} tokens in {len(numbers):,} rows"))
    return _summarise_counts(counted, numbers, recipe, base_model, place.paths)


def _write_rows(checked: CheckedFile, path: Path) -> array[int]:
    """The usable rows as JSON Lines; returns their numbers in the file."""
    numbers = array("Q")
    with path.open("wb") as file:
        for block in read_blocks(checked.source, []):
            for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
                row = row_of(*decode_row(block.data[start:end])) if end else None
                if row is not None and row.whole:
                    numbers.append(block.row + number)
                    texts = {"instruction": row.instruction, "input": row.input, "output": row.output}
                    file.write(encode_row(texts) + b"\n")
    return numbers


def _write_config(checked: CheckedFile, recipe: Recipe, base_model: str, folder: Path) -> None:
    import yaml

    config = run_config(recipe, base_model, folder, checked.source.path, {})
    (folder / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _summarise_counts(
    counted: WorkerCounts, numbers: array[int], recipe: Recipe, base_model: str, paths: Paths
) -> tuple[TokenCounts, TokenRows]:
    import numpy as np

    lengths = LengthCount()
    lengths.add(np.array(counted.lengths, dtype=np.int64))
    left_out = set(counted.dropped)
    over = array("Q", (numbers[at] for at, n in enumerate(counted.lengths) if n > counted.sequence_len))
    kept = [at for at in range(len(numbers)) if at not in left_out]
    no_trainable = array("Q", (numbers[at] for at in kept if not counted.trainable[at]))
    no_eos = array("Q", (numbers[at] for at in kept if not counted.ends[at]))
    does = {
        "drop": "Axolotl drops them",
        "truncate": "Axolotl truncates them",
        "raise": "Axolotl stops with an error",
    }
    seen = sum(min(counted.lengths[at], counted.sequence_len) for at in kept)
    tokens = TokenCounts(
        recipe=recipe.name,
        base_model=str(recipe.config.get("base_model", base_model)),
        sequence_len=counted.sequence_len,
        total=sum(counted.lengths),
        trainable=sum(counted.trainable),
        over_length=len(over),
        over_length_does=does.get(counted.over_length_does, counted.over_length_does),
        no_trainable=len(no_trainable),
        no_eos=len(no_eos),
        kept=len(kept),
        packing=counted.packing,
        efficiency=counted.efficiency,
        steps=_steps(counted, seen, recipe, base_model, paths),
        lengths=lengths.histogram("tokens a row"),
    )
    return tokens, TokenRows(over, no_trainable, no_eos, dict(zip(numbers, counted.lengths, strict=True)))


def _steps(counted: WorkerCounts, seen: int, recipe: Recipe, base_model: str, paths: Paths) -> PlannedSteps:
    """Steps, and their time at the speed of the newest finished run of the same recipe on this machine."""
    if not counted.efficiency or not counted.batches:
        return PlannedSteps(counted.steps, counted.epochs, None, "no row is left to train on")
    measured = measured_speed(recipe, base_model, paths.runs)
    if measured is None:
        because = f"the speed of {recipe.name} on this machine is not known yet; measure it with gpu-setup bench"
        return PlannedSteps(counted.steps, counted.epochs, None, because)
    folder, speed = measured
    # token slots are computed, padding included
    share = 1 - counted.held_out / max(1, len(counted.lengths) - len(counted.dropped))
    seconds = seen * share * counted.epochs / counted.efficiency / speed
    because = f"at {speed:,.0f} processed tokens a second, measured in {folder.name}; without start-up and evaluations"
    return PlannedSteps(counted.steps, counted.epochs, seconds, because)


def measured_speed(recipe: Recipe, base_model: str, runs: Path) -> tuple[Path, float] | None:
    """Processed tokens a second of the newest finished run with the same recipe and model; None where there is none."""
    for folder in sorted(runs.glob("*/"), reverse=True):
        try:
            run = read_run(folder)
        except BadUsage:
            continue
        if run.status != "done" or run.recipe_digest != recipe.digest or run.base_model != base_model or run.overrides:
            continue
        log = read_worker_log(folder / "worker.jsonl")
        if log is None:
            continue
        found: Measurements = measure(log, recipe.traits.warmup_steps)
        if found.tokens_per_second.processed.median:
            return folder, found.tokens_per_second.processed.median
    return None


def token_findings(report: DataReport, tokens: TokenCounts, rows: TokenRows, checked: CheckedFile) -> DataReport:
    """The report with the token counts, and with their findings."""
    found = list(report.findings)
    for kind, numbers in (
        ("over-length", rows.over_length),
        ("no-trainable-token", rows.no_trainable),
        ("no-eos", rows.no_eos),
    ):
        if numbers:
            found.append(_token_finding(kind, numbers, rows, tokens, checked))
    flagged = {row for each in found if each.severity != "info" for row in each.rows}
    return msgspec.structs.replace(report, findings=sort_findings(found), tokens=tokens, flagged_rows=len(flagged))


def _token_finding(
    kind: str, numbers: array[int], rows: TokenRows, tokens: TokenCounts, checked: CheckedFile
) -> DataFinding:
    examples = tuple(
        Example(
            row,
            checked.rows.line(row),
            f"{rows.lengths[row]:,} tokens of {tokens.sequence_len:,}: {checked.rows.row(row).instruction[:50]}",
        )
        for row in numbers[:3]
    )
    many = len(numbers)
    summary = f"{kinds()[kind].title}: {many:,} {'row' if many == 1 else 'rows'}"
    if kind == "over-length":
        summary += f"; {tokens.over_length_does}"
    made = make_finding(kind, numbers, summary, examples)
    return msgspec.structs.replace(made, lines=checked.rows.lines(made.rows))
