"""All rules over one row. Pure; what the rules say of the whole data set is decided in verdicts.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.dataset.row import Row
from harness.dataset.rules.answer import echoes, ends_well, loops, seems_cut
from harness.dataset.rules.credentials import secret_spans
from harness.dataset.rules.damage import damage_kinds
from harness.dataset.rules.gates import Gates, gates_of
from harness.dataset.rules.hints import hinted
from harness.dataset.rules.language import language
from harness.dataset.rules.people import name_spans
from harness.dataset.rules.phrases import REFUSAL_WITHIN, asks_for_a_language, folded, places
from harness.dataset.rules.places import ENGLISH, address_spans
from harness.dataset.rules.private import iban_spans, mail_spans, number_spans
from harness.dataset.rules.span import Span, apart
from harness.dataset.similarity import pairs_of, words_of

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
# what is said in a row again and again is looked for in sentences of this length
SENTENCE_LENGTHS = range(12, 240)
# phrases of these kinds are looked for in the answer only
_IN_ANSWER = ("refusal", "placeholder", "quoted-mail")


class Hit(NamedTuple):
    """A kind, and where in `text_of(row)` it stands; `said`: words in the place of an excerpt."""

    kind: str
    start: int
    end: int
    said: str = ""


class Inspected(NamedTuple):
    """What one row shows: hits by itself, and what the data set's rules need of it."""

    hits: list[Hit]
    pairs: list[str]
    question: str
    answer: str
    language: str
    asked_in: str
    ends_well: bool
    seems_cut: bool
    names: list[str]


def text_of(row: Row) -> str:
    """The row's texts as one, in which a hit's places lie."""
    return f"{row.instruction}\n{row.input}\n{row.output}"


def private_spans(
    text: str, low: str, tried: Mapping[str, tuple[int, ...]], gates: Gates, names: bool = True
) -> list[Span]:
    """Secrets and personal data in one text, not overlapping. `tried`: the rules that their hints stand for."""
    spans: list[Span] = []
    if "secret" in tried:
        spans += secret_spans(text, tried["secret"])
    if "@" in text:
        spans += mail_spans(text)
    if gates.six_digits:
        spans += number_spans(text, low, "phone" in tried)
        spans += iban_spans(text)
    if gates.digit:
        ways = tried.get("address", ())
        spans += address_spans(text, sorted((ENGLISH, *ways)) if gates.number_and_name else ways)
    if names:
        spans += name_spans(text, "introduction" in tried)
    return apart(spans) if spans else spans


def inspect(row: Row, names: bool = True) -> Inspected:
    """Everything that one whole row shows."""
    text = text_of(row)
    low = folded(text)
    output_at = len(text) - len(row.output)
    low_output = low[output_at:]
    tried, gates = hinted(low), gates_of(text)
    hits = [Hit(span.kind, span.start, span.end) for span in private_spans(text, low, tried, gates, names)]
    hits += _phrase_hits(low, low_output, output_at, tried)
    hits += [Hit(kind, place, place + 1) for kind, place in damage_kinds(text, gates.pair)]
    asked, said = words_of(low[:output_at]), words_of(low_output)
    pairs = pairs_of([*asked, *said])
    if echoes(row.instruction, row.input, row.output):
        hits.append(Hit("echo", output_at, len(text)))
    if loops(row.output, len(said), len(set(pairs)), len(pairs)):
        hits.append(Hit("loop", output_at, len(text)))
    if any(part != part.strip() for part in row.texts):
        text_around = next(part for part in row.texts if part != part.strip())
        shown = text_around if len(text_around) <= 42 else f"{text_around[:20]} … {text_around[-20:]}"
        hits.append(Hit("untrimmed", 0, 0, repr(shown)))
    said_in, asked_in = language(row.output, said), ""
    if said_in:
        asked_in = language(row.instruction, asked, said_in)
        if asked_in and asked_in != said_in and asks_for_a_language(low[:output_at]):
            asked_in = ""
    return Inspected(
        hits, pairs, " ".join(asked), " ".join(said), said_in, asked_in,
        ends_well(row.output.rstrip()), seems_cut(row.output),
        [text[hit.start : hit.end] for hit in hits if hit.kind == "name"],
    )  # fmt: skip


def _phrase_hits(low: str, low_output: str, output_at: int, tried: Mapping[str, tuple[int, ...]]) -> Iterator[Hit]:
    for kind in _IN_ANSWER:
        if kind in tried:
            within = low_output[:REFUSAL_WITHIN] if kind == "refusal" else low_output
            found = places(kind, within, tried[kind])
            if found:
                yield Hit(kind, output_at + found[0][0], output_at + found[0][1])
    if "template-marker" in tried:
        found = places("template-marker", low, tried["template-marker"])
        if found:
            yield Hit("template-marker", *found[0])
    if "markup" in tried and "```" not in low_output and "html" not in low:
        found = places("markup", low_output, tried["markup"])
        # one lone tag may be meant; an entity never is
        if found and (len(found) > 1 or low_output[found[0][0]] == "&"):
            yield Hit("markup", output_at + found[0][0], output_at + found[0][1])


def sentences(output: str) -> list[str]:
    """The answer's sentences and lines as they are compared between rows; empty where it is one sentence only."""
    units = [unit.strip() for unit in _SENTENCE.findall(output.casefold())]
    found = [unit for unit in units if len(unit) in SENTENCE_LENGTHS and " " in unit]
    return found if len(units) > 1 else []


def opening(answer: str) -> str:
    """The answer's first five words; empty for a short answer."""
    words = answer.split(" ", 12)
    return " ".join(words[:5]) if len(words) > 10 else ""
