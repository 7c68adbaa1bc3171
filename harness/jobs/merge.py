"""A run's adapter merged into a plain model folder, and asked the same questions again: it must answer the same.

run ─▶ gpu_setup_worker.merge ─▶ OUT/ ─▶ examine (the merged model alone) ─▶ Merged
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from harness.atomic_files import disk_errors
from harness.environment.build import Environment
from harness.environment.worker_process import worker_environment
from harness.process.diagnosis import describe_exit, process_failure
from harness.training.examination import examine, held_out_file
from harness.training.launch import RunRecord
from machine.errors import BadUsage, Refused
from machine.events import Emit, Event
from machine.local import Machine

STAGE = "merge"


class MergeResult(msgspec.Struct, frozen=True):
    """The answer of `merge`. Losses in nats a token on the held-out rows; None where it was not asked.

    `same`: of so many `answers`, those that are the adapter's word for word.
    """

    run: str
    folder: str
    bytes: int
    dtype: str
    held_out_adapter: float | None = None
    held_out_merged: float | None = None
    same: int | None = None
    answers: int = 0
    notes: tuple[str, ...] = ()


def is_four_bit(folder: Path) -> bool:
    """Whether the run had its base in 4 bit; raises BadUsage for one without an adapter."""
    import yaml

    config = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
    if config.get("adapter") not in ("lora", "qlora"):
        raise BadUsage(
            "merge.no-adapter",
            f"The run {folder} has no LoRA adapter, so there is nothing to merge.",
            "A full fine-tune writes a plain model folder itself.",
            f"Its model lies in {folder}/adapter.",
        )
    return bool(config.get("load_in_4bit"))


def merge(
    run: RunRecord, folder: Path, out: Path, dtype: str, environment: Environment, machine: Machine, emit: Emit
) -> Path:
    """Write the merged model into `out`, which must not be there; raises Problem."""
    if out.exists():
        raise Refused("merge.out-taken", f"{out} is there already.", "Nothing is written over.", "Give another --out.")
    rounded = ("--four-bit",) if is_four_bit(folder) else ()
    emit(Event("start", STAGE, f"Merging the adapter into its base: {out}"))
    argv = (
        str(environment.python), "-m", "gpu_setup_worker.merge", "--base", run.base_model,
        "--adapter", str(folder / "adapter"), "--out", str(out), "--dtype", dtype, *rounded,
    )  # fmt: skip

    def on_line(line: str) -> None:
        words = line.split()
        if len(words) == 4 and words[0] == "merged" and words[1].isdecimal() and words[3].isdecimal():
            emit(Event("progress", STAGE, "writing", float(words[1]), float(words[3]), "bytes"))

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        outcome = machine.stream(
            argv, on_line, env=worker_environment(environment, device=run.device), log=str(folder / "merge.log")
        )
    if not outcome.ok:
        raise process_failure(
            "merge.failed",
            "The adapter could not be merged",
            outcome.stdout,
            describe_exit(outcome.rc),
            f"Look at {folder / 'merge.log'}; run the same command again.",
        )
    emit(Event("end", STAGE, f"Merged model: {out}"))
    return out


def compare_merged(
    run: RunRecord,
    folder: Path,
    out: Path,
    dtype: str,
    environment: Environment,
    machine: Machine,
    emit: Emit,
    ask: bool = True,
) -> MergeResult:
    """Ask the adapter on its base and the merged model the same; without `ask` nothing."""
    size = sum(file.stat().st_size for file in out.glob("*"))
    if not ask:
        return MergeResult(str(folder), str(out), size, dtype, notes=("The merged model was not asked anything.",))
    held_out = held_out_file(run.traits, folder, run.data is not None)
    common = (run.base_model, folder, held_out, environment, machine, emit, ())
    one = examine(*common, folder / "merge-adapter.json", device=run.device, exact=True)
    other = examine(*common, folder / "merge-merged.json", device=run.device, merged=out)
    pairs = list(zip(one.answers, other.answers, strict=True))
    same = sum(1 for adapter, merged in pairs if adapter.after == merged.after)
    notes = []
    if same < len(pairs):
        exact = "" if dtype == "float32" else " --dtype float32 keeps them exact, at twice the size."
        notes.append(f"{dtype} rounds the merged weights: {len(pairs) - same} answers differ in words.{exact}")
    return MergeResult(
        str(folder),
        str(out),
        size,
        dtype,
        one.after.held_out_loss if one.after else None,
        other.after.held_out_loss if other.after else None,
        same,
        len(pairs),
        tuple(notes),
    )
