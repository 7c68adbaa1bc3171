"""Consistent pseudonyms for private data: the same person is "Customer 17" in every row."""

from __future__ import annotations

from collections.abc import Sequence

from harness.dataset.rules.span import TextSpan

# {n}: the number in order of first appearance; example.com is reserved (RFC 2606)
STAND_INS = {
    "name": "{person} {n}",
    "email": "{mail}{n}@example.com",
    "phone": "phone number {n}",
    "iban": "bank account {n}",
    "card-number": "payment card {n}",
    "address": "address {n}",
    "secret": "secret-{n}",
}


class Pseudonyms:
    """`person`: the word for people ("Customer", "Kundin", "Client")."""

    def __init__(self, person: str = "Customer") -> None:
        self._person = person
        self._mail = "".join(sign for sign in person.lower() if sign.isascii() and sign.isalnum()) or "person"
        self._numbers: dict[tuple[str, str], int] = {}
        self._next: dict[str, int] = {}

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of a value; upper case, lower case and spaces make no difference."""
        key = kind, _key(kind, value)
        if key not in self._numbers:
            self._next[kind] = self._next.get(kind, 0) + 1
            self._numbers[key] = self._next[kind]
        return STAND_INS[kind].format(person=self._person, mail=self._mail, n=self._numbers[key])

    def in_row(self, texts: Sequence[str], spans: Sequence[Sequence[TextSpan]]) -> tuple[str, ...]:
        """The row's texts with pseudonyms. A first or last name alone gets that of the full name in the same row."""
        full = [
            text[span.start : span.end]
            for text, found in zip(texts, spans, strict=True)
            for span in found
            if span.kind == "name" and " " in text[span.start : span.end]
        ]
        return tuple(self._replace(text, found, full) for text, found in zip(texts, spans, strict=True))

    def _replace(self, text: str, spans: Sequence[TextSpan], full: list[str]) -> str:
        parts, seen = [], 0
        for span in spans:
            value = text[span.start : span.end]
            if span.kind == "name" and " " not in value:
                value = next((name for name in full if value in name.split(" ")), value)
            parts += [text[seen : span.start], self.of(span.kind, value)]
            seen = span.end
        return "".join([*parts, text[seen:]])


def _key(kind: str, value: str) -> str:
    if kind in ("phone", "iban", "card-number"):
        return "".join(filter(str.isalnum, value)).casefold()
    return value if kind == "secret" else " ".join(value.split()).casefold()
