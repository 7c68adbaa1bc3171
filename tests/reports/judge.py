"""From what doctor and plan say to the verdict on it: right, partly, silent, wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from tests.reports.table import AnyOf, Right


class Verdict(IntEnum):
    """How good the answer is, worst first."""

    wrong = 0
    silent = 1
    partly = 2
    right = 3

    def __str__(self) -> str:
        return self.name


class Said(NamedTuple):
    """The text of `gpu-setup doctor` without -v, and that of `gpu-setup plan`."""

    doctor: str
    plan: str


def verdict(right: Right, said: Said) -> Verdict:
    """wrong: says what is untrue or harmful; right: all is said; silent: nothing of the cause; partly: the rest."""
    if any(_forbidden(right, said)):
        return Verdict.wrong
    if not any(_missing(right, said)):
        return Verdict.right
    found = [_is_said(group, _body(said.doctor)) for group in right.cause]
    return Verdict.partly if any(found) else Verdict.silent


def failures(right: Right, said: Said) -> list[str]:
    """Why it is not right, a line each."""
    return [*_forbidden(right, said), *_missing(right, said)]


def visible(doctor: str) -> tuple[str, ...]:
    """Ids of checks that have a finding in doctor's text, in its order."""
    # below the counts are ids of checks that have none
    body = re.split(r"^\W+\d+ checks: ", doctor.partition("\nNext: ")[0], flags=re.M)[0]
    found = re.findall(r"^ {2}([a-z]+\.[a-z0-9-]+), |\(([a-z]+\.[a-z0-9-]+)\)\n", body, re.M)
    return tuple(dict.fromkeys(own or consequence for own, consequence in found))


def alarms(doctor: str) -> tuple[str, ...]:
    """Those of them that are failures or warnings: notes are lines that begin with an i."""
    return visible(re.sub(r"^i .*\n(?:  .*\n)*", "", doctor, flags=re.M))


def first_fix(doctor: str) -> str:
    """The first finding with its fix: what a person in a hurry does."""
    return _body(doctor).partition("\n\n")[0]


def next_step(doctor: str) -> str:
    """What is to be done now, without what follows it."""
    return doctor.rpartition("\nNext: ")[2].partition("\nthen: ")[0]


def plain(text: str) -> str:
    """In one line and small letters, as lines are broken anywhere."""
    return " ".join(text.split()).lower()


def _forbidden(right: Right, said: Said) -> Iterator[str]:
    yield from _said_of(right.never, said.doctor + said.plan, "untrue or harmful")
    if right.calm:
        yield from (f"false alarm: {check}" for check in alarms(said.doctor) if check not in right.may)


def _missing(right: Right, said: Said) -> Iterator[str]:
    doctor, plan = map(_body, said)
    for groups, text, where in (
        (right.cause, doctor, "doctor does not name"),
        (right.help, doctor + plan, "not said"),
        (right.plan, plan, "plan does not say"),
    ):
        yield from (f"{where}: {' | '.join(group)}" for group in groups if not _is_said(group, text))
    yield from _said_of(right.first_never, first_fix(said.doctor), "the first finding should not say")
    yield from _said_of(right.plan_never, said.plan, "plan should not say")
    yield from _said_of(right.next_never, next_step(said.doctor), "Next should not be")


def _body(answer: str) -> str:
    """Without the line about the machine, which names kernel and card of every machine."""
    return answer.partition("\n\n")[2]


def _said_of(words: tuple[str, ...], text: str, what: str) -> Iterator[str]:
    yield from (f"{what}: {word}" for word in words if plain(word) in plain(text))


def _is_said(group: AnyOf, text: str) -> bool:
    checks = visible(text)
    return any(word in checks if _is_check(word) else plain(word) in plain(text) for word in group)


def _is_check(word: str) -> bool:
    from checks.check_ids import IDS

    return word in IDS
