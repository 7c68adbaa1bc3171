"""Which language a text is in, by py3langid (a small naive Bayes model over byte n-grams, 200 languages, no network)."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

# what is neither: code, addresses, numbers
_NO_WORDS = re.compile(r"https?://\S+|\S+@\S+|`[^`]*`|[\d_{}()\[\]<>=+*/\\|#$%&~^;:]+")
# fewer letters tell too little
FEWEST_LETTERS = 40
# letters that are looked at: more makes it slower, not surer
LETTERS = 220
SURE = 0.97
UNKNOWN = ""


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language(text: str) -> str:
    """ISO 639-1 code, or "" where the text is too short, is code, or the model is not sure."""
    piece = text[: 2 * LETTERS]
    if "```" in piece or piece.count("{") > 2:
        return UNKNOWN
    words = _NO_WORDS.sub(" ", piece)[:LETTERS]
    if len(words) < FEWEST_LETTERS or sum(map(str.isalpha, words)) < FEWEST_LETTERS:
        return UNKNOWN
    code, sure = _identifier().classify(words)
    return str(code) if sure >= SURE else UNKNOWN
