"""Every known failure has a check that finds it, or a reason on docs/concepts/not-checked.md why none does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from checks.registry import ALL
from tests.subjects import for_each
from tests.tool import ROOT

HERE = Path(__file__).parent
PAGE = " ".join((ROOT / "docs" / "concepts" / "not-checked.md").read_text(encoding="utf-8").split())
IDS = {check.id for check in ALL}
GROUPS = {check.group for check in ALL}


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    symptom: str
    cause: str
    checks: tuple[str, ...]
    not_seen: str = ""


def failures() -> tuple[Failure, ...]:
    tables = tomllib.loads((HERE / "failure_modes.toml").read_text(encoding="utf-8"))
    return msgspec.convert(tables["failure"], tuple[Failure, ...])


def test_the_list_is_complete() -> None:
    wanted = [*map(str, range(1, 63)), "xid", *(f"b{number}" for number in range(1, 30))]
    assert [failure.id for failure in failures()] == wanted
    assert f"{len(wanted)} known failures" in PAGE


@for_each("failure", failures(), ids=lambda failure: failure.id)
def test_a_known_failure_has_a_check_or_a_documented_reason(failure: Failure) -> None:
    assert failure.symptom and failure.cause
    assert set(failure.checks) <= IDS
    assert failure.checks or failure.not_seen
    if failure.not_seen:
        assert f"**{failure.symptom}**" in PAGE
        assert failure.not_seen in PAGE


def test_the_page_names_only_existing_checks() -> None:
    named = {word for word in re.findall(r"`([a-z]+\.[a-z0-9-]+)`", PAGE) if word.partition(".")[0] in GROUPS}
    assert named <= IDS
