"""Progress of long work. Rooms emit events; only the top floor prints them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    """One moment of long work.

    `stage` is the stage's stable name (`environment`, `train`), `text` a short sentence for the user.
    `done` and `total` count in `unit`; `seconds_left` is an estimate, None while there is none.
    `kind`: `start`, `progress`, `note`, `warning`, `end`.
    """

    kind: str
    stage: str
    text: str
    done: float | None = None
    total: float | None = None
    unit: str = ""
    seconds_left: float | None = None


Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """Drop the event: for callers who want only the result."""
