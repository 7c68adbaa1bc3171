"""Cheap tests whether the slow rules can match a text at all; a test never excludes a text that would match.

`bytes.translate` and `in` are several times as fast as a regular expression, but need one byte per letter: Windows-1252
has that for the languages of Western Europe. For all other texts the regular expressions are used.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WESTERN = "cp1252"
_DIGIT = re.compile(r"\d")
# the beginning of an English street: its words are too common to be hints
_NUMBER_AND_NAME = re.compile(r"\d[A-Za-z]? [A-ZÀ-ÖØ-Þ]")
_SIX_DIGITS = re.compile(r"\d(?:[ \u00a0\u202f()./-]{0,3}\d){5}")


class Gates(NamedTuple):
    """`pair`: two adjacent non-ASCII characters, which every text with mojibake has."""

    digit: bool
    number_and_name: bool
    six_digits: bool
    pair: bool


def _sort(number: int) -> int:
    """The class of a byte: 0 for digits, A and a for letters, space for spaces; any other byte is unchanged."""
    sign = bytes([number]).decode(WESTERN, "replace")
    if "0" <= sign <= "9":
        return ord("0")
    if re.match("[A-ZÀ-ÖØ-Þ]", sign):
        return ord("A")
    return ord("a") if "a" <= sign <= "z" else ord(" ") if sign == "\u00a0" else number


_SORTS = bytes(map(_sort, range(256)))
_BEYOND_ASCII = bytes(ord("x") if number >= 128 else ord(" ") for number in range(256))
_SORTED_NUMBER_AND_NAME = re.compile(rb"0[Aa]? A")
_BETWEEN_DIGITS = b" ()./-"


def gates_of(text: str) -> Gates:
    try:
        western = text.encode(WESTERN)
    except UnicodeEncodeError:
        digit, street, six = (gate.search(text) is not None for gate in (_DIGIT, _NUMBER_AND_NAME, _SIX_DIGITS))
        return Gates(digit, street, six, True)
    pair = not text.isascii() and b"xx" in western.translate(_BEYOND_ASCII)
    sorts = western.translate(_SORTS)
    if b"0" not in sorts:
        return Gates(False, False, False, pair)
    return Gates(
        True,
        _SORTED_NUMBER_AND_NAME.search(sorts) is not None,
        b"000000" in sorts.translate(None, _BETWEEN_DIGITS),
        pair,
    )
