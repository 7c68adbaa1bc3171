"""A test over many subjects names each that fails, and looks at all of them."""

from __future__ import annotations

import inspect

import pytest

from tests.subjects import for_each


def test_each_that_fails_is_named_and_the_others_are_checked_too() -> None:
    seen = []

    @for_each(("number", "word"), [(1, "one"), (2, "two"), (3, "three")])
    def looks(number: int, word: str, home: str) -> None:
        seen.append((number, home))
        assert number == 2

    assert list(inspect.signature(looks).parameters) == ["home"], "what is left are fixtures"
    with pytest.raises(ExceptionGroup, match=r"2 of 3 fail: 1, one, 3, three") as caught:
        looks(home="here")
    assert seen == [(1, "here"), (2, "here"), (3, "here")]
    assert [each.__notes__ for each in caught.value.exceptions] == [["with 1, one"], ["with 3, three"]]


def test_no_subjects_are_no_test() -> None:
    with pytest.raises(AssertionError, match="shows nothing"):
        for_each("name", [])
