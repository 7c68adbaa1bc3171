"""One pass over a text finds the rules that can match: an Aho-Corasick automaton over the hints of all rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

from harness.dataset.rules.credentials import secrets
from harness.dataset.rules.people import people
from harness.dataset.rules.phrases import phrases
from harness.dataset.rules.places import streets
from harness.dataset.rules.private import PHONE_WORDS


class Hints(NamedTuple):
    """An automaton whose value for a hint has the bits of the rules with that hint; and the rule of each bit."""

    automaton: Any
    rules: tuple[tuple[str, int], ...]


@cache
def _hints() -> Hints:
    import ahocorasick

    hints: dict[str, set[tuple[str, int]]] = {}
    for kind, rules in phrases().by_kind.items():
        for number, rule in enumerate(rules):
            for hint in rule.hints:
                hints.setdefault(hint, set()).add((kind, number))
    for number, secret in enumerate(secrets()):
        for hint in secret.hints:
            hints.setdefault(hint, set()).add(("secret", number))
    for word in PHONE_WORDS:
        hints.setdefault(word, set()).add(("phone", 0))
    for word in people().introductions:
        hints.setdefault(word, set()).add(("introduction", 0))
    for way, words in enumerate(streets().hints):
        for word in words:
            hints.setdefault(word, set()).add(("address", way))
    behind = tuple(sorted(set().union(*hints.values())))
    bit = {rule: 1 << place for place, rule in enumerate(behind)}
    automaton = ahocorasick.Automaton()
    for hint, found in hints.items():
        automaton.add_word(hint, sum(bit[rule] for rule in found))
    automaton.make_automaton()
    return Hints(automaton, behind)


def rules_with_hints(low: str) -> Mapping[str, tuple[int, ...]]:
    """The rules with a hint in the folded text: for each kind their numbers, in order."""
    bits = 0
    for _, more in _hints().automaton.iter(low):
        bits |= more
    return _rules(bits)


@lru_cache(maxsize=4096)
def _rules(bits: int) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for place, (kind, number) in enumerate(_hints().rules):
        if bits >> place & 1:
            found.setdefault(kind, []).append(number)
    return {kind: tuple(numbers) for kind, numbers in found.items()}
