"""Text from outside that is safe to show."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.plain_text import change_strings, changed_strings, clean, strings_of

KEPT = "\n\t"


@given(st.text(st.characters(exclude_categories=())))
def test_clean_leaves_no_control_characters(text: str) -> None:
    shown = clean(text)
    assert len(shown) == len(text)
    for sign in shown:
        assert sign in KEPT or not unicodedata.category(sign).startswith("C")
        assert unicodedata.category(sign) not in ("Zl", "Zp")


@pytest.mark.parametrize("text", ["GeForce RTX 3090", "Grüße, 3\xa0400\u202f€ 日本\u3000語 👩 ✓\n\tnext"])
def test_what_does_no_harm_is_kept(text: str) -> None:
    assert clean(text) == text


def test_every_string_is_changed_keys_too() -> None:
    plain = {"a": ["b", {"c": None}], "d": (1, True, 2.5)}
    assert change_strings(plain, str.upper) == {"A": ["B", {"C": None}], "D": [1, True, 2.5]}


def test_many_strings_at_once_change_as_each_alone() -> None:
    change = re.compile("secret.?").sub
    strings = [*(f"word {number}" for number in range(40)), "a secret", "secret", "", "no", "secrets"]
    found = changed_strings(strings, lambda text: change("x", text))
    assert found == {"a secret": "a x", "secret": "x", "secrets": "x"}
    assert list(strings_of({"a": ["b", {"c": None}], "d": (1, "e")})) == ["a", "b", "c", "d", "e"]
