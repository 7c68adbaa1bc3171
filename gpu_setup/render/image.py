"""Images as text: what was built, and the result of the verification from inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.terminal import style

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
        f"Image {image.tag}: {built.size / 1e9:.2f} GB, built in {built.seconds:.0f} s by {built.engine}",
        f"  {built.cached} of {built.steps} steps came from the cache",
        *wrap_text(f"stack {image.spec.stack}: {image.spec.because}", "  "),
        "  next: gpu-setup image verify",
    ]
    return "\n".join(lines) + "\n"


WAYS = {
    "cdi": "through CDI",
    "gpus": "through the engine's --gpus",
    "nodes": "through their device files and group numbers",
}


def engine_text(found: EngineReport) -> str:
    """What the engine can do, what it cannot, and how this machine's cards get into its containers."""
    engine = found.engine
    name = f"{engine.kind} {engine.version or '(version not known)'}{', rootless' if engine.rootless else ''}"
    lines = [name + (f", images in {engine.root_dir}" if engine.root_dir else "")]
    lines += [f"  can     {word}" for word in engine.can]
    lines += [f"  cannot  {word}" for word in engine.cannot]
    for way in found.ways:
        if way.access is None:
            lines += wrap_text(f"{way.vendor} cards cannot be used in containers: {way.why}", "  ")
            lines += label_text("next", way.next)
        else:
            lines.append(f"  {way.vendor} cards are passed to containers {WAYS[way.access]}")
    if not found.ways:
        lines.append("  No card here can train, so this machine uses the CPU image.")
    return "\n".join(lines) + "\n"


def verification_text(found: Verification) -> str:
    """One line per check, the verdict at the end."""
    lines = [f"{found.image} on {found.device}"]
    for proof in found.checks:
        sign, colour = SIGNS.get(proof.status, ("?", "yellow"))
        lines += wrap_text(f"{proof.title}: {proof.reason}", "    ", first=f"  {style(sign, fg=colour, bold=True)} ")
    words = {
        "pass": "Verified from inside: the image is correct.",
        "fail": "This image does not fit this machine.",
        "stub": "The GPU is a stub: what needs a real card is not verified.",
    }
    lines += ["", words[found.verdict]]
    if found.verdict == "fail":
        lines += label_text(
            "next", "gpu-setup image build; if it fails again, report it with gpu-setup image verify --json"
        )
    return "\n".join(lines) + "\n"
