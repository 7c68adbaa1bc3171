"""Which NVIDIA driver branch, and which kind of kernel module: pure choices from the cards and the catalogue."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import NEWER, Branch, Catalogue
from provision.model import Refusal
from provision.plan.driver.kernels import at_least, version_numbers
from provision.plan.package_steps import sentence
from provision.plan.plan_cards import PlannedCard, card_list

SUPPORTED_KINDS = ("production", "lts")


class BranchChoice(NamedTuple):
    """`open`: the open kernel module; `floor`: the stack's minimum driver, None when no stack has one."""

    branch: Branch
    open: bool
    floor: str | None
    because: str

    @property
    def module(self) -> str:
        return "open" if self.open else "proprietary"


def driver_floor(catalogue: Catalogue, cards: tuple[PlannedCard, ...]) -> tuple[str | None, str]:
    """The minimum driver of the preferred stack that runs on all of these GPUs, and the stack's name."""
    stacks = [catalogue.stacks_for(seen.card) for seen in cards]
    common = [stack for stack in stacks[0] if all(stack in others for others in stacks[1:])] if stacks else []
    if common:
        return common[0].driver_floor, common[0].name
    # no common stack: each GPU trains with its own, so the highest of their minimum drivers is needed
    firsts = [rows[0] for rows in stacks if rows and rows[0].driver_floor]
    highest = max(firsts, key=lambda stack: version_numbers(stack.driver_floor or ""), default=None)
    return (highest.driver_floor, highest.name) if highest else (None, "")


def unsuitable_reason(branch: Branch, open_module: bool | None, generations: frozenset[str]) -> str | None:
    """Why this branch with this kind of module does not support every generation; None when it does.

    `open_module` None: not known, so it is not a reason.
    """
    for generation in sorted(generations):
        cards = f"{generation.capitalize()} cards"
        if generation in branch.drops:
            return f"branch {branch.number} no longer supports {cards}"
        if generation in branch.lacks:
            return f"branch {branch.number} is older than {cards}"
        if open_module is False and generation in branch.open_only:
            return f"{cards} work only with the open kernel module"
        if open_module is True and generation in branch.proprietary_only:
            return f"{cards} work only with the proprietary kernel module"
    return None


def choose_branch(
    catalogue: Catalogue,
    cards: tuple[PlannedCard, ...],
    number: int | None,
    started: bool,
    without: tuple[int, ...] = (),
) -> BranchChoice | Refusal:
    """The newest production or long-term branch that meets the minimum and supports every GPU, or `number` if it does.

    `started`: `number` was not requested but is the branch whose packages are already installed. `without`: branches
    that have no packages in the archive for this machine's kernels.
    """
    generations = frozenset(seen.card.generation for seen in cards)
    lowest, stack = driver_floor(catalogue, cards)
    over = f" and meets the minimum driver of the stack {stack} ({lowest})" if lowest else ""
    newest_first = sorted(catalogue.branches, key=lambda branch: branch.number, reverse=True)
    rows = [row for row in newest_first if (row.kind in SUPPORTED_KINDS if number is None else row.number == number)]
    if not rows:
        return Refusal(
            code="plan.branch-unknown",
            what=f"There is no NVIDIA driver branch {number} in the catalogue.",
            why=f"The catalogue has {', '.join(str(row.number) for row in newest_first)}.",
            next="gpu-setup plan without --branch chooses a suitable branch",
        )
    reasons: list[str] = []
    for row in rows:
        open_module = not generations & frozenset(row.proprietary_only)
        unfit = unsuitable_reason(row, open_module, generations)
        if unfit is None and lowest is not None and row.number < version_numbers(lowest)[0]:
            unfit = f"branch {row.number} is older than {lowest}, which the stack {stack} needs"
        if unfit is None and row.number in without:
            unfit = f"the archive has no modules of branch {row.number} for the kernel here"
        if unfit is not None:
            reasons.append(unfit)
            continue
        names = _names_of(generations)
        if number is None:
            first = f"{row.number} is the newest production or long-term branch that supports {names}{over}"
        elif started:
            first = f"Packages of branch {number} are already installed; it supports {names}{over}"
        else:
            first = f"Branch {number} ({row.kind}) was requested; it supports {names}{over}"
        newer = f" ({reasons[0]})" if reasons else ""
        return BranchChoice(row, open_module, lowest, f"{first}{newer}; {_module(row, open_module, generations)}.")
    return Refusal(
        code="plan.no-branch",
        what=f"No NVIDIA driver branch supports {card_list(cards)}.",
        why=sentence("; ".join(dict.fromkeys(reasons))),
        next="reserve one of the GPUs for a virtual machine, or remove it from the machine"
        if len(generations) > 1
        else "gpu-setup plan without --branch chooses a suitable branch",
    )


def _names_of(generations: frozenset[str]) -> str:
    names = (name.capitalize() for name in sorted(generations - {NEWER}))
    return " and ".join([*names, *(["cards newer than gpu-setup's data"] if NEWER in generations else [])])


def _module(branch: Branch, open_module: bool, generations: frozenset[str]) -> str:
    if not open_module:
        return "its proprietary module, because the open one does not support them"
    if generations <= frozenset(branch.open_only):
        return "its open module, the only kind that supports them"
    return "its open module, NVIDIA's default for them"


def is_below(version: str, lowest: str | None) -> bool:
    return lowest is not None and not at_least(version, lowest)
