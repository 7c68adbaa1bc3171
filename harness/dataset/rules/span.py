"""A part of a text that a rule found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# of two that overlap, the one earlier in this list is kept
PRECEDENCE = ("secret", "iban", "card-number", "email", "phone", "address", "name")


class TextSpan(NamedTuple):
    kind: str
    start: int
    end: int


def without_overlaps(spans: Iterable[TextSpan]) -> list[TextSpan]:
    """The spans in order, without overlaps: the kind that is earlier in PRECEDENCE wins, then the longer span."""
    kept: list[TextSpan] = []
    for span in sorted(spans, key=lambda each: (PRECEDENCE.index(each.kind), each.start - each.end)):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda each: each.start)
