"""What to do with a report: the command that helps most comes first, and one command for several findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from checks.model import Finding, Fix, FixKind
from gpu_setup.render.layout import wrap_text
from gpu_setup.terminal import style

if TYPE_CHECKING:
    from provision.model import Plan

APPLY = "gpu-setup apply"
_INDENT = " " * 6
# ids of steps that make no driver work (provision/plan/training_needs.py, device_groups.py, container_engine.py)
_FOR_TRAINING = ("compiler", "python-venv", "groups")
_FOR_CONTAINERS = ("docker", "podman", "container", "cdi")
_INSTALLERS = (("apt-get", "install"), ("dnf", "install"), ("zypper", "install"), ("pacman", "-S"))


class Action(NamedTuple):
    """What a person does next for these findings: a `command` (empty: only what `text` says)."""

    text: str
    command: str
    findings: tuple[Finding, ...]


def command_text(argv: Iterable[str], sudo: bool = False) -> str:
    # only where there is something to fix
    import shlex

    return shlex.join([*(["sudo"] if sudo else []), *argv])


def next_lines(
    findings: Sequence[Finding], plan: Callable[[], Plan | None], failed: bool, last: str, as_root: bool
) -> list[str]:
    """The end of the report. `findings` are the root causes in the report's order.

    `plan` is asked for only if it may fix one of them; `last` is the command when nothing is left to fix.
    """
    fixable = [finding for finding in findings if finding.fix is not None]
    if failed and not fixable:
        return _step("Next", "gpu-setup doctor --explain ID explains a failed check.", "")
    actions = _actions(fixable, plan() if any(map(_may_be_planned, fixable)) else None, as_root)
    # of what comes later, one command for several findings is worth a line
    shown = [*actions[:2], *(action for action in actions[2:] if len(action.findings) > 1)]
    lines: list[str] = []
    for action in shown:
        lines += _step("then" if lines else "Next", action.text, action.command)
    return lines if failed else [*lines, *_step("then" if lines else "Next", last, "")]


def _step(word: str, text: str, command: str) -> list[str]:
    lines = wrap_text(text, _INDENT, first=style(f"{word}: ", bold=word == "Next"))
    return [*lines, f"{_INDENT}$ {command}"] if command else lines


def _actions(findings: Iterable[Finding], plan: Plan | None, as_root: bool) -> list[Action]:
    """What to do for each, in order; what one command does together is one action, at the place of its first."""
    together: dict[object, list[Finding]] = {}
    for finding in findings:
        fix = finding.fix
        assert fix is not None
        refused = fix.kind is FixKind.PROVISION and plan is not None and plan.refusals
        key = APPLY if is_planned(finding, plan) else refused or _installer(fix) or (fix.text, fix.argv)
        together.setdefault(key, []).append(finding)
    return [_apply(alike) if key == APPLY else _by_command(alike, plan, as_root) for key, alike in together.items()]


def _apply(findings: list[Finding]) -> Action:
    return Action(f"{APPLY} (shows its plan and asks first; fixes {_ids(findings)})", "", tuple(findings))


def _by_command(findings: list[Finding], plan: Plan | None, as_root: bool) -> Action:
    fix = findings[0].fix
    assert fix is not None
    argv, text = fix.argv, fix.text
    if len(findings) > 1 and _installer(fix):
        packages = (word for finding in findings if finding.fix for word in finding.fix.argv[2:])
        argv, text = (*argv[:2], *dict.fromkeys(packages)), "Install what is missing."
    elif fix.kind is FixKind.PROVISION:
        argv = ()
        if plan is not None and plan.refusals:
            text = f"{plan.refusals[0].what} {plan.refusals[0].next}"
    command = command_text(argv, fix.needs_sudo and not as_root) if argv else ""
    return Action(f"{text} ({_ids(findings)})", command, tuple(findings))


def _ids(findings: Iterable[Finding]) -> str:
    return ", ".join(dict.fromkeys(finding.check for finding in findings))


def _installer(fix: Fix) -> tuple[str, ...] | None:
    """`apt-get install` where the fix is to install packages, and nothing else."""
    plain = fix.argv[:2] in _INSTALLERS and not any(word.startswith("-") for word in fix.argv[2:])
    return fix.argv[:2] if plain and not (fix.needs_reboot or fix.needs_relogin) else None


def _may_be_planned(finding: Finding) -> bool:
    fix = finding.fix
    return fix is not None and (
        fix.kind is FixKind.PROVISION or fix.argv[:1] in (("apt-get",), ("usermod",), ("dpkg",))
    )


def is_planned(finding: Finding, plan: Plan | None) -> bool:
    """Whether a step of the plan that is still to do makes the change that the fix names."""
    if plan is None or plan.refusals or finding.fix is None:
        return False
    from provision.model import AptKey, AptRepo, DpkgRepair, Reboot, State, UserGroup

    steps = [step for step in plan.steps if step.state is State.TODO and not isinstance(step.action, Reboot)]
    words = finding.fix.argv
    if finding.fix.kind is FixKind.PROVISION:
        group = finding.check.partition(".")[0]
        return any(
            (group == "container") is _is_for_containers(step.id)
            or (group == "apt" and isinstance(step.action, (AptKey, AptRepo)))
            for step in steps
            if step.id not in _FOR_TRAINING
        )
    if words[:2] == ("apt-get", "install"):
        return set(words[2:]) <= set(plan.packages())
    if words[:2] in (("apt-get", "remove"), ("dpkg", "--remove")):
        names = {word for word in words[2:] if not word.startswith("-")}
        return names <= {name for step in steps for name in step.action.removed_packages()}
    if words[:2] == ("dpkg", "--configure"):
        return any(isinstance(step.action, DpkgRepair) for step in steps)
    if words[:1] == ("usermod",):
        return any(
            isinstance(step.action, UserGroup)
            and step.action.user == words[-1]
            and set(words[-2].split(",")) <= set(step.action.groups)
            for step in steps
        )
    return False


def _is_for_containers(step_id: str) -> bool:
    return any(word in step_id for word in _FOR_CONTAINERS)
