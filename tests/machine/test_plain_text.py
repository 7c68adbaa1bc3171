"""Text from outside that is safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.plain_text import change_strings, clean

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
