"""Keeps a base in NF4 as it was loaded, also on CPUs.

On a CPU with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer at its first forward pass in evaluation mode: the scales
and the products become bfloat16. A checkpoint's state_dict undoes that, and quantises the scales again. So each
evaluation followed by a save changes the frozen weights a little, and a resumed run, which has not evaluated yet,
computes something else (measured: a loss of 6.214806 instead of 6.214782 with equal weights and random state).
"""

from __future__ import annotations

from typing import Any


def keep_as_loaded(model: Any) -> Any:
    """Switch the repacking off; layers and versions without it are not changed. Returns the model."""
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = False
    return model
