"""Rows of known causes and the text that they are compared with."""

from __future__ import annotations

from machine.causes import Cause, find_cause
from machine.errors import OutsideFailed, Refused

CAUSES = (
    Cause(r"cannot open (?P<path>\S+)(?: for (?P<user>\w+))?", "file", "{path} is closed to {user}.", "chmod {path}"),
    Cause(r"cannot", "other", "It cannot {path}.", "Nothing", Refused),
)


def test_the_first_row_that_matches_is_the_cause_with_its_groups_filled_in() -> None:
    cause = find_cause(CAUSES, "one\nERROR: cannot open /etc/shadow for alex\n")
    assert cause is not None
    assert (cause.code, cause.why, cause.next) == ("file", "/etc/shadow is closed to alex.", "chmod /etc/shadow")
    assert cause.kind is OutsideFailed


def test_a_group_that_matched_nothing_is_empty_and_other_braces_are_kept() -> None:
    cause = find_cause(CAUSES, "cannot open {user}")
    assert cause is not None and cause.why == "{user} is closed to ."
    other = find_cause(CAUSES, "cannot close")
    assert other is not None and (other.why, other.kind) == ("It cannot {path}.", Refused)


def test_a_text_without_a_known_cause() -> None:
    assert find_cause(CAUSES, "all is well") is None
    assert find_cause((), "cannot") is None
