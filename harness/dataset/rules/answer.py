"""Problems of an answer: it repeats the question or itself, or stops in the middle of a sentence."""

from __future__ import annotations

import re
from collections import Counter

_UNIT = re.compile(r"[^.!?\n]+[.!?]?")
_ENDS_WELL = re.compile(r"[.!?…。！？:;)\]}\"'”’»«›`*>|%€$]\s*$|[\U0001f300-\U0001faff☀-➿]\s*$")
_LIST_LINE = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)])\s", re.MULTILINE)
# an end that cannot end a sentence: certain words, a comma, a hyphen
_HANGING = re.compile(
    r"(?:,|\w-|–|\b(?:and|or|the|a|an|of|to|with|in|for|but|that|which|is|are|because|und|oder|der|die|das|ein|eine|mit|zu|in|für|aber|dass|weil|ist|sind|"
    r"et|ou|le|la|les|un|une|de|des|du|avec|pour|dans|mais|que|qui|est|sont|y|o|el|los|las|una|con|para|en|pero|por|es|son))\s*$",
    re.IGNORECASE,
)
FEWEST_WORDS = 12


def echoes(instruction: str, material: str, output: str) -> bool:
    """Whether the answer repeats the question or the input, or begins with a whole longer question."""
    begin = _first(output)
    if begin not in (_first(instruction), _first(material)):
        return False
    said = output.strip().casefold()
    for asked in (instruction.strip().casefold(), material.strip().casefold()):
        if asked and (
            said == asked or (len(asked) >= 30 and said.startswith(asked) and len(said) < 1.1 * len(asked) + 20)
        ):
            return len(said) > 2
    return len(instruction) >= 40 and said.startswith(instruction.strip().casefold())


def _first(text: str) -> str:
    """The first letter, as `casefold` writes it: most answers begin with another letter than their question."""
    return text.lstrip()[:1].casefold()[:1]


def loops(output: str, words: int, distinct_pairs: int, pairs: int) -> bool:
    """Whether the answer repeats itself: the same sentence or line many times, or few distinct pairs of words.

    `pairs` and `distinct_pairs` are those of the whole row: a cheap test before the answer itself is examined.
    """
    if words < FEWEST_WORDS or distinct_pairs > 0.75 * pairs:
        return False
    units = [unit for unit in (each.strip().casefold() for each in _UNIT.findall(output)) if len(unit) > 7]
    if units:
        (_, most), *_ = Counter(units).most_common(1)
        if most >= 4 and most * 2 >= len(units):
            return True
    found = output.casefold().split()
    triples = list(zip(found, found[1:], found[2:], strict=False))
    return len(triples) >= 30 and len(set(triples)) < 0.4 * len(triples)


def ends_well(output: str) -> bool:
    return _ENDS_WELL.search(output[-4:]) is not None


def seems_cut(output: str) -> bool:
    """Whether a longer text ends with a word, comma or hyphen. Lists, code and titles may end like this."""
    text = output.rstrip()
    if len(text) < 60 or ends_well(text) or "```" in text:
        return False
    last = text.rsplit("\n", 1)[-1]
    if _HANGING.search(text[-20:]):
        return not _LIST_LINE.match(last) or text[-1] in ",-"
    # a complete sentence before the last piece shows that this text has full stops; the piece is long enough for one
    return (
        bool(re.search(r"[.!?]\s+\S", text))
        and not _LIST_LINE.search(last)
        and len(last.split()) >= 4
        and text[-1].isalnum()
    )
