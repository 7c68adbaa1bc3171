"""The prediction of memory as text: the verdict, the parts as bars, and what would fit."""

from __future__ import annotations

import msgspec

from gpu_setup.render.layout import wrap_text
from gpu_setup.terminal import style
from harness.memory.fit import FitResult

BAR = 32

LABELS = {
    "weights": "weights",
    "quant_constants": "NF4 constants",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits and loss",
    "workspace": "workspace, slack",
    "context": "driver context",
}

MOMENTS = {
    "loss": "while the loss is computed",
    "backward": "in the backward pass of a layer",
    "step": "in the optimizer step",
}


def fit_text(fit: FitResult) -> str:
    lines = [*_verdict(fit), *wrap_text(_job(fit), "  "), ""]
    parts = msgspec.structs.asdict(fit.parts)
    top = max(*parts.values(), 1)
    for name, size in parts.items():
        bar = "█" * round(BAR * size / top) or ("▏" if size else "")
        lines.append(f"  {LABELS[name]:<18}{_gib(size):>9} GiB  {bar}".rstrip())
    lines.append(f"  {'total':<18}{_gib(fit.total_bytes):>9} GiB  at the peak, {MOMENTS[fit.peak_at]}")
    lines += ["", *_room(fit)]
    inference = f"{_gib(fit.inference.weights_bytes)} GiB of weights and {_gib(fit.inference.cache_bytes)} GiB of cache"
    lines += wrap_text(f"Inference only: {inference}.", "  ", first="· ")
    for note in fit.notes:
        lines += wrap_text(note, "  ", first="· ")
    return "\n".join(lines) + "\n"


def _verdict(fit: FitResult) -> list[str]:
    if fit.fits is None:
        return wrap_text("No card found: this is the prediction only. Name a card with --card.", "  ")
    word = style("FITS", fg="green", bold=True) if fit.fits else style("DOES NOT FIT", fg="red", bold=True)
    width = 6 if fit.fits else 14
    assert fit.card_bytes is not None
    words = f"{_gib(fit.total_bytes)} GiB of the {_gib(fit.card_bytes)} GiB available on {fit.card or ''}"
    return wrap_text(words, " " * width, first=f"{word}  ")


def _job(fit: FitResult) -> str:
    job = fit.job
    adapter = f" r {job.rank}" if job.rank else ""
    return (
        f"{job.model}, {job.method}{adapter}: {job.batch} x {job.seq:,} tokens, "
        f"{'packed' if job.packing else 'not packed'}, {'with' if job.checkpointing else 'without'} checkpointing, "
        f"{job.optimizer}, {job.dtype} (recipe {job.recipe})"
    )


def _room(fit: FitResult) -> list[str]:
    if fit.card_source is None or fit.largest is None:
        return []
    lines = wrap_text(f"{fit.card or ''}: {fit.card_source}.", "  ", first="· ")
    batch, seq = fit.largest.batch, fit.largest.seq
    if not batch and not seq:
        return [*lines, *wrap_text("Not even one short sequence fits.", "  ", first="· ")]
    largest = [
        f"micro-batch size {batch} at sequence length {fit.job.seq:,}"
        if batch
        else f"no micro-batch at sequence length {fit.job.seq:,}",
        f"sequence length {seq:,} at micro-batch size {fit.job.batch}"
        if seq
        else "no sequence at this micro-batch size",
    ]
    return [*lines, *wrap_text(f"The largest that fits: {'; or '.join(largest)}.", "  ", first="· ")]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
