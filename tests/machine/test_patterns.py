"""A lazy pattern is the compiled one in all that a module uses."""

from __future__ import annotations

import re

import pytest

from machine import patterns
from machine.patterns import lazy_pattern


def test_it_answers_like_the_compiled_pattern() -> None:
    lazy, compiled = lazy_pattern(r"(\d+)([a-z])", re.IGNORECASE), re.compile(r"(\d+)([a-z])", re.IGNORECASE)
    text = "a 12B 3c"
    assert lazy.findall(text) == compiled.findall(text) == [("12", "B"), ("3", "c")]
    assert lazy.sub(r"\2", text) == compiled.sub(r"\2", text)
    assert [found.span() for found in lazy.finditer(text)] == [found.span() for found in compiled.finditer(text)]
    assert lazy.pattern == compiled.pattern
    assert lazy_pattern(rb"\d").search(b"a1") is not None
    with pytest.raises(AttributeError):
        lazy.nothing_like_it  # type: ignore[attr-defined]  # noqa: B018


def test_it_is_compiled_once_and_not_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compile_and_note(source: str, flags: int) -> re.Pattern[str]:
        asked.append(source)
        return re.compile(source, flags)

    class Noted:
        compile = staticmethod(compile_and_note)

    monkeypatch.setattr(patterns, "re", Noted)
    lazy = lazy_pattern(r"\w")
    assert asked == []
    assert lazy.match("a")
    assert lazy.match("b")
    assert asked == [r"\w"]
