"""One test over many subjects (cards, checks, recorded machines): all are looked at, and each that fails is named.

A case of pytest's own costs some milliseconds in every worker, more than most of these looks themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any


def for_each(
    names: str | tuple[str, ...], subjects: Iterable[Any], ids: Callable[[Any], str] = str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As pytest.mark.parametrize, in one case. The fixtures are made once: not for tests that change what they get."""
    keys = (names,) if isinstance(names, str) else names
    rows = [(subject,) if isinstance(names, str) else tuple(subject) for subject in subjects]
    assert rows, "a test without subjects shows nothing"

    def over_all(test: Callable[..., None]) -> Callable[..., None]:
        def looped(**fixtures: Any) -> None:
            failed: list[Exception] = []
            for row in rows:
                try:
                    test(**fixtures, **dict(zip(keys, row, strict=True)))
                except Exception as error:
                    error.add_note(f"with {', '.join(map(ids, row))}")
                    failed.append(error)
            if failed:
                which = ", ".join(error.__notes__[-1].removeprefix("with ") for error in failed)
                raise ExceptionGroup(f"{len(failed)} of {len(rows)} fail: {which}", failed)

        wanted = inspect.signature(test)
        looped.__signature__ = wanted.replace(  # type: ignore[attr-defined]
            parameters=[each for name, each in wanted.parameters.items() if name not in keys]
        )
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(looped, name, getattr(test, name))
        return looped

    return over_all
