"""Completes a plan with apt's answers: exact versions, installs and removals, bytes; and which branch has modules."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.facts.kernel import version_key
from machine.errors import Problem
from machine.local import LocalMachine, Machine, Unreadable
from provision.apply import file_actions
from provision.apply.status import last_run, reopen_interrupted
from provision.model import (
    AptInstall,
    AptKey,
    AptPreference,
    AptRemove,
    AptRepo,
    DpkgRepair,
    Plan,
    Refusal,
    State,
    Step,
    WantedPackage,
    WriteFile,
    seal,
)
from provision.plan.driver.driver_set import module_package
from provision.plan.driver.kernels import flavours
from provision.plan.package_steps import names, sentence
from provision.plan.planner import NO_DOWNLOAD, make_plan
from provision.plan.unresolved import with_unresolved
from provision.resolve.apt_sandbox import AptSandbox, UnknownPackages, open_sandbox
from provision.system import system_files
from provision.system.apt_simulation import NO_CHANGE, AptChange
from provision.target import PlanTarget

ELSEWHERE = "Versions and sizes are not known: apt can be asked only on the machine itself."
UNFINISHED = "Versions and sizes are not known until dpkg is repaired."
# what they install changes apt's answers to the steps after them
ALONE = ("nvidia-driver", "nvidia-branch-lock")
_IMAGE = re.compile(r"linux-image-(?:unsigned-)?([0-9][0-9a-z.~+-]*)")


class BranchUnavailable(Exception):
    """The driver's packages are not suitable for this machine; the text says why."""


class AptAnswers(NamedTuple):
    steps: tuple[Step, ...]
    size: int | None
    notes: tuple[str, ...]


def resolve_plan(host: Host, catalogue: Catalogue, target: PlanTarget, machine: Machine) -> Plan:
    """The plan, with apt's answers if it is for this machine, and with what it leaves unresolved."""
    from checks.registry import ALL
    from checks.runner import run

    return with_unresolved(_resolve(host, catalogue, target, machine), run(host, catalogue, ALL))


def _resolve(host: Host, catalogue: Catalogue, target: PlanTarget, machine: Machine) -> Plan:
    """Writes only into a temporary folder.

    A branch without packages, or without modules for the next kernel, is skipped, and the next one tried. The next
    kernel is the one that boots next, and also the one that the next upgrade installs.
    """
    without: tuple[int, ...] = ()
    problems: list[str] = []
    check_upgrade, kernel_note = True, ""
    while True:
        made = with_differences(make_plan(host, catalogue, target, without), machine)
        if problems and made.refusals and check_upgrade:
            # no branch has modules for the kernel of the next upgrade: choose for the current, which the guard boots
            without, problems, check_upgrade, kernel_note = (), [], False, problems[0]
            continue
        if made.refusals or not any(_needs_apt(step) for step in made.steps):
            return _refuse_no_modules(made, problems) if problems and made.refusals else made
        if not isinstance(machine, LocalMachine):
            return _with_note(made, ELSEWHERE)
        if any(isinstance(step.action, DpkgRepair) for step in made.steps):
            return _with_note(made, UNFINISHED)
        try:
            done = _ask_apt(made, host, machine, _kernel_metas(host, catalogue) if check_upgrade else ())
            return _with_kernel_note(done, kernel_note) if kernel_note else done
        except BranchUnavailable as problem_text:
            branch = _branch(made)
            problems.append(str(problem_text))
            if branch is None or branch in without or target.branch is not None:
                if not check_upgrade:
                    return _refuse_no_modules(made, problems)
                without, problems, check_upgrade, kernel_note = (), [], False, str(problem_text)
                continue
            without = (*without, branch)
        except UnknownPackages as unknown:
            return _with_refusal(
                made,
                Refusal(
                    code="plan.unknown-package",
                    what=f"apt has no package {unknown}.",
                    why="The repositories that are enabled here, and those that the plan adds, do not have it.",
                    next="sudo apt-get update, then gpu-setup plan; a mirror may lack restricted or universe",
                ),
            )
        except Problem as problem:
            return _with_note(made, f"Versions and sizes are not known: {problem.why or problem.what}")


def _with_kernel_note(made: Plan, problem_text: str) -> Plan:
    note = f"{sentence(problem_text)} The current kernel keeps booting until then (next-boot-guard)."
    return seal(msgspec.structs.replace(made, notes=(*made.notes, note)))


def with_differences(made: Plan, machine: Machine) -> Plan:
    """The plan with the change of each step's file, and with the steps that the last run was interrupted in."""
    steps = tuple(_with_difference(step, machine) for step in reopen_interrupted(made.steps, last_run(machine)))
    return made if steps == made.steps else seal(msgspec.structs.replace(made, steps=steps))


