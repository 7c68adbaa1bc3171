"""Text from devices, logs, files and models made safe to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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


def strings_of(value: object) -> Iterator[str]:
    """Every string of plain data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, held in value.items():
            yield from strings_of(key)
            yield from strings_of(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from strings_of(held)


def changed_strings(strings: Sequence[str], change: Callable[[str], str]) -> dict[str, str]:
    """Each string that `change` changes → what it becomes. Fast where few do: many strings are tried as one text.

    What `change` finds in a string, it must also find where blank lines enclose the string.
    """
    if len(strings) <= 1:
        return {value: new for value in strings if (new := change(value)) != value}
    text = "\n\n".join(strings)
    if change(text) == text:
        return {}
    middle = len(strings) // 2
    return changed_strings(strings[:middle], change) | changed_strings(strings[middle:], change)


def hide_in_strings(value: object, hide: Callable[[str], str]) -> object:
    """A copy of plain data for a document: each string is cleaned, then what `hide` replaces is replaced."""
    plain = change_strings(value, clean)
    hidden = changed_strings(list(dict.fromkeys(strings_of(plain))), hide)
    return change_strings(plain, lambda text: hidden.get(text, text))
