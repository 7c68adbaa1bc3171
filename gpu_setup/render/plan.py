"""A plan as text: the steps in order, each with its reason; what waits for a person; the totals."""

from __future__ import annotations

import shlex

from gpu_setup.render.facts import size
from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.terminal import style
from provision.model import AptInstall, AptRemove, Plan, Reboot, State, Step, WantedPackage

SIGNS = {
    State.TODO: ("+", "green"),
    State.DONE: ("✓", "bright_black"),
    State.MANUAL: ("☞", "yellow"),
    State.BLOCKED: ("✗", "red"),
}
HINT = "Only a plan: nothing was changed. -v shows each command and how it is undone."


def plan_text(plan: Plan, machine: str, verbose: bool, hint: bool = True) -> str:
    """The whole plan. `verbose` adds commands, undo, and the steps that are done already; `hint` that it is a plan."""
    lines = [*wrap_text(machine, "  ", first=""), ""]
    for refusal in plan.refusals:
        lines += wrap_text(refusal.what, "  ", first=style("✗ ", fg="red", bold=True))
        lines += label_text("why", refusal.why)
        lines += [*label_text("next", refusal.next), ""]
    open_steps = plan.open_steps()
    for step in plan.steps if verbose else open_steps:
        lines += [*_step(step, verbose), ""]
    for note in plan.notes:
        lines += wrap_text(note, "  ", first="· ")
    lines += [*_unresolved(plan), *_sums(plan, hint)]
    return "\n".join(lines).rstrip() + "\n"


def _unresolved(plan: Plan) -> list[str]:
    """What a person must do, because no step of the plan does it."""
    if not plan.unresolved:
        return []
    lines = ["", style("Training needs this first, and the plan does not do it:", bold=True)]
    for left in plan.unresolved:
        lines += wrap_text(f"{left.summary} ({left.check})", "  ", first=style("✗ ", fg="red", bold=True))
        lines += wrap_text(left.fix, "    ")
    return [*lines, ""]


def _step(step: Step, verbose: bool) -> list[str]:
    sign, colour = SIGNS[step.state]
    lines = wrap_text(
        step.title,
        "  ",
        first=style(f"{sign} ", fg=colour, bold=True),
        style=lambda line: style(line, bold=True),
    )
    lines += wrap_text(step.because, "    ")
    if isinstance(step.action, AptInstall):
        lines += _packages(step.action, verbose)
    if isinstance(step.action, (AptInstall, AptRemove)) and (
        removed := (*_removed_packages(step.action), *step.action.removes)
    ):
        lines += wrap_text(f"removes: {', '.join(removed)}", "      ", first="    · ")
    if verbose:
        lines += [f"    $ {shlex.join(command)}" for command in step.commands]
        lines += [f"    {line}" for line in step.diff.splitlines()]
        if step.undo:
            lines += wrap_text(f"undo: {step.undo}", "    ")
    return lines


def next_command(plan: Plan) -> str:
    """After a plan with nothing to do: train, or look at what stops it."""
    return "gpu-setup doctor" if plan.unresolved else "gpu-setup up"


def _packages(action: AptInstall, verbose: bool) -> list[str]:
    """The named packages with their versions; with `verbose` also each dependency, else their number."""

    def shown(wanted: WantedPackage) -> str:
        moved = f"{wanted.installed} → " if wanted.installed and wanted.installed != wanted.version else ""
        return wanted.name + (f" {moved}{wanted.version}" if wanted.version else "")

    names = [shown(wanted) for wanted in action.packages]
    more = [shown(wanted) for wanted in action.brings]
    if more and not verbose:
        names.append(f"and {len(more)} dependencies")
    lines = wrap_text(", ".join(names), "      ", first="    · ")
    if more and verbose:
        lines += wrap_text(f"dependencies: {', '.join(more)}", "      ", first="    · ")
    return lines


def _removed_packages(action: AptInstall | AptRemove) -> tuple[str, ...]:
    return action.packages if isinstance(action, AptRemove) else action.remove


def _sums(plan: Plan, hint: bool) -> list[str]:
    open_steps = plan.open_steps()
    if plan.refusals:
        return []
    if not open_steps:
        following = f"{style('Next: ', bold=True)}{next_command(plan)}"
        return ["No step of gpu-setup's fixes that." if plan.unresolved else "Nothing to do.", following]
    if plan.download_bytes is not None:
        download = f"about {size(plan.download_bytes)} to download"
    else:
        download = plan.download_note or "download size not known"
    reboots = "no reboot" if not plan.reboots else f"{plan.reboots} reboot{'s' if plan.reboots > 1 else ''}"
    people = sum(step.state is State.MANUAL and not isinstance(step.action, Reboot) for step in open_steps)
    parts = [f"{len(open_steps)} step{'s' if len(open_steps) > 1 else ''} to do", reboots]
    if people:
        parts.append(f"{people} need{'s' if people == 1 else ''} you (☞)")
    return [
        *wrap_text(f"{', '.join(parts)}. {download[:1].upper()}{download[1:].rstrip('.')}.", ""),
        *([HINT] if hint else []),
    ]
