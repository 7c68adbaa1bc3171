"""The answer of `doctor --list` and `--explain`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from checks.model import Check


class ListedCheck(msgspec.Struct, frozen=True):
    """One check as --list and --explain show it."""

    id: str
    title: str
    group: str
    about: str = ""
    by_hand: str = ""


class CheckList(msgspec.Struct, frozen=True):
    checks: tuple[ListedCheck, ...]


def check_list(checks: Iterable[Check]) -> CheckList:
    return CheckList(
        tuple(ListedCheck(check.id, check.title, check.group, check.about, check.by_hand) for check in checks)
    )
