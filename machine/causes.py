"""Known causes of a failed program: rows to compare its output with. Each room keeps the rows of its tools."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from machine.errors import OutsideFailed, Problem

_FIELD = re.compile(r"\{(\w+)\}")


class Cause(NamedTuple):
    """One row: `pattern` in the output means this. `code` is stable; `kind` is the error, and so the exit status.

    `why` and `next` may hold {name}: what the pattern's group of that name matched.
    """

    pattern: str
    code: str
    why: str
    next: str
    kind: type[Problem] = OutsideFailed


def find_cause(causes: Iterable[Cause], text: str) -> Cause | None:
    """The first row whose pattern is in the text, with its fields filled in."""
    for cause in causes:
        if match := re.search(cause.pattern, text):
            values = {name: " ".join((value or "").split()) for name, value in match.groupdict().items()}
            return cause._replace(why=_fill(cause.why, values), next=_fill(cause.next, values))
    return None


def _fill(text: str, values: dict[str, str]) -> str:
    return _FIELD.sub(lambda field: values.get(field[1], field[0]), text)
