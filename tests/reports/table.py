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


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A card in place of the machine's: `was` that one's PCI id, `device` this one's, `memory` in MiB, `name` NVML's.

    `target` is the compute capability, or the number that KFD writes for the gfx (110002: gfx1102).
    """

    was: str
    device: str
    memory: int
    target: str
    revision: str = "a1"
    name: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine that somebody wrote about: `quoted` and `composed` say what of it is theirs and what is ours."""

    name: str
    source: tuple[str, ...]
    cause: str
    quoted: str
    composed: str
    machine: str
    card: Card | None = None
    torch: str = ""
    swap: tuple[tuple[str, str], ...] = ()
    edit: dict[str, Any] = {}
    right: Right


class Look(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"not_": "not"}):
    """Something that another doctor looks for, and what answers it here; `not_`: why it is no fault here."""

    of: str
    id: str
    what: str
    reports: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    not_: str = ""


@cache
def reports() -> tuple[Report, ...]:
    """Every report, by file and in the files' order."""
    rows = (row for file in sorted((HERE / "data").glob("*.toml")) for row in _rows(file))
    return tuple(msgspec.convert(row, Report) for row in rows)


@cache
def looks() -> tuple[Look, ...]:
    """What other doctors look for."""
    rows = tomllib.loads((HERE / "peers.toml").read_text(encoding="utf-8"))["look"]
    return msgspec.convert(rows, tuple[Look, ...])


def _rows(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(file.read_text(encoding="utf-8"))["report"]
    return found
