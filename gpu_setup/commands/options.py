"""Options that several commands share, spelled once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from machine.local import Machine

if TYPE_CHECKING:
    # it takes 3 ms of every command
    from pathlib import Path

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options_into(kind: type, name: str = "options") -> Decorator:
    """The function gets one `kind` in place of its fields, each an option or argument by that name.

    Innermost of the decorators; more than one kind may be gathered, each under a name of its own.
    """
    fields = tuple(kind.__annotations__)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def gathered(**given: Any) -> Any:
            made = kind(**{field: given.pop(field) for field in fields})
            return function(**{name: made}, **given)

        return gathered

    return decorate


class OneOf(click.Choice[str]):
    """A member of a StrEnum, spelled by its value (`in-tree`); click.Choice takes its name (`in_tree`), so do we."""

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__([word.value for word in words], case_sensitive=False)
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        spelled = value.replace("_", "-") if isinstance(value, str) else value
        return self._words(super().convert(spelled, param, ctx))


# more steps, minutes or passes than any computer will do, and room for every seed
_MOST = (1 << 32) - 1


class Whole(click.IntRange):
    """A whole number in the range, and at most _MOST where the range has no end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if self.max is None and found > _MOST:
            self.fail(f"{value} is more than {_MOST:,}.", param, ctx)
        return found


class Number(click.FloatRange):
    """A number in the range, and at most _MOST where the range has no end. click takes nan for any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found) or (self.max is None and found > _MOST):
            self.fail(f"{value} is not a number up to {_MOST:,}.", param, ctx)
        return found


json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else."
)

machine_option: Decorator = click.option(
    "--machine",
    "recording",
    metavar="DIR|FILE",
    type=click.Path(exists=False),
    help="Use a recorded machine instead of this one: a machine file or folder (gpu-setup facts record), or a bundle "
    "(gpu-setup doctor --bundle).",
)


def refuse_inputs(outputs: Iterable[Path | str | None], inputs: Iterable[Path | str | None]) -> None:
    """Raises BadUsage where a file that is read would be written over, under whatever name."""
    from machine.errors import BadUsage

    for place in outputs:
        for source in inputs:
            with suppress(OSError):
                if place is not None and source is not None and os.path.samefile(place, source):
                    raise BadUsage(
                        "output.overwrites",
                        f"{place} is the input {source}.",
                        "It would be replaced by the result.",
                        "Name another file for the result.",
                    )


def open_machine(recording: str | None) -> Machine:
    """This machine, or the recorded one; BadUsage where there is no recording."""
    if recording is None:
        from machine.local import LocalMachine

        return LocalMachine()
    from machine.open_recording import open_recording

    return open_recording(recording)
