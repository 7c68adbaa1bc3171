"""Keeps a base in NF4 as it was loaded, on processors too.

On a processor with AVX512-BF16, bitsandbytes 0.50.2 repacks a layer at its first forward pass in evaluation mode: the
scales become bfloat16 and the products too. A checkpoint's state_dict turns that back, and quantises the scales anew.
So each evaluation with a save behind it changes the frozen weights a little, and a run that was gone on with, which has
not evaluated yet, computes something else (measured: a loss of 6.214806 for 6.214782 with equal weights and random
state).
"""

from __future__ import annotations

from typing import Any


def keep_as_loaded(model: Any) -> Any:
    """Switch the repacking off; a layer or a version that does not have it is left alone. Returns the model."""
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = False
    return model
