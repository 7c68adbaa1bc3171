"""Text from devices, logs, files and models made safe to show."""

from __future__ import annotations

from collections.abc import Callable

# white space that str.isprintable() is too strict about: newline, tab and Unicode's spaces (category Zs)
_SPACES = frozenset("\n\t\xa0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))


def clean(text: str) -> str:
    """The text with U+FFFD for each character that steers a terminal, or that hides or reorders text.

    These are controls (C0, DEL, C1), format characters (bidirectional, zero-width), line and paragraph separators, lone
    surrogates, private and unassigned characters. Newlines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in _SPACES else "\N{REPLACEMENT CHARACTER}" for sign in text)


def change_strings(value: object, change: Callable[[str], str]) -> object:
    """A copy of plain data (dicts, lists, strings, numbers) with `change` applied to every string, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change_strings(key, change): change_strings(held, change) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [change_strings(held, change) for held in value]
    return value
