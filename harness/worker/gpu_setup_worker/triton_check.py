"""A small Triton kernel: compiled for a target without a card, and run if there is one.

It has a separate file, because Triton reads a kernel's source from its file.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(a, b, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(out + at, tl.load(a + at, mask=inside) + tl.load(b + at, mask=inside), mask=inside)


def compiled_size(target: str) -> int:
    """Bytes of the machine code for a compute capability (`8.6`) or a gfx name."""
    if target.startswith("gfx"):
        # CDNA and the older GCN compute in waves of 64
        wave = 64 if target.startswith("gfx9") else 32
        goal, kind = GPUTarget("hip", target, wave), "hsaco"
    else:
        goal, kind = GPUTarget("cuda", int(target.replace(".", "")), 32), "cubin"
    source = ASTSource(
        fn=add,
        signature={"a": "*fp32", "b": "*fp32", "out": "*fp32", "n": "i32", "BLOCK": "constexpr"},
        constexprs={"BLOCK": 256},
    )
    return len(triton.compile(source, target=goal).asm[kind])


def add_on_device() -> bool:
    a, b = torch.rand(1000, device="cuda"), torch.rand(1000, device="cuda")
    out = torch.empty_like(a)
    add[(4,)](a, b, out, a.numel(), BLOCK=256)
    return torch.equal(out, a + b)
