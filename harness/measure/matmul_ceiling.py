"""The matmul ceiling: how fast this device multiplies this model's own matrices, measured before and after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from harness.atomic_files import disk_errors, read_if_valid
from harness.environment.build import Environment
from harness.environment.worker_process import WorkerContext
from harness.process.diagnosis import describe_exit, process_failure
from harness.process.worker_log import StartEvent
from harness.recipe.shapes import LINEARS, Shapes, from_config, lora_pairs, shapes_of
from machine.errors import BadUsage
from machine.events import Event

STAGE = "ceiling"

Matrices = tuple[tuple[int, int, int], ...]


class Ceiling(msgspec.Struct, frozen=True):
    """One measurement: `rounds` in TFLOP/s; `by_matrix`: inputs, outputs, how many, TFLOP/s."""

    device: str
    precision: str
    rows: int
    seconds: float
    rounds: tuple[float, ...]
    threads: int | None = None
    by_matrix: tuple[tuple[int, int, int, float], ...] = ()


class Products(msgspec.Struct, frozen=True):
    """What to multiply: the matrices, the token slots of a micro-batch, and the precision."""

    matrices: Matrices
    rows: int
    precision: str = "auto"
    tf32: bool = False
    trained: bool = False


def products_of(config: dict[str, Any], base_model: str) -> Products | None:
    """The products of a run's config; None where the model's shapes are not known before it is loaded."""
    shapes = _shapes(base_model, str(config.get("base_model")))
    if shapes is None:
        return None
    pairs = lora_pairs(shapes, (*LINEARS, "qkv_proj", "gate_up_proj"))
    return _products(config, (*((i, o, shapes.layers) for _, i, o in pairs), (shapes.hidden, shapes.vocab, 1)))


def products_seen(config: dict[str, Any], start: StartEvent | None) -> Products | None:
    """The products of the model that was loaded; None where not every matrix is used for every token."""
    if start is None or start.sizes is None or not start.matrices:
        return None
    return _products(config, start.matrices)


def _products(config: dict[str, Any], matrices: Matrices) -> Products:
    return Products(
        matrices,
        rows=int(config.get("micro_batch_size") or 1) * int(config.get("sequence_len") or 512),
        precision=precision_of(config),
        tf32=config.get("tf32") is True,
        trained=not config.get("adapter"),
    )


def precision_of(config: dict[str, Any]) -> str:
    """As Axolotl takes `bf16` and `fp16`: auto is bf16 where the card has it."""
    if config.get("bf16") in ("auto", "full", True):
        return "auto" if config["bf16"] == "auto" else "bf16"
    return "fp16" if config.get("fp16") else "fp32"


def _shapes(base_model: str, name: str) -> Shapes | None:
    try:
        written = msgspec.json.decode((Path(base_model) / "config.json").read_bytes(), type=dict[str, Any])
        return from_config(name, written)
    except (OSError, msgspec.MsgspecError, BadUsage):
        return shapes_of(name)


def ceiling_argv(environment: Environment, products: Products) -> tuple[str, ...]:
    switches = [name for name, on in (("--tf32", products.tf32), ("--trained", products.trained)) if on]
    return (
        str(environment.python), "-m", "gpu_setup_worker.matmul_ceiling",
        "--matrices", ",".join("x".join(map(str, matrix)) for matrix in products.matrices),
        "--rows", str(products.rows), "--precision", products.precision, *switches,
    )  # fmt: skip


def measure_ceiling(products: Products, seconds: float, out: Path, worker: WorkerContext) -> Ceiling:
    """Measure for `seconds` and keep the document `out`. Raises OutsideFailed when the measurement fails."""
    worker.emit(
        Event("start", STAGE, f"Measuring how fast this device multiplies the model's matrices ({seconds:.0f} s)")
    )
    with disk_errors(out):
        outcome = worker.machine.stream(
            (*ceiling_argv(worker.environment, products), "--seconds", str(seconds), "--out", str(out)),
            lambda line: None,
            env=worker.variables(),
            log=str(out.with_suffix(".log")),
        )
    found = read_ceiling(out) if outcome.ok else None
    if found is None:
        raise process_failure(
            "bench.ceiling",
            "The model's products cannot be measured",
            outcome.stdout,
            describe_exit(outcome.rc),
            f"See {out.with_suffix('.log')}, then run the same command again.",
        )
    worker.emit(Event("end", STAGE, f"{sorted(found.rounds)[len(found.rounds) // 2]:.3g} TFLOP/s in {found.precision}"))
    return found


def read_ceiling(path: Path) -> Ceiling | None:
    return read_if_valid(path, Ceiling)
