"""Street addresses in the form of each language. The words are in places.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple

from harness.dataset.rules.span import TextSpan

_DIGITS = "0123456789"
_BEFORE_FRENCH = tuple(f"{end}{comma}" for end in (*_DIGITS, "bis", "ter") for comma in ("", ","))


class Streets(NamedTuple):
    """The forms of a street address; `hints`: every match contains one of these words (none: always tried)."""

    patterns: tuple[re.Pattern[str], ...]
    hints: tuple[tuple[str, ...], ...]
    never: frozenset[str]


_UPPER = "A-ZÀ-ÖØ-Þ"
# what may follow the number: a postcode and a town
_TOWN = rf"(?:,? ?\n?(?:[A-Z]{{1,2}}-)?\d{{4,5}} [{_UPPER}][\w'’.-]+(?: [{_UPPER}][\w'’.-]+)?)?"
_LINK = r"(?:(?:de|du|des|de la|de l['’]|d['’]|del|de los|de las|della|delle|dei|da|do|dos|das|la|le|les|el|los) ?)?"


@cache
def streets() -> Streets:
    import tomllib

    table = tomllib.loads((resources.files("harness.dataset.rules") / "places.toml").read_text(encoding="utf-8"))

    def one_of(words: list[str]) -> str:
        # longest first; the first letter in either case
        return "|".join(
            f"[{word[0].upper()}{word[0]}]{re.escape(word[1:])}" if word[0].isalpha() else re.escape(word)
            for word in sorted(set(words), key=len, reverse=True)
        )

    def capital(words: list[str]) -> str:
        return "|".join(re.escape(word[0].upper() + word[1:]) for word in sorted(set(words), key=len, reverse=True))

    name = rf"[{_UPPER}][\w'’.-]{{0,30}}"
    ending, after = table["ending"]["words"], table["after_number"]["words"]
    french, southern = table["before_name"]["french"], table["before_name"]["southern"]
    ending_pattern = (
        rf"(?<![\w-])([{_UPPER}][\w-]{{0,40}}(?: {name}){{0,2}}?"
        rf"(?:{'|'.join(map(re.escape, ending))}|[ -](?:{capital(ending)})))"
        rf" \d{{1,4}} ?(?:[a-h]\b)?(?:-\d{{1,4}})?{_TOWN}"
    )
    english_pattern = (
        rf"(?<![\w.,-])\d{{1,5}}[A-Za-z]? (?:[NSEW]\.? )?(?:{name} ){{1,3}}(?:{capital(after)})(?!\w)"
        rf"(?:,? (?:Apt|Suite|Unit|Flat)\.? ?\w{{1,5}})?"
    )
    french_pattern = (
        rf"(?<![\w.,-])\d{{1,4}}(?: ?(?:bis|ter))?,? (?:{one_of(french)}) {_LINK}"
        rf"{name}(?:[ -](?:{_LINK})?{name}){{0,3}}{_TOWN}"
    )
    southern_pattern = (
        rf"(?<!\w)(?:{one_of(southern)}) ?{_LINK}{name}(?: {_LINK}{name}){{0,3}},? ?(?:n[.º°]+ ?)?"
        rf"\d{{1,4}}(?!\d|[.,]\d| ?%)(?:, ?\d{{1,2}}[.º°][\wºª]*)?{_TOWN}"
    )
    return Streets(
        tuple(map(re.compile, (ending_pattern, english_pattern, french_pattern, southern_pattern))),
        (
            tuple(f"{word} {digit}" for word in ending for digit in _DIGITS),
            (),
            tuple(f"{before} {word}" for word in french for before in _BEFORE_FRENCH),
            tuple(southern),
        ),
        frozenset(table["ending"]["never"]),
    )


# this form has no hint (gates.py decides where it is tried)
ENGLISH = 1


def address_spans(text: str, ways: Iterable[int] = range(4)) -> list[TextSpan]:
    """Streets with a number, in the given forms. A text without a digit has none."""
    known = streets()
    return [
        TextSpan("address", *match.span())
        for way in ways
        for match in known.patterns[way].finditer(text)
        if way or match.group(1).lower() not in known.never
    ]
