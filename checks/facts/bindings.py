"""The JSON document of machine/bindings.py, decoded: from a child that may have hung, crashed or printed nonsense."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from checks.facts.forms import answer_damage
from checks.facts.gaps import Gaps
from checks.facts.host import Frozen
from machine.local import TIMED_OUT, Outcome

Gpu = TypeVar("Gpu")
UNREADABLE = "unreadable answer"


class BindingDocument(Frozen, Generic[Gpu], frozen=True):
    """The output of bindings.py; unknown keys are ignored, so that an older tool reads a newer recording."""

    problem: str | None = None
    detail: str = ""
    stub: bool = False
    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()


def parse_document(outcome: Outcome, kind: type[BindingDocument[Gpu]]) -> BindingDocument[Gpu]:
    """The document; if there is none, an empty one whose `problem` says why (absent, timed-out, crashed …)."""
    if outcome.problem:
        return kind(problem=outcome.problem)
    if outcome.rc:
        how = f"signal {-outcome.rc}" if outcome.rc < 0 else f"exit {outcome.rc}"
        return kind(problem=f"crashed ({how})", detail=outcome.stderr[-500:])
    if (why := answer_damage(outcome.stdout, ended=False)) is not None:
        return kind(problem=UNREADABLE, detail=why)
    try:
        return msgspec.json.decode(outcome.stdout.encode("utf-8", "replace"), type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        return kind(problem=UNREADABLE, detail=str(error)[:500])


def note_damage(source: str, found: BindingDocument[Gpu], gaps: Gaps) -> None:
    """A gap where the library was asked and its document is not whole; what the library itself reports is a fact."""
    problem = found.problem or ""
    if problem == TIMED_OUT:
        gaps.note(source, problem)
    elif problem == UNREADABLE or problem.startswith(("crashed", "exit status")):
        gaps.note(source, f"no whole answer: {problem}")
