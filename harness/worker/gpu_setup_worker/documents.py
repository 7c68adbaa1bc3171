"""Sums over a batch's documents, on the batch's own device: what the FLOPs of attention depend on.

A token at position p of its document (p from 0) adds 2p + 1 to the square of the document's length, because the odd
numbers up to 2ℓ - 1 sum to ℓ². With a window W, a token at p ≥ W adds 2W instead: that makes 2Wℓ - W². So no document
has to be cut out of its batch, and nothing waits for the device.
"""

from __future__ import annotations

import torch


def not_padding(tokens: torch.Tensor, positions: torch.Tensor | None, pad: int | None) -> torch.Tensor:
    """The mask of a batch that has none, such as a packed one: batch × positions, False is padding.

    Llama's tokenizers pad with the end-of-text token, which also ends every document. Axolotl numbers the positions of
    padding from 0 as if it were a document: it is the document that begins with `pad`.
    """
    if pad is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if positions is None:
        return tokens != pad
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begin = torch.where(positions == 0, places, 0).cummax(dim=1).values
    return tokens.gather(1, begin) != pad


def document_sums(mask: torch.Tensor, positions: torch.Tensor | None, window: int | None) -> list[torch.Tensor]:
    """Documents, tokens, Σℓ² and Σℓ² under the window: 0-d int64 tensors. `mask`: batch × positions, 0 is padding.

    With packing, a new document has another number in the mask, or its `positions` start again at 0; either is taken
    as a border.
    """
    kept = mask != 0
    begins = torch.ones_like(kept)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    if positions is not None:
        begins = begins | (positions == 0)
    place = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    place = place - torch.where(begins, place, 0).cummax(dim=1).values
    square = torch.where(kept, 2 * place + 1, 0)
    seen = square if window is None else torch.where(kept & (place >= window), 2 * window, square)
    return [(begins & kept).sum(), kept.sum(), square.sum(), seen.sum()]
