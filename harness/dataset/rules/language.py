"""The language of a text: by its frequent small words where they decide, else by py3langid.

py3langid is a small naive Bayes model over byte n-grams (200 languages, no network); it takes 40 times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

# not words of a language: code, addresses, numbers
_NO_WORDS = re.compile(r"https?://\S+|\S+@\S+|`[^`]*`|[\d_{}()\[\]<>=+*/\\|#$%&~^;:]+")
# with fewer letters the result is not reliable
FEWEST_LETTERS = 60
# for a question, which is short and only compared with the common languages of the answers
FEWEST_ASKED, SURE_ASKED = 30, 0.5
# letters that are examined: more makes it slower, not more reliable
LETTERS = 160
SURE = 0.85
UNKNOWN = ""
# small words: how many are examined, the least share of a language, and the factor by which it must lead
WORDS, SHARE, LEAD, FEWEST_WORDS = 36, 0.18, 1.6, 7


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class SmallWords(NamedTuple):
    """`ones`: for each small word a number with a 1 in the byte of every language that has the word.

    The sum of these numbers counts for all languages at once (WORDS, at most, fit into a byte).
    """

    every: frozenset[str]
    languages: tuple[str, ...]
    ones: dict[str, int]


@cache
def _small_words() -> SmallWords:
    import tomllib

    text = (resources.files("harness.dataset.rules") / "stopwords.toml").read_text(encoding="utf-8")
    languages = {code: words.split() for code, words in tomllib.loads(text).items()}
    ones: dict[str, int] = {}
    for place, words in enumerate(languages.values()):
        for word in set(words):
            ones[word] = ones.get(word, 0) + (1 << 8 * place)
    return SmallWords(frozenset(ones), tuple(languages), ones)


def guess_language(text: str, words: Sequence[str], answered_in: str = UNKNOWN) -> str:
    """ISO 639-1 code, or "" where the text is too short, is code, or no language is clear. `words`: those of the text.

    With `answered_in` the text is a question: it may be shorter and the result less certain, and the language of its
    answer is preferred.
    """
    fewest, sure = (FEWEST_ASKED, SURE_ASKED) if answered_in else (FEWEST_LETTERS, SURE)
    if len(text) < fewest:
        return UNKNOWN
    few, small = words[:WORDS], _small_words()
    counts = sum([small.ones[word] for word in small.every.intersection(few)]).to_bytes(len(small.languages), "little")
    second, first = sorted(counts)[-2:]
    best = small.languages[counts.index(first)]
    if first > second and ((best == answered_in and first >= 2) or _is_clear_lead(first, second, few)):
        return best
    return _by_model(text, fewest, sure)


def _is_clear_lead(first: int, second: int, few: Sequence[str]) -> bool:
    if first < 3 or first < LEAD * second:
        return False
    if first >= max(FEWEST_WORDS, SHARE * len(few)):
        return True
    distinct = len(set(few))
    return distinct >= FEWEST_WORDS and first >= SHARE * distinct


def _by_model(text: str, fewest: int, least: float) -> str:
    piece = text[: 2 * LETTERS]
    if "```" in piece or piece.count("{") > 2:
        return UNKNOWN
    letters = _NO_WORDS.sub(" ", piece)[:LETTERS]
    if len(letters) < fewest or sum(map(str.isalpha, letters)) < 0.7 * fewest:
        return UNKNOWN
    code, sure = _identifier().classify(letters)
    return str(code) if sure >= least else UNKNOWN
