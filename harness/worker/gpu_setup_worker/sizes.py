"""What a loaded model computes for each token: the sizes of its matrices, counted on the loaded modules.

Linear layers of every kind (plain, NF4, 8 bit, LoRA's pairs) are subclasses of torch.nn.Linear with their inputs and
outputs; a packed NF4 weight has another shape. Norms and embeddings multiply no matrix.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch


def matrices(model: torch.nn.Module) -> list[tuple[str, torch.nn.Linear]]:
    """Every matrix that a token is multiplied with, by name; without the unused originals that PEFT keeps."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "original_module" not in name.split(".")
    ]


def windowed_layers(config: Any) -> tuple[int, int | None]:
    """How many layers use sliding-window attention, and the window."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return 0, None
    kinds = getattr(config, "layer_types", None)
    count = kinds.count("sliding_attention") if kinds else config.num_hidden_layers
    return (count, window) if count else (0, None)


def sizes(model: torch.nn.Module) -> dict[str, Any] | None:
    """The fields of Sizes (harness/recipe/flops.py); None for a mixture of experts, where a token uses only some."""
    config = model.config
    if any(getattr(config, key, None) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        return None
    found: Counter[str] = Counter()
    for _, module in matrices(model):
        kind = "trained" if module.weight.requires_grad else "frozen"
        head = "_head" if module.out_features == config.vocab_size else ""
        found[kind + head] += module.in_features * module.out_features
    windowed, window = windowed_layers(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {
        **{kind: found[kind] for kind in ("frozen", "frozen_head", "trained", "trained_head")},
        "layers": config.num_hidden_layers,
        "width": config.num_attention_heads * head_dim,
        "windowed": windowed,
        "window": window,
    }


def base_matrices(model: torch.nn.Module) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how many) of the model's own matrices, without LoRA's small pairs."""
    found = Counter(
        (module.in_features, module.out_features)
        for name, module in matrices(model)
        if not any(part.startswith("lora_") for part in name.split("."))
    )
    return [(*shape, count) for shape, count in sorted(found.items())]
