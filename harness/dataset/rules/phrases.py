"""Rules by word lists: refusals, placeholders, template markers, quoted mail, HTML. The words are in phrases.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple

REFUSAL_WITHIN = 600


class Phrase(NamedTuple):
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


class Phrases(NamedTuple):
    by_kind: dict[str, tuple[Phrase, ...]]
    translation: re.Pattern[str]


@cache
def phrases() -> Phrases:
    import tomllib

    text = (resources.files("harness.dataset.rules") / "phrases.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    translation = re.compile("|".join(map(re.escape, table.pop("translation")["words"])))
    rules = {
        kind: tuple(Phrase(tuple(row["hints"]), re.compile(row["re"])) for row in rows) for kind, rows in table.items()
    }
    return Phrases(rules, translation)


def fold_case(text: str) -> str:
    """Lower case with straight apostrophes, of the same length, so that places in it are places in the text.

    A letter whose lower case is longer (İ) is left as it is.
    """
    low = text.lower()
    if len(low) != len(text):
        low = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
    return low.replace("’", "'") if "’" in low else low


def find_phrases(kind: str, low: str, numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The places of the kind's phrases with these numbers in the folded text, in order."""
    rules = phrases().by_kind[kind]
    return sorted(match.span() for number in numbers for match in rules[number].pattern.finditer(low))


def asks_for_a_language(low_question: str) -> bool:
    return phrases().translation.search(low_question) is not None
