"""Is bitsandbytes' NF4 arithmetic correct on this device? Linear4bit compared with dequantise-and-multiply in float64.

The reference does not use bitsandbytes' kernels: packed bytes and (doubly quantised) scales are read from the layer and
multiplied out. A broken kernel gives unrelated results (bitsandbytes#2087: a fused product on gfx1100, although
dequantising was correct); a correct one differs by rounding only. With u the unit roundoff of the compute dtype, v that
of float32 and n terms, each |error| of y = x·Wᵀ is at most

    (5u + (n + 4)v) · Σ|x||w|  +  u·|y|

because code, scale, their product, the term and one partial sum may each be rounded to the compute dtype, sums run in
float32 (n terms, 4 more for the scale), and the result is rounded once. Quantisation itself may move a weight by half
the widest gap of NF4's code times its block's scale, and by what the second quantisation moved the scale.

`python -m gpu_setup_worker.nf4_check [--inject NAME]` prints the result; --inject shows that such an error is detected.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch

# NF4's code: QLoRA (Dettmers et al. 2023), appendix E
CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
BLOCK = 64
HALF_GAP = max(b - a for a, b in pairwise(CODE)) / 2
UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# rows, inputs, outputs: one row (the gemv kernel), few (fused kernels), many (dequantise, then a matrix product)
SHAPES = ((1, 512, 256), (8, 512, 256), (3, 1024, 192), (64, 1024, 512))


class Worst(NamedTuple):
    """The worst entry of one comparison as a share of its bound: above 1 the kernel is broken, and so it is at NaN."""

    what: str
    of_bound: float

    @property
    def passed(self) -> bool:
        return self.of_bound <= 1.0


def scales(state: Any) -> torch.Tensor:
    """The blocks' scales in float64, one per block of 64 weights, with the second quantisation undone."""
    if not state.nested:
        return state.absmax.double()
    second = state.state2
    group = torch.arange(state.absmax.numel(), device=state.absmax.device) // second.blocksize
    return second.code.double()[state.absmax.long()] * second.absmax.double()[group] + state.offset.double()


def dequantise(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """The layer's weights in float64, outputs × inputs: two codes per byte, the high half first."""
    raw = packed.reshape(-1).view(torch.uint8)
    codes = torch.stack((raw >> 4, raw & 15), dim=1).reshape(-1).long()
    values = torch.tensor(CODE, dtype=torch.float64, device=raw.device)[codes]
    return (values.reshape(-1, BLOCK) * scales(state).reshape(-1, 1)).reshape(tuple(state.shape))


def _worst(what: str, error: torch.Tensor, bound: torch.Tensor) -> Worst:
    share = (error.abs() / bound).max().item()
    return Worst(what, share if share == share else float("inf"))


def product_bound(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    u, v = UNIT[dtype], UNIT[torch.float32]
    return (5 * u + (x.shape[-1] + 4) * v) * (x.abs() @ w.abs().T) + u * y.abs() + torch.finfo(torch.float32).tiny


def compare(
    shape: tuple[int, int, int],
    device: str,
    dtype: torch.dtype,
    spoil: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> list[Worst]:
    """One layer: quantisation, forward and the gradient of its input. `spoil` makes the layer's output wrong."""
    import bitsandbytes as bnb

    rows, inputs, outputs = shape
    chance = torch.Generator().manual_seed(20260913)
    w = torch.randn(outputs, inputs, generator=chance).to(dtype)
    x = torch.randn(rows, inputs, generator=chance).to(dtype)
    g = torch.randn(rows, outputs, generator=chance).to(dtype)
    layer = bnb.nn.Linear4bit(inputs, outputs, bias=False, quant_type="nf4", compute_dtype=dtype)
    layer.weight = bnb.nn.Params4bit(w.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer = layer.to(device)
    given = x.to(device).requires_grad_(rows > 1)
    y = layer(given)
    if rows > 1:
        y.backward(g.to(device))
    output = y.detach().double()
    if spoil is not None:
        output = spoil(output)

    real = dequantise(layer.weight.data, layer.weight.quant_state)
    x64, g64 = x.double().to(device), g.double().to(device)
    expected = x64 @ real.T
    label = "x".join(map(str, shape))
    found = [_worst(f"forward {label}", output - expected, product_bound(x64, real, expected, dtype))]
    if rows > 1:
        back = g64 @ real
        assert given.grad is not None
        found.append(_worst(f"gradient {label}", given.grad.double() - back, product_bound(g64, real.T, back, dtype)))
    blocks = w.double().to(device).reshape(-1, BLOCK)
    true = blocks.abs().amax(dim=1, keepdim=True)
    moved = (true - scales(layer.weight.quant_state).reshape(-1, 1)).abs()
    allowed = (HALF_GAP + 2.0**-20) * true + moved
    found.append(_worst(f"quantise {label}", blocks - real.reshape(-1, BLOCK), allowed))
    # the second quantisation has 8 bits: a scale that moved by a tenth is more than rounding
    found.append(_worst(f"scales {label}", moved, 0.1 * true))
    return found


# results of broken kernels that were seen: an unrelated product, a wrong block or a wrong row
FAULTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "unrelated": lambda y: torch.randn_like(y) * y.std(),
    "one-row": lambda y: torch.cat((y[:, 1:2], y[:, 1:]), dim=1),
    "scale": lambda y: y * 1.125,
    "half": lambda y: torch.cat((y[:, : y.shape[1] // 2], torch.zeros_like(y[:, y.shape[1] // 2 :])), dim=1),
}


def check(device: str, dtype: torch.dtype) -> tuple[list[Worst], dict[str, bool]]:
    """Every comparison, and for each kind of fault whether the comparison detects it."""
    if device != "cpu":
        # with it, partial sums may be rounded more often than the bound counts
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    found = [worst for shape in SHAPES for worst in compare(shape, device, dtype)]
    seen = {
        name: not all(worst.passed for worst in compare((8, 512, 256), device, dtype, fault))
        for name, fault in FAULTS.items()
    }
    return found, seen


def compute_dtype(device: str) -> torch.dtype:
    if device == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def main() -> None:
    parser = argparse.ArgumentParser(prog="gpu_setup_worker.nf4_check")
    parser.add_argument("--inject", choices=sorted(FAULTS))
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    spoil = FAULTS[given.inject] if given.inject else None
    found = [worst for shape in SHAPES for worst in compare(shape, device, compute_dtype(device), spoil)]
    # JSON has no infinity
    print(json.dumps({worst.what: min(worst.of_bound, 1e300) for worst in found}, indent=1))
    raise SystemExit(0 if all(worst.passed for worst in found) else 1)


if __name__ == "__main__":
    main()
