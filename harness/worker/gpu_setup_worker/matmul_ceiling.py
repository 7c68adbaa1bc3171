"""How fast this device multiplies matrices of this model's shapes: the ceiling that training cannot exceed.

`python -m gpu_setup_worker.matmul_ceiling --matrices 4096x4096x64,4096x14336x64 --rows 4096 --seconds 30 --out FILE`
A matrix is inputs x outputs x how many the model has; `rows` are the token slots of a micro batch. One round multiplies
each shape as training does: forward (x·Wᵀ) and the gradient of the input (g·W); with --trained that of the weights
(gᵀ·x) too. A round's figure is its FLOPs divided by its time, each shape weighted by its number in the model, so that
the shapes with most of the work count most. Inputs are normally distributed: zeros run about 15 % faster, because they
toggle no bits. PyTorch's own switches (reduced-precision sums) are as in training.

With --until-stopped it runs until it is killed, to heat a card before a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch

from gpu_setup_worker.parent import end_with_parent

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Matrix(NamedTuple):
    inputs: int
    outputs: int
    count: int


class Operands:
    """Random operands for the largest shape; every other shape is a view of them, so that little memory is needed."""

    def __init__(self, matrices: list[Matrix], rows: int, dtype: torch.dtype, device: str) -> None:
        chance = torch.Generator(device=device).manual_seed(1)

        def random(size: int) -> torch.Tensor:
            return torch.randn(size, generator=chance, dtype=dtype, device=device)

        self._rows = rows
        self._x = random(rows * max(m.inputs for m in matrices))
        self._g = random(rows * max(m.outputs for m in matrices))
        self._w = random(max(m.inputs * m.outputs for m in matrices))
        self._out = torch.empty(max(len(self._x), len(self._g), len(self._w)), dtype=dtype, device=device)

    def products(self, matrix: Matrix, trained: bool) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """(left, right, output) of each product that training makes with a matrix of this shape."""
        inputs, outputs, _ = matrix
        x = self._x[: self._rows * inputs].view(self._rows, inputs)
        g = self._g[: self._rows * outputs].view(self._rows, outputs)
        w = self._w[: inputs * outputs].view(outputs, inputs)
        wanted = [(x, w.t(), (self._rows, outputs)), (g, w, (self._rows, inputs))]
        if trained:
            wanted.append((g.t(), x, (outputs, inputs)))
        return [(a, b, self._out[: rows * width].view(rows, width)) for a, b, (rows, width) in wanted]


def clock(gpu: bool) -> Any:
    if not gpu:
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(begin: Any, end: Any) -> float:
    return begin.elapsed_time(end) / 1000 if isinstance(begin, torch.cuda.Event) else end - begin


def one_round(
    matrices: list[Matrix], operands: Operands, trained: bool, gpu: bool
) -> list[tuple[Matrix, float, float]]:
    """Each shape's FLOPs and seconds for its products. A GPU's queue is kept full; times are read at the end."""
    marks = []
    for matrix in matrices:
        products = operands.products(matrix, trained)
        begin = clock(gpu)
        for left, right, out in products:
            torch.mm(left, right, out=out)
        marks.append(
            (matrix, sum(2.0 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in products), begin, clock(gpu))
        )
    if gpu:
        torch.cuda.synchronize()
    return [(matrix, flops, seconds_between(begin, end)) for matrix, flops, begin, end in marks]


def measure(
    matrices: list[Matrix], rows: int, dtype: torch.dtype, device: str, seconds: float, trained: bool, fewest: int = 3
) -> dict[str, Any]:
    """Rounds until `seconds` are over, at least `fewest`, after one warm-up round. Figures in TFLOP/s."""
    gpu, operands = device == "cuda", Operands(matrices, rows, dtype, device)
    one_round(matrices, operands, trained, gpu)
    rounds: list[float] = []
    by_matrix: dict[Matrix, list[float]] = {matrix: [] for matrix in matrices}
    begin = perf_counter()
    while perf_counter() - begin < seconds or len(rounds) < fewest:
        found = one_round(matrices, operands, trained, gpu)
        work = sum(matrix.count * flops for matrix, flops, _ in found)
        rounds.append(work / sum(matrix.count * took for matrix, _, took in found) / 1e12)
        for matrix, flops, took in found:
            by_matrix[matrix].append(flops / took / 1e12)
    return {
        "device": torch.cuda.get_device_name(0) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "rows": rows,
        "seconds": perf_counter() - begin,
        "rounds": rounds,
        "by_matrix": [[*matrix, median(found)] for matrix, found in by_matrix.items()],
    }


def parse_matrices(text: str) -> list[Matrix]:
    """Counts of equal shapes are added; the order is that of the text."""
    counts: dict[tuple[int, int], int] = {}
    for word in text.split(","):
        inputs, outputs, count = (int(part) for part in word.split("x"))
        counts[inputs, outputs] = counts.get((inputs, outputs), 0) + count
    return [Matrix(*shape, count) for shape, count in counts.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.matmul_ceiling")
    parser.add_argument("--matrices", type=parse_matrices, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--precision", choices=[*DTYPES, "auto"], default="auto")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--until-stopped", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    end_with_parent()
    gpu = torch.cuda.is_available()
    precision = given.precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if gpu else "fp32"
    torch.backends.cuda.matmul.allow_tf32 = given.tf32
    seconds = float("inf") if given.until_stopped else given.seconds
    with torch.inference_mode():
        result = measure(
            given.matrices, given.rows, DTYPES[precision], "cuda" if gpu else "cpu", seconds, given.trained
        )
    result |= {"precision": precision, "tf32": given.tf32, "trained": given.trained}
    # written to a temporary file and renamed: an incomplete document must never be read as complete
    partial = given.out.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    os.replace(partial, given.out)


if __name__ == "__main__":
    main()
