"""A run of apply or rollback as text: what was done, what remains, what comes next."""

from __future__ import annotations

from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.terminal import style
from provision.apply.journal import ApplyRun, ApplyStatus

SIGNS = {
    "done": ("✓", "green"),
    "already": ("✓", "bright_black"),
    "left": ("!", "yellow"),
    "manual": ("☞", "yellow"),
    "waiting": ("·", "bright_black"),
    "running": ("…", "cyan"),
    "failed": ("✗", "red"),
}
HEADS = {
    "none": "Nothing was applied on this machine yet.",
    "unknown": "Unknown: something was applied on this machine, and the file with its state is missing or damaged.",
    "running": "Running.",
    "cut-off": "Interrupted: by a power cut, or somebody stopped it.",
    "restart": "A reboot comes next.",
    "restarted": "The machine has rebooted; the remaining steps can continue.",
    "person": "Waiting for you.",
    "done": "Done.",
    "failed": "Failed.",
}
BACK = {
    "done": "Rolled back.",
    "running": "Rolling back.",
    "failed": "The rollback failed.",
    "person": "Rolled back, except for what waits for you.",
}


def run_text(run: ApplyRun) -> str:
    """Head, the steps that were open, notes, the problem, what comes next."""
    nothing = run.standing == "done" and all(step.outcome == "already" for step in run.steps)
    return _text(run, "Nothing to do." if nothing else _head(run, run.standing), run.next)


def status_text(status: ApplyStatus) -> str:
    armed = "\nIt continues automatically after the next boot." if status.armed else ""
    if status.run is None:
        return f"{HEADS[status.standing]}{armed}\n{style('Next: ', bold=True)}{status.next}\n"
    return _text(status.run, _head(status.run, status.standing) + armed, status.next)


def _head(run: ApplyRun, standing: str) -> str:
    return (BACK if run.kind == "rollback" and standing in BACK else HEADS).get(standing, standing)


def _text(run: ApplyRun, head: str, next: str) -> str:
    lines = [style(head, bold=True)]
    for step in run.steps:
        if step.outcome == "already":
            continue
        sign, colour = SIGNS.get(step.outcome, ("·", "white"))
        lines += wrap_text(step.title, "  ", first=style(f"{sign} ", fg=colour, bold=True))
        if step.outcome == "left":
            lines += [f"    {line}" for line in step.note.splitlines()[:20]]
    for note in run.notes:
        lines += wrap_text(note, "  ", first="· ")
    if run.problem is not None:
        lines += wrap_text(run.problem.what, "  ", first=style("✗ ", fg="red", bold=True))
        if run.problem.why:
            lines += label_text("why", run.problem.why)
    if next:
        lines += wrap_text(next, "      ", first=style("Next: ", bold=True))
    return "\n".join(lines) + "\n"
