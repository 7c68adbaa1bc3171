"""What apt itself says to a plan: exact versions, what comes and what goes, bytes; and which branch has modules."""

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
from provision.apply.status import last_run, reopened
from provision.model import (
    AptInstall,
    AptKey,
    AptPin,
    AptRemove,
    AptRepo,
    DpkgRepair,
    Plan,
    Refusal,
    State,
    Step,
    Wanted,
    WriteFile,
    sealed,
)
from provision.plan.kernels import flavours
from provision.plan.package_steps import names, sentence
from provision.plan.planner import NO_DOWNLOAD, plan
from provision.resolve.apt_sandbox import Tree, Unknown, private
from provision.system import system_files
from provision.system.apt_simulation import NO_CHANGE, Change
from provision.target import Target

ELSEWHERE = "Versions and sizes are not known: apt can be asked only on the machine itself."
UNFINISHED = "Versions and sizes are not known: apt answers once dpkg is in order again."
# what they bring changes what is asked for after them
ALONE = ("nvidia-driver", "nvidia-branch-lock")
_IMAGE = re.compile(r"linux-image-(?:unsigned-)?([0-9][0-9a-z.~+-]*)")
_MODULES = re.compile(r"linux-modules-nvidia-(([0-9]{3})(?:-server)?(?:-open)?)-(.+)")


class Lag(Exception):
    """The driver's packages do not do for this machine; the text says why."""


class Answered(NamedTuple):
    steps: tuple[Step, ...]
    size: int | None
    notes: tuple[str, ...]


def completed(host: Host, catalogue: Catalogue, target: Target, machine: Machine) -> Plan:
    """The plan, and where it is for this machine what apt says to it. Writes only into a temporary folder.

    A branch without packages or without modules for the next kernel is left out, and the next one tried. The next
    kernel is also the one that apt has for the kernel packages here, which comes with the next upgrade.
    """
    without: tuple[int, ...] = ()
    lags: list[str] = []
    ahead, behind = True, ""
    while True:
        made = with_differences(plan(host, catalogue, target, without), machine)
        if lags and made.refusals and ahead:
            # no branch has modules for the kernel to come: then for the one that is here, and the guard keeps it
            without, lags, ahead, behind = (), [], False, lags[0]
            continue
        if made.refusals or not any(_asks(step) for step in made.steps):
            return _lagging(made, lags) if lags and made.refusals else made
        if not isinstance(machine, LocalMachine):
            return _noted(made, ELSEWHERE)
        if any(isinstance(step.action, DpkgRepair) for step in made.steps):
            return _noted(made, UNFINISHED)
        try:
            done = _ask(made, host, machine, _metas(host, catalogue) if ahead else ())
            return _behind(done, behind) if behind else done
        except Lag as lag:
            branch = _branch(made)
            lags.append(str(lag))
            if branch is None or branch in without or target.branch is not None:
                if not ahead:
                    return _lagging(made, lags)
                without, lags, ahead, behind = (), [], False, str(lag)
                continue
            without = (*without, branch)
        except Unknown as unknown:
            return _refused(
                made,
                Refusal(
                    code="plan.unknown-package",
                    what=f"apt has no package {unknown}.",
                    why="The repositories that are enabled here, and the ones that the plan adds, do not carry it.",
                    next="sudo apt-get update, then gpu-setup plan; a mirror may lack restricted or universe",
                ),
            )
        except Problem as problem:
            return _noted(made, f"Versions and sizes are not known: {problem.why or problem.what}")


def _behind(made: Plan, lag: str) -> Plan:
    note = f"{sentence(lag)} The kernel that is here keeps being started until there is (next-boot-guard)."
    return sealed(msgspec.structs.replace(made, notes=(*made.notes, note)))


def with_differences(made: Plan, machine: Machine) -> Plan:
    """The plan with what each step changes in its file, and with the steps that the last run was cut off in."""
    steps = tuple(_with_difference(step, machine) for step in reopened(made.steps, last_run(machine)))
    return made if steps == made.steps else sealed(msgspec.structs.replace(made, steps=steps))


def _with_difference(step: Step, machine: Machine) -> Step:
    action = step.action
    if step.state is not State.TODO or not isinstance(action, (AptRepo, AptPin, WriteFile)):
        return step
    path = file_actions.path_of(action)
    try:
        now: bytes | None = machine.read(path)
    except Unreadable as error:
        if error.reason != "absent":
            return step
        now = None
    try:
        wanted = file_actions.wanted_text(action, now)
    except Problem as problem:
        # found out before anything is begun: somebody has to mend it first
        because = f"{step.because} {problem.what} {problem.next}"
        return msgspec.structs.replace(step, state=State.BLOCKED, because=because, commands=())
    return msgspec.structs.replace(step, diff=system_files.difference(path, now, wanted))


