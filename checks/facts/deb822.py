"""Paragraphs of `Field: value` lines, as deb822(5) has them: apt's .sources files and preferences."""

from __future__ import annotations

from collections.abc import Iterator


def paragraphs(content: str) -> Iterator[dict[str, str]]:
    """Fields by lower-case name; continuation lines are joined by newlines, a lone dot is an empty line."""
    fields: dict[str, str] = {}
    last = ""
    for line in content.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0] in " \t":
            if last:
                more = line.strip()
                fields[last] += "\n" + ("" if more == "." else more)
        else:
            name, colon, value = line.partition(":")
            last = name.strip().lower() if colon else ""
            if last:
                fields[last] = value.strip()
    if fields:
        yield fields
