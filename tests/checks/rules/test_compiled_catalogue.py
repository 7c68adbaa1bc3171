"""The catalogue as JSON is that of the TOML files, and is not taken once they differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import checks.catalogue as module
from checks.catalogue import ALLOWED, COMPILED, TABLES, catalogue, compiled, compiled_json, parse

DATA = Path(module.__file__).with_name("data")


def test_the_compiled_catalogue_is_up_to_date() -> None:
    """`python -m tests.generate` writes it."""
    assert (DATA / COMPILED).read_bytes() == compiled_json()
    assert compiled() == parse({name: (DATA / f"{name}.toml").read_bytes() for name in (*TABLES, ALLOWED)})


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the tables that the loader reads."""
    for name in (*(f"{table}.toml" for table in (*TABLES, ALLOWED)), COMPILED):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    monkeypatch.setattr(module, "_DATA", tmp_path)
    compiled.cache_clear()
    yield tmp_path
    compiled.cache_clear()


def test_a_table_that_was_changed_counts_at_once(tables: Path) -> None:
    xids = tables / "xid.toml"
    row = '[[xids]]\nnumber = 9999\nmeaning = "made up"\naction = "info"\nsource = "a test"\ndate = "2026-11-24"\n'
    xids.write_text(xids.read_text(encoding="utf-8") + row, encoding="utf-8")
    assert catalogue().xid(9999) is not None


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"sums": {}, "catalogue": {}, "allowed": {}}'])
def test_without_a_valid_json_file_the_tables_are_read(tables: Path, content: bytes | None) -> None:
    if content is None:
        (tables / COMPILED).unlink()
    else:
        (tables / COMPILED).write_bytes(content)
    assert catalogue().xid(79) is not None
