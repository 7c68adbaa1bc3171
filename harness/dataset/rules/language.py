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
FEWEST_ASKED, SURE_ASKED = 30, 0.6
# letters that are looked at: more makes it slower, not surer
LETTERS = 160
SURE = 0.93
UNKNOWN = ""
# small words: how many are looked at, the least share of one language, and by how much it must lead
WORDS, SHARE, LEAD, FEWEST_WORDS = 36, 0.2, 2, 7


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _small_words() -> dict[str, tuple[str, ...]]:
    """The languages of each small word."""
    import tomllib

    text = (resources.files("harness.dataset.rules") / "stopwords.toml").read_text(encoding="utf-8")
    languages: dict[str, tuple[str, ...]] = {}
    for code, words in tomllib.loads(text).items():
        for word in set(words.split()):
            languages[word] = (*languages.get(word, ()), code)
    return languages


def language(text: str, words: Sequence[str], question: bool = False) -> str:
    """ISO 639-1 code, or "" where the text is too short, is code, or no language stands out. `words`: its own.

    A `question` may be shorter, and less sure.
    """
    fewest, sure = (FEWEST_ASKED, SURE_ASKED) if question else (FEWEST_LETTERS, SURE)
    if len(text) < fewest:
        return UNKNOWN
    return _by_small_words(words) or _by_model(text, fewest, sure)


def _by_small_words(words: Sequence[str]) -> str:
    if len(words) < FEWEST_WORDS:
        return UNKNOWN
    few, known = set(words[:WORDS]), _small_words()
    counts: dict[str, int] = {}
    for word in few & known.keys():
        for code in known[word]:
            counts[code] = counts.get(code, 0) + 1
    if not counts:
        return UNKNOWN
    first, second = ([*sorted(counts.values(), reverse=True), 0])[:2]
    if first < 3 or first < SHARE * len(few) or first < LEAD * second:
        return UNKNOWN
    return max(counts, key=counts.__getitem__)


def _by_model(text: str, fewest: int, least: float) -> str:
    piece = text[: 2 * LETTERS]
    if "```" in piece or piece.count("{") > 2:
        return UNKNOWN
    letters = _NO_WORDS.sub(" ", piece)[:LETTERS]
    if len(letters) < fewest or sum(map(str.isalpha, letters)) < 0.7 * fewest:
        return UNKNOWN
    code, sure = _identifier().classify(letters)
    return str(code) if sure >= least else UNKNOWN
