"""FLOPs of training, from the sizes of the model's matrices and the lengths of the documents.

A token costs 2 FLOPs per parameter in the forward pass, 2 for the gradient of a matrix's input, and 2 for the gradient
of its weights where the matrix is trained (a frozen one needs none). Looking up an embedding costs nothing. In causal
attention a token is multiplied with the tokens up to itself, ℓ/2 on average in a document of length ℓ. Scores and
values are two products of 2·h FLOPs for each pair forward, and twice that backward: 12·h·ℓ²/2 per document and layer.

    FLOPs = (4·frozen + 6·trained)·Σℓ + 6·layers·h·Σℓ²

Σ is over documents, not over sequences: packed documents do not see each other. With a sliding window W, the ℓ² of a
longer document becomes 2Wℓ - W². Recomputed operations are not counted, as MFU (model FLOPs utilisation) defines it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from harness.recipe.shapes import Shapes, lora_parameters


class Sizes(msgspec.Struct, frozen=True):
    """The matrices that each token is multiplied with, in parameters, and what attention needs.

    `frozen` and `trained` are in the layers (LoRA's pairs are trained), the heads are the output matrix. `width`: all
    query heads together (for most models the hidden size). `windowed` of the `layers` see at most `window` tokens.
    """

    frozen: int
    frozen_head: int
    trained: int
    layers: int
    width: int
    trained_head: int = 0
    windowed: int = 0
    window: int | None = None


class DocumentSums(msgspec.Struct, frozen=True):
    """Sums over documents: their tokens, the squares of their lengths, and the squares limited by the window."""

    tokens: int
    squares: int
    window_squares: int

    @property
    def mean_length(self) -> float:
        """The document length that the average token belongs to: Σℓ²/Σℓ."""
        return self.squares / self.tokens


def sum_documents(lengths: Sequence[int], window: int | None = None) -> DocumentSums:
    return DocumentSums(
        sum(lengths),
        sum(length**2 for length in lengths),
        sum(visible_square(length, window) for length in lengths),
    )


def visible_square(length: int, window: int | None) -> int:
    """ℓ², or 2Wℓ - W² for a document longer than the window."""
    return length**2 if window is None or length <= window else 2 * window * length - window**2


def sizes_of(shapes: Shapes, r: int, targets: Sequence[str]) -> Sizes:
    """The sizes of a LoRA of rank `r` on a frozen model, from the model's shapes alone; r = 0: no adapter."""
    windowed = round(shapes.layers * shapes.window_share) if shapes.window else 0
    return Sizes(
        frozen=shapes.block_parameters,
        frozen_head=shapes.head_parameters,
        trained=lora_parameters(shapes, r, targets) if r else 0,
        layers=shapes.layers,
        width=shapes.query,
        windowed=windowed,
        window=shapes.window,
    )


def training_flops(sizes: Sizes, seen: DocumentSums) -> float:
    """Model FLOPs of training on these documents once: forward and backward, without recomputation."""
    frozen, trained = sizes.frozen + sizes.frozen_head, sizes.trained + sizes.trained_head
    return (4.0 * frozen + 6.0 * trained) * seen.tokens + 6.0 * _attention(sizes, seen)


def hardware_flops(sizes: Sizes, seen: DocumentSums, checkpointing: bool) -> float:
    """What the device computes: with full checkpointing each layer's forward pass runs twice, the head's once."""
    if not checkpointing:
        return training_flops(sizes, seen)
    linear = 6.0 * sizes.frozen + 4.0 * sizes.frozen_head + 8.0 * sizes.trained + 6.0 * sizes.trained_head
    return linear * seen.tokens + 8.0 * _attention(sizes, seen)


def mfu_limit(sizes: Sizes, seen: DocumentSums, checkpointing: bool) -> float:
    """The highest share of the matmul ceiling that MFU can reach, because checkpointing computes some of it twice."""
    return training_flops(sizes, seen) / hardware_flops(sizes, seen, checkpointing)


def _attention(sizes: Sizes, seen: DocumentSums) -> float:
    whole = sizes.layers - sizes.windowed
    return float(sizes.width) * (whole * seen.squares + sizes.windowed * seen.window_squares)
