"""Personal names: after a title, in a greeting or a closing, after "my name is", and a known given name with a surname.

No statistical model, because those have hundreds of MB. A name in another place is not found. Words: people.toml.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import NamedTuple

from harness.dataset.rules.span import TextSpan

_UPPER = "A-ZÀ-ÖØ-ÞĀĂĄĆČĎĐĒĘĚĞĢĪĶĹĽŁŃŅŇŌŐŒŔŘŚŞŠŢŤŪŮŰŹŻŽİ"
_WORD = rf"[{_UPPER}](?:[\w]*['’]?[\w]+|\.)(?:-[{_UPPER}]\w+)*"
_PARTICLE = r"(?:von der|van der|van den|de la|de los|von|van|zu|de|del|della|di|da|dos|du|der|den|le|la|bin|al)"
_NAME = rf"{_WORD}(?:[ ]{_PARTICLE})?(?:[ ]{_WORD}(?:[ ]{_PARTICLE})?){{0,2}}(?<![ ])"
_CAPITALISED = re.compile(rf"(?<![\w'’@./-]){_WORD}")
_NEXT = re.compile(rf" (?:{_PARTICLE} )?({_WORD})(?! ?@)")


class People(NamedTuple):
    titles: frozenset[str]
    never: frozenset[str]
    given: frozenset[str]
    greeting: re.Pattern[str]
    closing: re.Pattern[str]
    introduction: re.Pattern[str]
    introductions: tuple[str, ...]
    closings: frozenset[str]


@cache
def people() -> People:
    import tomllib

    table = tomllib.loads((resources.files("harness.dataset.rules") / "people.toml").read_text(encoding="utf-8"))

    def any_case(words: list[str]) -> str:
        return "(?i:" + "|".join(map(re.escape, sorted(set(words), key=len, reverse=True))) + ")"

    title = "|".join(map(re.escape, sorted(table["titles"], key=len, reverse=True)))
    return People(
        titles=frozenset(table["titles"]),
        never=frozenset(table["never"]),
        given=frozenset(word.title() for words in table["given"].values() for word in words.split()),
        # the greeting ends after the name: a line that continues is a sentence, not a greeting
        greeting=re.compile(
            rf"(?m)^[ \t]*{any_case(table['greetings'])}[ ]+(?:(?:{title})[ ]+){{0,2}}({_NAME})[ ]?(?=[,!:\n]|$)"
        ),
        closing=re.compile(
            rf"(?m)(?:^|(?<=[.!?,] ))[ \t]*{any_case(table['closings'])}[ ]?[,!.]?"
            rf"(?:[ \t]*\n{{1,2}}[ \t]*|(?<=,)[ ])({_NAME})[ \t]*(?=\n|$)"
        ),
        introduction=re.compile(rf"\b{any_case(table['introductions'])}[ ]+({_NAME})"),
        introductions=tuple(table["introductions"]),
        closings=frozenset(table["closings"]),
    )


def name_spans(text: str, introduced: bool = True) -> list[TextSpan]:
    """`introduced`: the text contains one of the introductions, so the text after it is searched too."""
    known = people()
    spans = []
    for match in _CAPITALISED.finditer(text):
        word = match.group()
        if word in known.titles or (text[match.end() : match.end() + 1] == "." and word + "." in known.titles):
            end = match.end() + (text[match.end() : match.end() + 1] == ".")
            follow = _NEXT.match(text, end)
            start = follow.start(1) if follow else 0
            # Dr. med. Anna Weber; Herr Dr. Weber: the inner title is found by itself
            while follow and follow.group(1) not in known.titles and follow.group(1).lower() not in known.never:
                end = follow.end()
                follow = _NEXT.match(text, end) if text[end - 1] != "." else None
            if end > start > 0:
                spans.append(TextSpan("name", start, end))
        elif word.split("-")[0] in known.given:
            follow = _NEXT.match(text, match.end())
            if follow and follow.group(1).lower() not in known.never and len(follow.group(1)) > 1:
                last = (
                    _NEXT.match(text, follow.end())
                    if follow.group(1) in known.given or follow.group(1).endswith(".")
                    else None
                )
                spans.append(TextSpan("name", match.start(), last.end() if last else follow.end()))
    patterns = (known.greeting, known.closing, known.introduction)
    for pattern in patterns if introduced else patterns[:2]:
        for match in pattern.finditer(text):
            name = match.group(1)
            if not any(word.lower() in known.never for word in re.split(r"[ -]", name)):
                spans.append(TextSpan("name", *match.span(1)))
    return spans


def closings() -> frozenset[str]:
    """Words that end a mail, lower-case."""
    return people().closings
