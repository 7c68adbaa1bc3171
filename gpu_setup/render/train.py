"""The result of a training as text: learning, answers before and after, the folder, what to do next."""

from __future__ import annotations

from gpu_setup.render.data import count_text
from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.render.report import ANSWERS_SHOWN, answer_lines, figure
from gpu_setup.terminal import style
from harness.jobs.merge import MergeResult
from harness.jobs.train import TrainingResult
from harness.training.examination import Examination


def trained_text(result: TrainingResult) -> str:
    """80 columns."""
    if result.background is not None:
        return _background_text(result)
    head = style("TRAINED", fg="green", bold=True)
    base = f"{result.recipe} on {count_text(result.rows)} of your data, base model {result.base_model}"
    lines = [*wrap_text(base, " " * 9, first=f"{head}  "), ""]
    lines += _row("steps", f"{result.steps} of {result.planned_steps}")
    if result.seconds is not None:
        lines += _row("time", f"{result.seconds / 60:.1f} min" if result.seconds >= 90 else f"{result.seconds:.0f} s")
    lines += _row("training loss", f"{figure(result.loss_first)} → {figure(result.loss_last)}")
    if result.held_out_after is not None:
        lines += _row("held-out loss", f"{figure(result.held_out_before)} → {figure(result.held_out_after)}")
    elif result.evaluations:
        seen = [each.held_out_loss for each in result.evaluations]
        lines += _row(
            "held-out loss", " → ".join(figure(loss) for loss in (seen if len(seen) < 5 else [seen[0], seen[-1]]))
        )
    if result.resumed_from:
        lines += _row("resumed after", ", ".join(f"step {step}" for step in result.resumed_from))
    lines += _row("adapter", result.adapter or "")
    if result.merged:
        lines += _row("merged model", result.merged)
    if result.answers:
        lines += ["", *answer_lines(result.answers, ANSWERS_SHOWN)]
    if result.notes:
        lines += ["", *(line for note in result.notes for line in wrap_text(note, "  ", first="· "))]
    lines += ["", f'Try it:  gpu-setup try {result.folder} --prompt "…"']
    if not result.merged:
        lines += [f"Merge:   gpu-setup merge {result.folder} --out DIR"]
    return "\n".join(lines) + "\n"


def tried_text(said: Examination) -> str:
    """Every question with both answers, and the loss on the held-out rows."""
    lines = answer_lines(said.answers, len(said.answers))
    if said.before is not None and said.after is not None:
        losses = f"{figure(said.before.held_out_loss)} → {figure(said.after.held_out_loss)}"
        lines += ["", f"Held-out loss: {losses}, over {count_text(said.rows)} that the training did not see."]
    return "\n".join(lines) + "\n"


def _background_text(result: TrainingResult) -> str:
    assert result.background is not None
    lines = [f"The training runs as {result.background.unit}.", ""]
    for label, text in (("watch", result.background.follow), ("stop", result.background.stop)):
        lines += label_text(label, text)
    lines += label_text("then", f"gpu-setup train --resume {result.folder}")
    lines += [line for note in result.notes for line in wrap_text(note, "  ", first="· ")]
    return "\n".join(lines) + "\n"


def merged_text(result: MergeResult) -> str:
    head = style("MERGED", fg="green", bold=True)
    lines = [*wrap_text(result.folder, " " * 8, first=f"{head}  "), ""]
    lines += _row("size", f"{result.bytes / 1e9:.2f} GB, {result.dtype}")
    if result.same is not None:
        lines += _row(
            "held-out loss", f"{figure(result.held_out_adapter, 4)} (adapter), {figure(result.held_out_merged, 4)}"
        )
        lines += _row("same answers", f"{result.same} of {result.answers}, word for word")
    lines += [line for note in result.notes for line in wrap_text(note, "  ", first="· ")]
    return "\n".join(lines) + "\n"


def _row(label: str, value: str) -> list[str]:
    return wrap_text(value, " " * 18, first=f"  {label:<16}")