def _with_difference(step: Step, machine: Machine) -> Step:
    action = step.action
    if step.state is not State.TODO or not isinstance(action, (AptRepo, AptPreference, WriteFile)):
        return step
    path = file_actions.file_path(action)
    try:
        now: bytes | None = machine.read(path)
    except Unreadable as error:
        if error.reason != "absent":
            return step
        now = None
    try:
        wanted = file_actions.file_content(action, now)
    except Problem as problem:
        # found before anything is started: a person must repair it first
        because = f"{step.because} {problem.what} {problem.next}"
        return msgspec.structs.replace(step, state=State.BLOCKED, because=because, commands=())
    return msgspec.structs.replace(step, diff=system_files.difference(path, now, wanted))


def _needs_apt(step: Step) -> bool:
    return step.state is State.TODO and isinstance(step.action, (AptInstall, AptRemove))


def _kernel_metas(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    return tuple(
        name for flavour in flavours(host, catalogue) for name in names(catalogue, "kernel.image", flavour=flavour)
    )


def _ask_apt(made: Plan, host: Host, machine: Machine, metas: tuple[str, ...]) -> Plan:
    """`metas`: the kernel meta packages whose next release is also a next kernel; empty: only the installed kernels."""
    todo = [step for step in made.steps if step.state is State.TODO]
    new_keys = [step.action for step in todo if isinstance(step.action, AptKey)]
    sources = [step.action for step in todo if isinstance(step.action, AptRepo)]
    pins = [step.action for step in todo if isinstance(step.action, AptPreference)]
    with open_sandbox(machine, new_keys, sources, pins) as sandbox:
        answered = _simulate_steps(made, host, sandbox, metas)
    return seal(
        msgspec.structs.replace(
            made,
            steps=answered.steps,
            download_bytes=answered.size,
            download_note="" if answered.size is not None else "The download's size is not known.",
            notes=(*made.notes, *answered.notes),
        )
    )


def _simulate_steps(made: Plan, host: Host, sandbox: AptSandbox, metas: tuple[str, ...]) -> AptAnswers:
    """Each transaction simulated together with the ones before it, because none of them is done yet."""
    arguments: tuple[str, ...] = ()
    before = NO_CHANGE
    steps: list[Step] = []
    unknown: list[str] = []
    at_once: dict[tuple[str, ...], AptChange] = {}
    for number, step in enumerate(made.steps):
        action = step.action
        if step.state is not State.TODO or not isinstance(action, (AptInstall, AptRemove)):
            steps.append(step)
            continue
        more = _arguments(action)
        if not at_once and not any(later.id in ALONE for later in made.steps[number:]):
            at_once = _simulate_together(made.steps[number:], arguments, sandbox)
        try:
            change = at_once.get((*arguments, *more)) or sandbox.simulate(("install", *arguments, *more))
        except UnknownPackages as error:
            if step.id == "nvidia-driver" and _branch(made) is not None and not sandbox.notes:
                raise BranchUnavailable(f"the archive has no {error}") from error
            if not sandbox.notes:
                raise
            # a repository did not answer: its packages are not known
            unknown.append(step.title)
            steps.append(step)
            continue
        if isinstance(action, AptInstall):
            if slipped := change.matching(action.forbid):
                raise BranchUnavailable(f"apt would also install {', '.join(slipped)}")
            if step.id == "nvidia-driver" and _branch(made) is not None:
                change, action = _with_modules(action, change, arguments, host, sandbox)
                _check_next_upgrade(action, change, host, sandbox, metas)
                more = _arguments(action)
            if step.id == "nvidia-branch-lock" and not sandbox.apply_pins_of(action.packages[0].name):
                sandbox.notes.append(
                    f"{action.packages[0].name} could not be downloaded, so its pin is not considered."
                )
        steps.append(msgspec.structs.replace(step, action=with_versions(action, change.without(before))))
        arguments, before = (*arguments, *more), change
    notes = [*sandbox.notes]
    if unknown:
        notes.append(f"Versions and size of these steps are not known: {'; '.join(unknown)}.")
    size = None if unknown else sandbox.size(("install", *arguments))
    return AptAnswers(tuple(steps), size, tuple(notes))


def _simulate_together(
    steps: tuple[Step, ...], arguments: tuple[str, ...], sandbox: AptSandbox
) -> dict[tuple[str, ...], AptChange]:
    """Several simulations in parallel: the arguments of each are known before the first has answered.

    Those that fail are not in the answer, and are run again in their turn.
    """
    from concurrent.futures import ThreadPoolExecutor

    asked = []
    for step in steps:
        if _needs_apt(step) and isinstance(step.action, (AptInstall, AptRemove)):
            arguments = (*arguments, *_arguments(step.action))
            asked.append(arguments)

    def answer(wanted: tuple[str, ...]) -> AptChange | None:
        try:
            return sandbox.simulate(("install", *wanted))
        except (UnknownPackages, Problem):
            return None

    with ThreadPoolExecutor(min(4, len(asked))) as several:
        return {wanted: found for wanted, found in zip(asked, several.map(answer, asked), strict=True) if found}


def _arguments(action: AptInstall | AptRemove) -> tuple[str, ...]:
    installs = action.packages if isinstance(action, AptInstall) else ()
    options = ("--allow-downgrades",) if isinstance(action, AptInstall) and action.one_source else ()
    return (*options, *(wanted.name for wanted in installs), *(f"{name}-" for name in action.removed_packages()))


def with_versions(action: AptInstall | AptRemove, change: AptChange) -> AptInstall | AptRemove:
    removes = tuple(sorted(name for name in change.removes if name not in action.removed_packages()))
    if isinstance(action, AptRemove):
        return msgspec.structs.replace(action, removes=removes)
    named = {wanted.name for wanted in action.packages}
    brings = [
        *(WantedPackage(name=name, version=version) for name, version in change.installs.items()),
        *(WantedPackage(name=name, installed=old, version=new) for name, (old, new) in change.upgrades.items()),
    ]
    return msgspec.structs.replace(
        action,
        packages=tuple(
            msgspec.structs.replace(wanted, version=change.version(wanted.name) or wanted.installed)
            for wanted in action.packages
        ),
        brings=tuple(sorted((each for each in brings if each.name not in named), key=lambda each: each.name)),
        removes=removes,
    )


def _with_modules(
    action: AptInstall, change: AptChange, earlier: tuple[str, ...], host: Host, sandbox: AptSandbox
) -> tuple[AptChange, AptInstall]:
    """Add modules for the running and the next kernel; raises BranchUnavailable if the next would have none."""
    parts = module_package(action)
    if parts is None:
        return change, action
    prefix = f"linux-modules-nvidia-{parts[1]}-"
    upcoming = next_kernel(host, change)
    for release in dict.fromkeys((upcoming, host.kernel.release)):
        if release is None or _has_modules(prefix, release, change, host):
            continue
        more = msgspec.structs.replace(action, packages=(*action.packages, WantedPackage(name=f"{prefix}{release}")))
        try:
            change = sandbox.simulate(("install", *earlier, *_arguments(more)))
            action = more
        except (UnknownPackages, Problem) as error:
            if release == upcoming:
                raise BranchUnavailable(
                    f"there are no modules of branch {parts[2]} for the kernel {release} yet"
                ) from error
            sandbox.notes.append(f"The archive has no module of branch {parts[2]} for the running kernel {release}.")
    return change, action


def _check_next_upgrade(
    action: AptInstall, change: AptChange, host: Host, sandbox: AptSandbox, metas: tuple[str, ...]
) -> None:
    """Raise BranchUnavailable if the archive has no module for the kernel of the next upgrade."""
    parts = module_package(action)
    if parts is None or not metas:
        return
    try:
        coming = next_kernel(host, sandbox.simulate(("install", *metas)))
    except (UnknownPackages, Problem):
        return
    if coming is None or coming == next_kernel(host, change):
        return
    name = f"linux-modules-nvidia-{parts[1]}-{coming}"
    try:
        sandbox.simulate(("install", name))
    except (UnknownPackages, Problem) as error:
        raise BranchUnavailable(
            f"the next upgrade installs the kernel {coming}, and the archive has no {name} yet"
        ) from error


def next_kernel(host: Host, change: AptChange) -> str | None:
    """The kernel that boots after this change: the newest new one, or the one that boots next now."""
    images = [match[1] for name in change.installs if (match := _IMAGE.fullmatch(name))]
    now = host.kernel.next_boot or host.kernel.release
    return max([*images, *([now] if now else [])], key=version_key, default=None)


def _has_modules(prefix: str, release: str, change: AptChange, host: Host) -> bool:
    name = f"{prefix}{release}"
    have = {package.name for package in host.apt.packages or () if package.state == "installed"}
    return change.version(name) is not None or name in have


def _branch(made: Plan) -> int | None:
    """The branch that the plan installs from Ubuntu's archive; None for every other plan."""
    step = next((step for step in made.steps if step.id == "nvidia-driver" and step.state is State.TODO), None)
    if step is None or not isinstance(step.action, AptInstall):
        return None
    parts = module_package(step.action)
    return int(parts[2]) if parts else None


def _refuse_no_modules(made: Plan, problems: list[str]) -> Plan:
    return _with_refusal(
        made,
        Refusal(
            code="plan.no-modules",
            what="No driver branch in Ubuntu's archive has modules for the kernel here.",
            why=f"{'; '.join(dict.fromkeys(problems))}.".capitalize(),
            next="sudo apt-get update and upgrade, reboot, then gpu-setup plan; or gpu-setup plan --source nvidia, "
            "which builds the module on this machine",
        ),
    )


def _with_refusal(made: Plan, refusal: Refusal) -> Plan:
    return seal(
        msgspec.structs.replace(
            made,
            steps=(),
            reboots=0,
            refusals=(refusal,),
            download_bytes=0,
            download_note=NO_DOWNLOAD,
        )
    )


def _with_note(made: Plan, note: str) -> Plan:
    return seal(msgspec.structs.replace(made, download_note=note))
