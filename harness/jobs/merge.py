"""A run's adapter merged into a plain model folder, which must then give the same answers to the same questions.

run ─▶ gpu_setup_worker.merge ─▶ OUT/ ─▶ examine (the merged model alone) ─▶ MergeResult
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from harness.atomic_files import disk_errors
from harness.environment.worker_process import WorkerContext
from harness.process.diagnosis import describe_exit, process_failure
from harness.recipe.safe_yaml import load_yaml
from harness.training.examination import ExaminationSettings, examine, held_out_file
from harness.training.launch import RunRecord
from machine.errors import BadUsage, Refused, reason
from machine.events import Event
from machine.input_file import read_input

STAGE = "merge"


MergeDtype = Literal["bfloat16", "float16", "float32"]


class MergeResult(msgspec.Struct, frozen=True):
    """The result of `merge`. Losses on the held-out rows; null where the models were not compared.

    `same`: how many of the `answers` are the same as the adapter's, word for word.
    """

    run: str
    folder: str
    bytes: int
    dtype: MergeDtype
    held_out_adapter: float | None = None
    held_out_merged: float | None = None
    same: int | None = None
    answers: int = 0
    notes: tuple[str, ...] = ()


def _no_config(folder: Path, why: str) -> BadUsage:
    return BadUsage(
        "merge.no-config",
        f"The run {folder} cannot be merged: its config.yml cannot be read.",
        f"{why}.",
        "Give the folder of a run that gpu-setup made.",
    )


def is_four_bit(folder: Path) -> bool:
    """Whether the run's base was in 4 bit; raises BadUsage for a run without an adapter."""
    import yaml

    try:
        config = load_yaml(read_input(folder / "config.yml").decode("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _no_config(folder, reason(error)) from error
    if not isinstance(config, dict):
        raise _no_config(folder, "It is no mapping of keys to values")
    if config.get("adapter") not in ("lora", "qlora"):
        raise BadUsage(
            "merge.no-adapter",
            f"The run {folder} has no LoRA adapter, so there is nothing to merge.",
            "A full fine-tune writes a plain model folder itself.",
            f"Its model is in {folder}/adapter.",
        )
    return bool(config.get("load_in_4bit"))


def merge(run: RunRecord, folder: Path, out: Path, dtype: MergeDtype, worker: WorkerContext) -> Path:
    """Write the merged model to `out`, which must not exist; raises Problem."""
    if out.exists():
        raise Refused(
            "merge.out-taken", f"{out} exists already.", "gpu-setup does not overwrite it.", "Give another --out."
        )
    emit = worker.emit
    option = ("--four-bit",) if is_four_bit(folder) else ()
    emit(Event("start", STAGE, f"Merging the adapter into its base: {out}"))
    argv = (
        worker.python, "-m", "gpu_setup_worker.merge", "--base", run.base_model,
        "--adapter", str(folder / "adapter"), "--out", str(out), "--dtype", dtype, *option,
    )  # fmt: skip

    def on_line(line: str) -> None:
        words = line.split()
        if len(words) == 4 and words[0] == "merged" and words[1].isdecimal() and words[3].isdecimal():
            emit(Event("progress", STAGE, "writing", float(words[1]), float(words[3]), "bytes"))

    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        outcome = worker.machine.stream(argv, on_line, env=worker.variables(), log=str(folder / "merge.log"))
    if not outcome.ok:
        raise process_failure(
            "merge.failed",
            "The adapter could not be merged",
            outcome.stdout,
            describe_exit(outcome.rc),
            f"See {folder / 'merge.log'}; then run the same command again.",
        )
    emit(Event("end", STAGE, f"Merged model: {out}"))
    return out


def compare_merged(
    run: RunRecord, folder: Path, out: Path, dtype: MergeDtype, worker: WorkerContext, ask: bool = True
) -> MergeResult:
    """Compare the answers of the adapter on its base and of the merged model; not without `ask`."""
    size = sum(file.stat().st_size for file in out.glob("*"))
    if not ask:
        return MergeResult(
            str(folder), str(out), size, dtype, notes=("The merged model was not compared with the adapter.",)
        )
    wanted = ExaminationSettings(held_out_file(run.traits, folder, run.data is not None))
    exact = msgspec.structs.replace(wanted, exact=True)
    one = examine(run.base_model, folder, exact, worker, folder / "merge-adapter.json")
    other = examine(run.base_model, folder, wanted, worker, folder / "merge-merged.json", out)
    pairs = list(zip(one.answers, other.answers, strict=True))
    same = sum(1 for adapter, merged in pairs if adapter.after == merged.after)
    notes = []
    if same < len(pairs):
        advice = "" if dtype == "float32" else " --dtype float32 keeps them exact, at twice the size."
        changed = len(pairs) - same
        answers = "1 answer differs" if changed == 1 else f"{changed} answers differ"
        notes.append(f"{dtype} rounds the merged weights: {answers}.{advice}")
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
