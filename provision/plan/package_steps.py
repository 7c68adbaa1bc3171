"""Package names from the catalogue, and install steps decided from dpkg's database."""

from __future__ import annotations

import re
from typing import Literal

from checks.catalogue import Catalogue
from checks.facts.host import Host, Package
from checks.facts.kernel import version_key
from provision.model import AptInstall, DpkgRepair, Reboot, State, Step, WantedPackage

# dpkg states of packages that are unpacked and work
PRESENT = ("installed", "triggers-pending", "triggers-awaited")
# unpacking was interrupted: dpkg wants the package reinstalled, and apt works only if it can do that
HALF = "half-installed"


def names(catalogue: Catalogue, key: str, branch: int | None = None, family: str = "", **words: str) -> tuple[str, ...]:
    """The names that the catalogue has under `key`, filled in; raises KeyError without a row.

    `family`: the suffix after the branch in Ubuntu's names (`-server`), empty for the ordinary packages.
    """
    return catalogue.package(key, branch).fill(**words, **({} if branch is None else {"branch": f"{branch}{family}"}))


def first_names(catalogue: Catalogue, keys: tuple[str, ...]) -> tuple[str, ...]:
    """The first name of each row under these keys: the meta package, which no other row has."""
    return tuple(row.names[0] for row in catalogue.packages if row.key in keys)


def found(host: Host, patterns: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """Installed packages that match one of these name patterns, each with the branch in its name if it has one.

    Packages of Ubuntu's -server family match the patterns without `-server`.
    """
    made = []
    for pattern in patterns:
        expression = re.compile(re.escape(pattern).replace(r"\{branch\}", r"(?P<branch>[0-9]{3})(?:-server)?"))
        for package in host.apt.packages or ():
            if package.state in PRESENT and (match := expression.fullmatch(package.name)):
                made.append((package.name, int(number) if (number := match.groupdict().get("branch")) else None))
    return tuple(made)


def installed_package(host: Host, name: str) -> Package | None:
    """The package, if it is installed and works; None also when dpkg's database could not be read."""
    for package in host.apt.packages or ():
        if package.name == name and package.state in PRESENT:
            return package
    return None


def is_older(version: str, than: str) -> bool:
    """By dpkg's order of versions, as far as needed here: numbers as numbers, `~` before the end, epochs first."""
    return _order(version) < _order(than)


def _order(version: str) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    epoch, colon, rest = version.partition(":")
    return (int(epoch) if colon and re.fullmatch(r"[0-9]{1,9}", epoch) else 0, version_key(rest if colon else version))


def with_repair(host: Host, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with the repair of dpkg: none where they remove all that is unfinished.

    It is first where dpkg was interrupted or wants a package reinstalled, because apt then refuses all work. Otherwise
    it follows the removal of unfinished packages: their scripts failed before, and others wait for them.
    """
    broken = host.apt.broken or ()
    if not broken and not host.apt.interrupted:
        return steps
    removing = [number for number, step in enumerate(steps) if set(step.action.removed_packages()) & set(broken)]
    leaving = tuple(name for name in broken if any(name in steps[i].action.removed_packages() for i in removing))
    halves = tuple(
        package.name for package in host.apt.packages or () if package.name in leaving and package.state == HALF
    )
    urgent = bool(host.apt.interrupted or halves)
    if leaving == broken and not urgent:
        return steps
    place = 0 if urgent or not removing else removing[-1] + 1
    remove = (("dpkg", "--remove", "--force-remove-reinstreq", "--force-depends", *halves),) if halves else ()
    pending = tuple(name for name in broken if name not in leaving)
    configure = (
        ("dpkg", "--configure", *pending) if leaving and not host.apt.interrupted else ("dpkg", "--configure", "-a")
    )
    repair = Step(
        id="dpkg-repair",
        title="Finish the interrupted dpkg run",
        action=DpkgRepair(leaving=leaving if urgent else ()),
        state=State.TODO,
        because="dpkg was interrupted and refuses all work until it is finished."
        if host.apt.interrupted
        else f"dpkg left {', '.join((pending or broken)[:3])} unfinished, and apt tries again each time.",
        commands=(
            *((configure,) if pending or host.apt.interrupted else ()),
            *remove,
            *((("apt-get", "--fix-broken", "install", "--yes"),) if pending else ()),
        ),
        undo="nothing to undo: dpkg is in order afterwards",
    )
    return (*steps[:place], repair, *steps[place:])


def state_of(host: Host, step_needed: bool) -> State:
    """TODO, or DONE when nothing is needed."""
    return State.TODO if step_needed else State.DONE


def explain(host: Host, because: str, state: State) -> str:
    """`because`, with what could not be read."""
    parts = [because]
    if host.apt.packages is None and state is not State.DONE:
        parts.append("dpkg's database could not be read, so this is planned as if nothing were installed.")
    return " ".join(parts)


def sentence(text: str) -> str:
    """First letter in upper case, one full stop at the end; the rest unchanged (`PCI` stays `PCI`)."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def install_step(
    host: Host,
    id: str,
    title: str,
    wanted: tuple[str, ...],
    because: str,
    *,
    remove: tuple[str, ...] = (),
    forbid: tuple[str, ...] = (),
    done: bool | None = None,
    at_least: str | None = None,
    one_source: Literal["ubuntu", "nvidia"] | None = None,
) -> Step:
    """One apt transaction; done when dpkg has all of it and none of `remove`, or when `done` says so.

    `at_least`: an older version of these packages is not enough; `one_source`: nor is one of another source.
    """
    have = {name: package.version for name in wanted if (package := installed_package(host, name))}
    enough = {name for name, version in have.items() if at_least is None or not is_older(version, at_least)}
    complete = len(enough) == len(wanted) and not remove if done is None else done
    state = state_of(host, not complete)
    missing = tuple(name for name in wanted if name not in enough)
    return Step(
        id=id,
        title=title,
        action=AptInstall(
            packages=tuple(WantedPackage(name=name, installed=have.get(name), at_least=at_least) for name in wanted),
            remove=remove,
            forbid=forbid,
            one_source=one_source,
        ),
        state=state,
        because=explain(host, because, state),
        commands=()
        if state is State.DONE
        else (("apt-get", "install", "--yes", *(missing or wanted), *(f"{name}-" for name in remove)),),
        undo="" if state is State.DONE else _undo(missing, remove),
    )


def _undo(added: tuple[str, ...], removed: tuple[str, ...]) -> str:
    parts = [f"removes {', '.join(added)} and their new dependencies; purges nothing"] if added else []
    parts += [f"installs {', '.join(removed)} again, in the same versions"] if removed else []
    return "; ".join(parts)


def reboot_step(because: str, state: State = State.TODO) -> Step:
    return Step(
        id="reboot",
        title="Reboot the machine",
        action=Reboot(),
        state=state,
        because=because,
        commands=(("systemctl", "reboot"),),
        undo="nothing to undo; the older kernel is in GRUB's menu (hold Esc while the machine boots)",
    )
