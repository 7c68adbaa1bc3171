"""Words on a line of a machine file: as they are, or quoted as in JSON where a space or an odd character is in them."""

from __future__ import annotations

import json
import re

_WORD = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*+")|([^\s"]+))(?=\s|$)')


def quote(word: str) -> str:
    """The word as `words` reads it back; bytes that are not UTF-8 (surrogate escapes) become `\\udcNN`."""
    if word.isprintable() and word and " " not in word and '"' not in word:
        return word
    return json.dumps(word, ensure_ascii=not word.isprintable())


def words(line: str) -> list[str]:
    """The words of a line; raises ValueError with what is wrong with it."""
    if '"' not in line:
        return line.split()
    found, at, line = [], 0, line.rstrip()
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None:
            raise ValueError("its quotes are not closed, or a quoted word touches another")
        found.append(match[2] or _unquote(match[1]))
        at = match.end()
    return found


def word(line: str) -> str:
    """The one word of a line; raises ValueError."""
    found = words(line)
    if len(found) != 1:
        raise ValueError(f"one word is expected, not {len(found)}; quote a word that has spaces")
    return found[0]


def _unquote(quoted: str) -> str:
    try:
        found: str = json.loads(quoted)
        # a byte that is not UTF-8 is an escaped surrogate; other lone surrogates are no text of any system
        found.encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise ValueError("a quoted word is not a JSON string") from error
    return found