def _asks(step: Step) -> bool:
    return step.state is State.TODO and isinstance(step.action, (AptInstall, AptRemove))


def _metas(host: Host, catalogue: Catalogue) -> tuple[str, ...]:
    return tuple(
        name for flavour in flavours(host, catalogue) for name in names(catalogue, "kernel.image", flavour=flavour)
    )


def _ask(made: Plan, host: Host, machine: Machine, metas: tuple[str, ...]) -> Plan:
    """`metas`: the kernel packages whose next release counts as the next kernel; none of them: what is here counts."""
    todo = [step for step in made.steps if step.state is State.TODO]
    new_keys = [step.action for step in todo if isinstance(step.action, AptKey)]
    sources = [step.action for step in todo if isinstance(step.action, AptRepo)]
    pins = [step.action for step in todo if isinstance(step.action, AptPin)]
    with private(machine, new_keys, sources, pins) as tree:
        answered = _steps(made, host, tree, metas)
    return sealed(
        msgspec.structs.replace(
            made,
            steps=answered.steps,
            download_bytes=answered.size,
            download_note="" if answered.size is not None else "The download's size is not known.",
            notes=(*made.notes, *answered.notes),
        )
    )


def _steps(made: Plan, host: Host, tree: Tree, metas: tuple[str, ...]) -> Answered:
    """Each transaction simulated on top of the ones before it, since none of them is done yet."""
    arguments: tuple[str, ...] = ()
    before = NO_CHANGE
    steps: list[Step] = []
    unknown: list[str] = []
    at_once: dict[tuple[str, ...], Change] = {}
    for number, step in enumerate(made.steps):
        action = step.action
        if step.state is not State.TODO or not isinstance(action, (AptInstall, AptRemove)):
            steps.append(step)
            continue
        more = _arguments(action)
        if not at_once and not any(later.id in ALONE for later in made.steps[number:]):
            at_once = _at_once(made.steps[number:], arguments, tree)
        try:
            change = at_once.get((*arguments, *more)) or tree.simulate(("install", *arguments, *more))
        except Unknown as error:
            if step.id == "nvidia-driver" and _branch(made) is not None and not tree.notes:
                raise Lag(f"the archive has no {error}") from error
            if not tree.notes:
                raise
            # a repository did not answer: what only it has cannot be known
            unknown.append(step.title)
            steps.append(step)
            continue
        if isinstance(action, AptInstall):
            if slipped := change.matching(action.forbid):
                raise Lag(f"apt would also install {', '.join(slipped)}")
            if step.id == "nvidia-driver" and _branch(made) is not None:
                change, action = _modules(action, change, arguments, host, tree)
                _ready_for_upgrade(action, change, host, tree, metas)
                more = _arguments(action)
            if step.id == "nvidia-branch-lock" and not tree.apply_pins_of(action.packages[0].name):
                tree.notes.append(f"{action.packages[0].name} could not be fetched, so its pin is not counted in.")
        steps.append(msgspec.structs.replace(step, action=filled(action, change.without(before))))
        arguments, before = (*arguments, *more), change
    notes = [*tree.notes]
    if unknown:
        notes.append(f"Versions and size of these are not known until then: {'; '.join(unknown)}.")
    size = None if unknown else tree.size(("install", *arguments))
    return Answered(tuple(steps), size, tuple(notes))


def _at_once(steps: tuple[Step, ...], arguments: tuple[str, ...], tree: Tree) -> dict[tuple[str, ...], Change]:
    """Several simulations side by side: what each asks for is known before the first has answered.

    Those that fail are left out and asked again in their turn.
    """
    from concurrent.futures import ThreadPoolExecutor

    asked = []
    for step in steps:
        if _asks(step) and isinstance(step.action, (AptInstall, AptRemove)):
            arguments = (*arguments, *_arguments(step.action))
            asked.append(arguments)

    def answer(wanted: tuple[str, ...]) -> Change | None:
        try:
            return tree.simulate(("install", *wanted))
        except (Unknown, Problem):
            return None

    with ThreadPoolExecutor(min(4, len(asked))) as several:
        return {wanted: found for wanted, found in zip(asked, several.map(answer, asked), strict=True) if found}


def _arguments(action: AptInstall | AptRemove) -> tuple[str, ...]:
    if isinstance(action, AptRemove):
        return tuple(f"{name}-" for name in action.packages)
    return (*(wanted.name for wanted in action.packages), *(f"{name}-" for name in action.remove))


