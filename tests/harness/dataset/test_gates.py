"""The gates may let through what the rules then refuse, and never keep from the rules what they would find."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.dataset.row_rules import private_spans
from harness.dataset.rules.damage import damage_kinds
from harness.dataset.rules.gates import Gates, gates_of
from harness.dataset.rules.hints import rules_with_hints
from harness.dataset.rules.phrases import fold_case
from harness.dataset.similarity import words_of

OPEN = Gates(True, True, True, True)
# pieces of which streets, numbers and damage are made, and letters beyond Windows-1252
PIECES = st.lists(
    st.sampled_from(
        ["12", "3a", "1600", " ", ", ", "\u00a0", "\u202f", "-", "Main", "Ändern", "Street", "Rue de", "Via", "weg",
         "é", "Ã©", "â€™", "+49 30", "555-0142", "DE89 3704 0044 0532 0130 00", "日本", "٣٤٥", "\x81", "ª", "ß",
         "„", "\n"]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@given(st.one_of(PIECES, st.text(max_size=60)))
@example("1600 Pennsylvania Avenue NW, 12 Rue de Rivoli")
def test_nothing_is_found_with_open_gates_that_is_not_found_with_these(text: str) -> None:
    low, gates = fold_case(text), gates_of(text)
    tried = rules_with_hints(low)
    assert private_spans(text, low, tried, gates, False) == private_spans(text, low, tried, OPEN, False)
    assert damage_kinds(text, gates.pair) == damage_kinds(text)


@given(st.one_of(PIECES, st.text(max_size=60)))
def test_words_are_the_same_whichever_way_they_are_found(text: str) -> None:
    spaced = re.findall(r"[^\W_]+", text)
    if not re.search("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f\u1000-\u109f]", text):
        assert words_of(text) == spaced


@pytest.mark.parametrize(
    ("text", "gates"),
    [
        ("No number here.", Gates(False, False, False, False)),
        ("At 5 o'clock in 1999.", Gates(True, False, False, False)),
        ("See 10 Downing Street.", Gates(True, True, False, False)),
        ("Call (030) 12 34.", Gates(True, False, True, False)),
        ("Schöne Grüße", Gates(False, False, False, True)),
        ("schöne Ferien", Gates(False, False, False, False)),
        ("日本", Gates(False, False, False, True)),
    ],
)
def test_what_each_gate_sees(text: str, gates: Gates) -> None:
    assert gates_of(text) == gates
