"""All rules for single rows. Pure; rules for the whole data set are in whole_file_rules.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.dataset.row import DataRow
from harness.dataset.rules.answer import echoes, ends_well, loops, seems_cut
from harness.dataset.rules.credentials import secret_spans
from harness.dataset.rules.damage import damage_kinds
from harness.dataset.rules.gates import Gates, gates_of
from harness.dataset.rules.hints import rules_with_hints
from harness.dataset.rules.language import guess_language
from harness.dataset.rules.people import name_spans
from harness.dataset.rules.phrases import REFUSAL_WITHIN, asks_for_a_language, find_phrases, fold_case
from harness.dataset.rules.places import ENGLISH, address_spans
from harness.dataset.rules.private import iban_spans, mail_spans, number_spans
from harness.dataset.rules.span import TextSpan, without_overlaps
from harness.dataset.similarity import pairs_of, words_of

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
# lengths of the sentences that are compared between rows
SENTENCE_LENGTHS = range(12, 240)
# phrases of these kinds are looked for in the answer only
_IN_ANSWER = ("refusal", "placeholder", "quoted-mail")


class RuleHit(NamedTuple):
    """A kind, and its place in `text_of(row)`; `said`: a text to show instead of an excerpt."""

    kind: str
    start: int
    end: int
    said: str = ""


class RowInspection(NamedTuple):
    """The result of one row: its hits, and what the rules for the whole data set need."""

    hits: list[RuleHit]
    pairs: list[str]
    question: str
    answer: str
    language: str
    asked_in: str
    ends_well: bool
    seems_cut: bool
    names: list[str]


def text_of(row: DataRow) -> str:
    """The row's texts joined; the places of hits refer to it."""
    return f"{row.instruction}\n{row.input}\n{row.output}"


def private_spans(
    text: str, low: str, tried: Mapping[str, tuple[int, ...]], gates: Gates, names: bool = True
) -> list[TextSpan]:
    """Secrets and personal data in one text, without overlaps. `tried`: the rules whose hints the text contains."""
    spans: list[TextSpan] = []
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
    return without_overlaps(spans) if spans else spans


def inspect_row(row: DataRow, names: bool = True) -> RowInspection:
    """All rules for one complete row."""
    text = text_of(row)
    low = fold_case(text)
    output_at = len(text) - len(row.output)
    low_output = low[output_at:]
    tried, gates = rules_with_hints(low), gates_of(text)
    hits = [RuleHit(span.kind, span.start, span.end) for span in private_spans(text, low, tried, gates, names)]
    hits += _phrase_hits(low, low_output, output_at, tried)
    hits += [RuleHit(kind, place, place + 1) for kind, place in damage_kinds(text, gates.pair)]
    asked, said = words_of(low[:output_at]), words_of(low_output)
    pairs = pairs_of([*asked, *said])
    if echoes(row.instruction, row.input, row.output):
        hits.append(RuleHit("echo", output_at, len(text)))
    if loops(row.output, len(said), len(set(pairs)), len(pairs)):
        hits.append(RuleHit("loop", output_at, len(text)))
    if any(part != part.strip() for part in row.texts):
        text_around = next(part for part in row.texts if part != part.strip())
        shown = text_around if len(text_around) <= 42 else f"{text_around[:20]} … {text_around[-20:]}"
        hits.append(RuleHit("untrimmed", 0, 0, repr(shown)))
    said_in, asked_in = guess_language(row.output, said), ""
    if said_in:
        asked_in = guess_language(row.instruction, asked, said_in)
        if asked_in and asked_in != said_in and asks_for_a_language(low[:output_at]):
            asked_in = ""
    return RowInspection(
        hits, pairs, " ".join(asked), " ".join(said), said_in, asked_in,
        ends_well(row.output.rstrip()), seems_cut(row.output),
        [text[hit.start : hit.end] for hit in hits if hit.kind == "name"],
    )  # fmt: skip


def _phrase_hits(low: str, low_output: str, output_at: int, tried: Mapping[str, tuple[int, ...]]) -> Iterator[RuleHit]:
    for kind in _IN_ANSWER:
        if kind in tried:
            within = low_output[:REFUSAL_WITHIN] if kind == "refusal" else low_output
            found = find_phrases(kind, within, tried[kind])
            if found:
                yield RuleHit(kind, output_at + found[0][0], output_at + found[0][1])
    if "template-marker" in tried:
        found = find_phrases("template-marker", low, tried["template-marker"])
        if found:
            yield RuleHit("template-marker", *found[0])
    if "markup" in tried and "```" not in low_output and "html" not in low:
        found = find_phrases("markup", low_output, tried["markup"])
        # a single tag may be intended, an entity is not
        if found and (len(found) > 1 or low_output[found[0][0]] == "&"):
            yield RuleHit("markup", output_at + found[0][0], output_at + found[0][1])


def sentences(output: str) -> list[str]:
    """The answer's sentences and lines, for comparison between rows; empty where it has only one sentence."""
    units = [unit.strip() for unit in _SENTENCE.findall(output.casefold())]
    found = [unit for unit in units if len(unit) in SENTENCE_LENGTHS and " " in unit]
    return found if len(units) > 1 else []


def opening(answer: str) -> str:
    """The first five words of the answer; empty for a short answer."""
    words = answer.split(" ", 12)
    return " ".join(words[:5]) if len(words) > 10 else ""
