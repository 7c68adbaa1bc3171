"""The reports of data/*.toml, typed (README.md says what each field means)."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).parent
# any of these; a check's id means a finding of it in doctor's default output, all else words
AnyOf = tuple[str, ...]


class Right(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a right answer says. `cause` names what is wrong, `help` what is to be done; `never` would be untrue."""

    cause: tuple[AnyOf, ...] = ()
    help: tuple[AnyOf, ...] = ()
    plan: tuple[AnyOf, ...] = ()
    never: tuple[str, ...] = ()
    first_never: tuple[str, ...] = ()
    plan_never: tuple[str, ...] = ()
    next_never: tuple[str, ...] = ()
    calm: bool = False
    may: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that somebody wrote about: `quoted` and `composed` say what of it is theirs and what is ours."""

    name: str
    source: tuple[str, ...]
    cause: str
    quoted: str
    composed: str
    machine: str
    swap: tuple[tuple[str, str], ...] = ()
    edit: dict[str, Any] = {}
    right: Right


@cache
def reports() -> tuple[Report, ...]:
    """Every report, by file and in the files' order."""
    rows = (row for file in sorted((HERE / "data").glob("*.toml")) for row in _rows(file))
    return tuple(msgspec.convert(row, Report) for row in rows)


def _rows(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))["report"]
    return found
