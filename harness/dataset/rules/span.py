"""A stretch of a text that a rule found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# where two overlap, the earlier in this list stands
PRECEDENCE = ("secret", "iban", "card-number", "email", "phone", "address", "name")


class Span(NamedTuple):
    kind: str
    start: int
    end: int


def apart(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, none overlapping another: the weightier kind wins, then the longer."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda each: (PRECEDENCE.index(each.kind), each.start - each.end)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda each: each.start)
