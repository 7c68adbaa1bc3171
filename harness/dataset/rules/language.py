"""Which language a text is in: by its small words where they are plain, else by py3langid.

py3langid is a small naive Bayes model over byte n-grams (200 languages, no network); it takes forty times as long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

# what is neither: code, addresses, numbers
_NO_WORDS = re.compile(r"https?://\S+|\S+@\S+|`[^`]*`|[\d_{}()\[\]<>=+*/\\|#$%&~^;:]+")
# fewer letters tell too little
FEWEST_LETTERS = 60
# a question is short, and is only compared with the languages that are common in the answers
FEWEST_ASKED, SURE_ASKED = 30, 0.5
# letters that are looked at: more makes it slower, not surer
LETTERS = 160
SURE = 0.85
UNKNOWN = ""
# small words: how many are looked at, the least share of one language, and by how much it must lead
WORDS, SHARE, LEAD, FEWEST_WORDS = 36, 0.18, 1.6, 7


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _small_words() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """All small words together, and those of each language."""
    import tomllib

    text = (resources.files("harness.dataset.rules") / "stopwords.toml").read_text(encoding="utf-8")
    languages = {code: frozenset(words.split()) for code, words in tomllib.loads(text).items()}
    return frozenset().union(*languages.values()), languages


def language(text: str, words: Sequence[str], answered_in: str = UNKNOWN) -> str:
    """ISO 639-1 code, or "" where the text is too short, is code, or no language stands out. `words`: its own.

    `answered_in` makes the text a question, which may be shorter and less sure; it is taken for the language of its
    answer where nothing speaks against that.
    """
    fewest, sure = (FEWEST_ASKED, SURE_ASKED) if answered_in else (FEWEST_LETTERS, SURE)
    if len(text) < fewest:
        return UNKNOWN
    few = set(words[:WORDS])
    counts = _counts(few)
    best = max(counts, key=counts.__getitem__)
    first, second = sorted(counts.values())[:-3:-1]
    if first > second and ((best == answered_in and first >= 2) or _stands_out(first, second, len(few))):
        return best
    return _by_model(text, fewest, sure)


def _counts(few: set[str]) -> dict[str, int]:
    every, languages = _small_words()
    hit = few & every
    return {code: len(hit & words) for code, words in languages.items()}


def _stands_out(first: int, second: int, words: int) -> bool:
    return words >= FEWEST_WORDS and first >= 3 and first >= SHARE * words and first >= LEAD * second


def _by_model(text: str, fewest: int, least: float) -> str:
    piece = text[: 2 * LETTERS]
    if "```" in piece or piece.count("{") > 2:
        return UNKNOWN
    letters = _NO_WORDS.sub(" ", piece)[:LETTERS]
    if len(letters) < fewest or sum(map(str.isalpha, letters)) < 0.7 * fewest:
        return UNKNOWN
    code, sure = _identifier().classify(letters)
    return str(code) if sure >= least else UNKNOWN
