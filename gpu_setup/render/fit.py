"""The prediction of memory as a person reads it: the verdict, the parts as bars, and what would fit."""

from __future__ import annotations

import click
import msgspec

from gpu_setup.render.layout import wrapped
from gpu_setup.render.plain import clean
from harness.memory.fit import FitResult

BAR = 32

LABELS = {
    "weights": "weights",
    "quant_constants": "NF4's constants",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer states",
    "activations": "activations",
    "logits": "logits and loss",
    "workspace": "workspace, slack",
    "context": "driver's context",
}

MOMENTS = {
    "loss": "while the loss is computed",
    "backward": "while a layer is computed backward",
    "step": "in the optimizer's step",
}


def fit_text(fit: FitResult) -> str:
    lines = [*_verdict(fit), *wrapped(_job(fit), "  "), ""]
    parts = msgspec.structs.asdict(fit.parts)
    top = max(*parts.values(), 1)
    for name, size in parts.items():
        bar = "█" * round(BAR * size / top) or ("▏" if size else "")
        lines.append(f"  {LABELS[name]:<18}{_gb(size):>9} GB  {bar}".rstrip())
    lines.append(f"  {'total':<18}{_gb(fit.total_bytes):>9} GB  at the peak, {MOMENTS[fit.peak_at]}")
    lines += ["", *_room(fit)]
    answering = f"{_gb(fit.inference.weights_bytes)} GB of weights and {_gb(fit.inference.cache_bytes)} GB of cache"
    lines += wrapped(f"Only answering, not training: {answering}.", "  ", first="· ")
    for note in fit.notes:
        lines += wrapped(note, "  ", first="· ")
    return "\n".join(lines) + "\n"


def _verdict(fit: FitResult) -> list[str]:
    if fit.fits is None:
        return wrapped("No card is named and none is here: the prediction alone. Name one with --card.", "  ")
    word = click.style("FITS", fg="green", bold=True) if fit.fits else click.style("DOES NOT FIT", fg="red", bold=True)
    width = 6 if fit.fits else 14
    assert fit.card_bytes is not None
    told = f"{_gb(fit.total_bytes)} GB of the {_gb(fit.card_bytes)} GB that {clean(fit.card or '')} has for it"
    return wrapped(told, " " * width, first=f"{word}  ")


def _job(fit: FitResult) -> str:
    job = fit.job
    adapter = f" r {job.rank}" if job.rank else ""
    return clean(
        f"{job.model}, {job.method}{adapter}: {job.batch} x {job.seq:,} tokens, "
        f"{'packed' if job.packing else 'not packed'}, {'with' if job.checkpointing else 'without'} checkpointing, "
        f"{job.optimizer}, {job.dtype} (recipe {job.recipe})"
    )


def _room(fit: FitResult) -> list[str]:
    if fit.card_source is None or fit.largest is None:
        return []
    lines = wrapped(f"{clean(fit.card or '')}: {fit.card_source}.", "  ", first="· ")
    batch, seq = fit.largest.batch, fit.largest.seq
    if not batch and not seq:
        return [*lines, *wrapped("Neither one sequence nor a shorter one fits.", "  ", first="· ")]
    told = [
        f"{batch} sequence{'s' if batch > 1 else ''} of {fit.job.seq:,} tokens at a time"
        if batch
        else f"no batch of {fit.job.seq:,} tokens",
        f"sequences of {seq:,} tokens {fit.job.batch} at a time" if seq else "no sequence at this batch",
    ]
    return [*lines, *wrapped(f"The largest that fits: {'; or '.join(told)}.", "  ", first="· ")]


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
