"""One pass over a text that says which rules are worth trying: an Aho-Corasick automaton over all their hints."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from harness.dataset.rules.people import people
from harness.dataset.rules.phrases import phrases
from harness.dataset.rules.places import streets
from harness.dataset.rules.private import PHONE_WORDS
from harness.dataset.rules.secrets import secrets


class Tag(NamedTuple):
    """The rule behind a hint: its kind, and its number among the rules of that kind."""

    kind: str
    number: int


@cache
def _automaton() -> Any:
    import ahocorasick

    hints: dict[str, set[Tag]] = {}
    for kind, rules in phrases().by_kind.items():
        for number, rule in enumerate(rules):
            for hint in rule.hints:
                hints.setdefault(hint, set()).add(Tag(kind, number))
    for number, secret in enumerate(secrets()):
        for hint in secret.hints:
            hints.setdefault(hint, set()).add(Tag("secret", number))
    for word in PHONE_WORDS:
        hints.setdefault(word, set()).add(Tag("phone", 0))
    for word in people().introductions:
        hints.setdefault(word, set()).add(Tag("introduction", 0))
    for way, words in enumerate(streets().hints):
        for word in words:
            hints.setdefault(word, set()).add(Tag("address", way))
    automaton = ahocorasick.Automaton()
    for hint, tags in hints.items():
        automaton.add_word(hint, frozenset(tags))
    automaton.make_automaton()
    return automaton


def tags_of(low: str) -> frozenset[Tag]:
    """The rules that one of their hints stands for in the folded text."""
    return frozenset[Tag]().union(*[tags for _, tags in _automaton().iter(low)])
