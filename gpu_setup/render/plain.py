"""Text from devices, logs and models made safe to show."""

from __future__ import annotations


def clean(text: str) -> str:
    """Without control characters: a device name or a log line must not steer the terminal. Newlines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)
