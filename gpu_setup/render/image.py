"""Images as a person sees them: what was built, what the proof from inside says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gpu_setup.render.layout import labelled, wrapped
from gpu_setup.render.plain import clean

if TYPE_CHECKING:
    from containers.engine_report import EngineReport
    from containers.image_result import ImageResult
    from containers.verify import Verification

SIGNS = {"pass": ("✓", "green"), "fail": ("✗", "red"), "skip": ("-", "bright_black"), "stub": ("?", "yellow")}


def built_text(image: ImageResult) -> str:
    """The image's name, size and time, and what to do with it."""
    built = image.built
    assert built is not None
    lines = [
        f"Image {image.tag}: {built.size / 1e9:.2f} GB, built in {built.seconds:.0f} s by {clean(built.engine)}",
        f"  {built.cached} of {built.steps} steps were there from before",
        *wrapped(f"stack {image.spec.stack}, because: {image.spec.because}", "  "),
        "  next: gpu-setup image verify",
    ]
    return "\n".join(lines) + "\n"


WAYS = {
    "cdi": "by CDI",
    "gpus": "by the engine's --gpus",
    "nodes": "by their device files and the numbers of their groups",
}


def engine_text(found: EngineReport) -> str:
    """What the engine can, what it cannot, and how the cards that are here get into its containers."""
    engine = found.engine
    name = f"{engine.kind} {engine.version or '(version not known)'}{', rootless' if engine.rootless else ''}"
    lines = [clean(name) + (f", images in {clean(engine.root_dir)}" if engine.root_dir else "")]
    lines += [f"  can     {clean(word)}" for word in engine.can]
    lines += [f"  cannot  {clean(word)}" for word in engine.cannot]
    for way in found.ways:
        if way.access is None:
            lines += wrapped(f"{way.vendor} cards do not reach its containers: {clean(way.why)}", "  ")
            lines += labelled("next", clean(way.next))
        else:
            lines.append(f"  {way.vendor} cards go in {WAYS[way.access]}")
    if not found.ways:
        lines.append("  There is no card that can train, so the processor's image is the one for this machine.")
    return "\n".join(lines) + "\n"


def verification_text(found: Verification) -> str:
    """One line a check, the worst last word at the end."""
    lines = [f"{found.image} on {found.device}"]
    for proof in found.checks:
        sign, colour = SIGNS.get(proof.status, ("?", "yellow"))
        lines += wrapped(
            f"{proof.title}: {clean(proof.reason)}", "    ", first=f"  {click.style(sign, fg=colour, bold=True)} "
        )
    words = {
        "pass": "Proven from inside: this is the right image.",
        "fail": "This image is not right for this machine.",
        "stub": "The device is a stand-in (stub): what needs a real card is not proven.",
    }
    lines += ["", words[found.verdict]]
    if found.verdict == "fail":
        lines += labelled("next", "gpu-setup image build; if it stays, report it with gpu-setup image verify --json")
    return "\n".join(lines) + "\n"
