"""What a benchmark trains on: documents of one exact length (the reference), the recipe's data packed, or as it is.

With exact lengths there is no padding and no chance: each step is the same work on every machine, with any seed, and
FLOPs, tokens and slots are known before the run.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.atomic_files import disk_errors
from harness.environment.worker_process import WORKER, WorkerContext
from harness.process.diagnosis import describe_exit, process_failure
from harness.recipe.loader import SAMPLES, Recipe
from machine.events import Event
from machine.paths import make

STAGE = "workload"
# the cache folder with the documents
DOCUMENTS = "workloads"
WorkloadKind = Literal["exact", "packed", "recipe"]
EXACT: Literal["exact"] = "exact"
PACKED: Literal["packed"] = "packed"
RECIPE: Literal["recipe"] = "recipe"
REFERENCE_LENGTH = 2048
TEXTS = ("house-style.json", "held-out.json")
# settings that would add something other than training to the steps
NOTHING_ELSE: dict[str, Any] = {
    "val_set_size": 0,
    "evals_per_epoch": None,
    "eval_steps": None,
    "saves_per_epoch": None,
    "save_steps": None,
    "save_strategy": "no",
}


class Workload(msgspec.Struct, frozen=True):
    """The documents of a benchmark. Tokens per document and optimizer step are known before the run for exact only.

    `token_budget`: how many tokens each launch was to process, without padding; None: until the recipe ends.
    """

    kind: WorkloadKind
    document_tokens: int | None = None
    tokens_per_step: int | None = None
    steps: int | None = None
    token_budget: int | None = None


def exact_workload(recipe: Recipe, overrides: dict[str, Any], budget: int) -> Workload:
    """Documents of 2048 tokens, or of the recipe's sequence_len where that is shorter; whole steps, rounded up."""
    config = {**recipe.config, **overrides}
    length = min(REFERENCE_LENGTH, int(config.get("sequence_len") or REFERENCE_LENGTH))
    a_step = length * int(config.get("micro_batch_size") or 1) * int(config.get("gradient_accumulation_steps") or 1)
    steps = int(overrides.get("max_steps") or math.ceil(budget / a_step))
    return Workload(EXACT, length, a_step, steps, steps * a_step)


def overrides_for(workload: Workload, data: Path | None) -> dict[str, Any]:
    """What the workload changes in the recipe's config."""
    if workload.kind == PACKED:
        return {**NOTHING_ELSE, "sample_packing": True}
    if workload.kind != EXACT or data is None:
        return {}
    return {
        **NOTHING_ELSE,
        "datasets": [{"path": str(data), "ds_type": "json", "type": None}],
        "sequence_len": workload.document_tokens,
        "sample_packing": False,
        "max_steps": workload.steps,
    }


def ensure_documents(workload: Workload, base_model: str, seed: int, worker: WorkerContext, cache: Path) -> Path:
    """The file of exact-length documents for one launch, made once per model, length, number and seed."""
    assert workload.document_tokens and workload.tokens_per_step and workload.steps
    documents = workload.steps * workload.tokens_per_step // workload.document_tokens
    texts = [SAMPLES / name for name in TEXTS]
    digest = hashlib.sha256((WORKER / "gpu_setup_worker" / "workload.py").read_bytes())
    for part in (base_model, workload.document_tokens, documents, seed):
        digest.update(f"{part}\0".encode())
    for file in texts:
        digest.update(file.read_bytes())
    out = make(cache / DOCUMENTS) / f"exact-{workload.document_tokens}-{digest.hexdigest()[:16]}.jsonl"
    if out.is_file():
        return out
    words = f"Making {documents} documents of exactly {workload.document_tokens} tokens"
    worker.emit(Event("start", STAGE, words))
    with disk_errors(out):
        outcome = worker.machine.stream(
            (
                worker.python, "-m", "gpu_setup_worker.workload", "--model", base_model,
                "--length", str(workload.document_tokens), "--documents", str(documents), "--seed", str(seed),
                "--out", str(out), *map(str, texts),
            ),
            lambda line: None,
            env=worker.variables(),
        )  # fmt: skip
    if not outcome.ok or not out.is_file():
        raise process_failure(
            "workload.failed",
            "The benchmark's documents could not be made",
            outcome.stdout,
            describe_exit(outcome.rc),
            "Run the same command again, or use --workload recipe, which needs no such documents.",
        )
    worker.emit(Event("end", STAGE, f"Documents ready: {out}"))
    return out