def filled(action: AptInstall | AptRemove, change: Change) -> AptInstall | AptRemove:
    named = {wanted.name for wanted in action.packages} if isinstance(action, AptInstall) else set(action.packages)
    going = named if isinstance(action, AptRemove) else set(action.remove)
    removes = tuple(sorted(name for name in change.removes if name not in going))
    if isinstance(action, AptRemove):
        return msgspec.structs.replace(action, removes=removes)
    brings = [
        *(Wanted(name=name, version=version) for name, version in change.installs.items()),
        *(Wanted(name=name, installed=old, version=new) for name, (old, new) in change.upgrades.items()),
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


def _modules(
    action: AptInstall, change: Change, earlier: tuple[str, ...], host: Host, tree: Tree
) -> tuple[Change, AptInstall]:
    """See to it that the running and the next kernel have a module; Lag when the next one would have none."""
    parts = _modules_named(action)
    if parts is None:
        return change, action
    prefix = f"linux-modules-nvidia-{parts[1]}-"
    upcoming = next_kernel(host, change)
    for release in dict.fromkeys((upcoming, host.kernel.release)):
        if release is None or _covered(prefix, release, change, host):
            continue
        more = msgspec.structs.replace(action, packages=(*action.packages, Wanted(name=f"{prefix}{release}")))
        try:
            change = tree.simulate(("install", *earlier, *_arguments(more)))
            action = more
        except (Unknown, Problem) as error:
            if release == upcoming:
                raise Lag(f"there are no modules of branch {parts[2]} for the kernel {release} yet") from error
            tree.notes.append(f"The kernel {release} that runs now has no module of branch {parts[2]} in the archive.")
    return change, action


def _ready_for_upgrade(action: AptInstall, change: Change, host: Host, tree: Tree, metas: tuple[str, ...]) -> None:
    """Lag where the kernel that the next upgrade brings has no module in the archive; none of it is installed now."""
    parts = _modules_named(action)
    if parts is None or not metas:
        return
    try:
        coming = next_kernel(host, tree.simulate(("install", *metas)))
    except (Unknown, Problem):
        return
    if coming is None or coming == next_kernel(host, change):
        return
    name = f"linux-modules-nvidia-{parts[1]}-{coming}"
    try:
        tree.simulate(("install", name))
    except (Unknown, Problem) as error:
        raise Lag(f"the next upgrade brings the kernel {coming}, and there is no {name} yet") from error


def next_kernel(host: Host, change: Change) -> str | None:
    """What boots after this change: a new image that is newer than all, else what boots next now."""
    images = [match[1] for name in change.installs if (match := _IMAGE.fullmatch(name))]
    now = host.kernel.next_boot or host.kernel.release
    return max([*images, *([now] if now else [])], key=version_key, default=None)


def _covered(prefix: str, release: str, change: Change, host: Host) -> bool:
    name = f"{prefix}{release}"
    have = {package.name for package in host.apt.packages or () if package.state == "installed"}
    return change.version(name) is not None or name in have


def _branch(made: Plan) -> int | None:
    """The branch that the plan installs from Ubuntu's archive; None for every other plan."""
    step = next((step for step in made.steps if step.id == "nvidia-driver" and step.state is State.TODO), None)
    if step is None or not isinstance(step.action, AptInstall):
        return None
    parts = _modules_named(step.action)
    return int(parts[2]) if parts else None


def _modules_named(action: AptInstall) -> re.Match[str] | None:
    """The first package of prebuilt modules: 1 branch with its family and kind, 2 branch, 3 kernel or its flavour."""
    return next((match for wanted in action.packages if (match := _MODULES.fullmatch(wanted.name))), None)


def _lagging(made: Plan, lags: list[str]) -> Plan:
    return _refused(
        made,
        Refusal(
            code="plan.no-modules",
            what="No driver branch in Ubuntu's archive goes with the kernel here.",
            why=f"{'; '.join(dict.fromkeys(lags))}.".capitalize(),
            next="sudo apt-get update and upgrade, restart, then gpu-setup plan; or gpu-setup plan --source nvidia, "
            "whose module is built on this machine",
        ),
    )


def _refused(made: Plan, refusal: Refusal) -> Plan:
    return sealed(
        msgspec.structs.replace(
            made,
            steps=(),
            reboots=0,
            refusals=(refusal,),
            download_bytes=0,
            download_note=NO_DOWNLOAD,
        )
    )


def _noted(made: Plan, note: str) -> Plan:
    return sealed(msgspec.structs.replace(made, download_note=note))
