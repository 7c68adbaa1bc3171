"""Lines of 80 columns: wrapped paragraphs and labelled ones."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import wrap

COLUMNS = 80


def wrap_text(text: str, indent: str, first: str | None = None, style: Callable[[str], str] | None = None) -> list[str]:
    """The paragraph in lines of at most 80 columns (a longer word stays whole). `first` is as wide as `indent`."""
    lines = wrap(" ".join(text.split()), COLUMNS - len(indent), break_long_words=False, break_on_hyphens=False)
    styled = [style(line) if style else line for line in lines] or [""]
    return [(first if first is not None and number == 0 else indent) + line for number, line in enumerate(styled)]


def label_text(label: str, text: str) -> list[str]:
    """`  why    The driver …` with the text hanging under itself."""
    return wrap_text(text, " " * 9, first=f"  {label:<5}  ")
