"""Keys, tokens and passwords, found by their form. The forms are in credentials.toml."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple

from harness.dataset.rules.span import TextSpan


class Secret(NamedTuple):
    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]


@cache
def secrets() -> tuple[Secret, ...]:
    import tomllib

    text = (resources.files("harness.dataset.rules") / "credentials.toml").read_text(encoding="utf-8")
    return tuple(
        Secret(row["name"], tuple(row["hints"]), re.compile(row["re"])) for row in tomllib.loads(text)["secret"]
    )


def secret_spans(text: str, numbers: Iterable[int]) -> list[TextSpan]:
    """The secrets with these numbers in the text."""
    return [
        TextSpan("secret", *match.span()) for number in numbers for match in secrets()[number].pattern.finditer(text)
    ]
