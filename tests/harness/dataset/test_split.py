"""The held-out set: seeded, and nothing like it on the other side, found by comparing every pair."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.check import CheckSettings, check, open_checked
from harness.dataset.split import choose_held_out, write_split
from machine.events import silent
from tests.harness.dataset.corpus import clean_rows
from tests.harness.dataset.planted import edited

pytestmark = pytest.mark.long


def split(path: Path, wanted: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train, held_out = path.with_name("train.json"), path.with_name("held-out.json")
    with open_checked(path, None, CheckSettings(), silent) as checked:
        write_split(checked, choose_held_out(checked, wanted, seed), train, held_out)
    return json.loads(train.read_text(encoding="utf-8")), json.loads(held_out.read_text(encoding="utf-8"))


def with_copies(path: Path) -> list[dict[str, Any]]:
    dice = random.Random(2)
    rows = clean_rows(400, 21)
    rows += [edited(dice.choice(rows[:400]), dice) for _ in range(150)]
    rows += [{**dice.choice(rows[:400]), "output": "Something else entirely, for once."} for _ in range(30)]
    dice.shuffle(rows)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return rows


def pairs(row: dict[str, Any]) -> frozenset[tuple[str, str]]:
    words = "".join(
        sign if sign.isalnum() else " " for sign in f"{row['instruction']} {row['output']}".casefold()
    ).split()
    return frozenset(pairwise(words))


def test_no_near_duplicate_is_on_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = with_copies(path)
    for seed in (1, 2, 3):
        train, held_out = split(path, 60, seed)
        assert len(train) + len(held_out) == len(rows)
        assert 50 <= len(held_out) <= 75
        trained = [pairs(row) for row in train]
        for row in held_out:
            mine = pairs(row)
            assert max(len(mine & other) / len(mine | other) for other in trained) < 0.7
            assert all(row["instruction"] != other["instruction"] for other in train)


def test_the_seed_decides(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with_copies(path)
    assert split(path, 40, 7) == split(path, 40, 7)
    assert split(path, 40, 7)[1] != split(path, 40, 8)[1]


def test_leaks_are_found_and_a_split_has_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with_copies(path)
    split(path, 60, 5)
    train, held_out = tmp_path / "train.json", tmp_path / "held-out.json"
    assert "leakage" not in {finding.kind for finding in check(train, held_out).findings}
    rows = json.loads(train.read_text(encoding="utf-8"))
    copy = json.loads(held_out.read_text(encoding="utf-8"))[:3]
    asked = {**copy[0], "output": "Another answer to the same question, of some length."}
    train.write_text(
        json.dumps([*rows, *copy, asked, edited(copy[1], random.Random(4))], ensure_ascii=False), encoding="utf-8"
    )
    leak = next(finding for finding in check(train, held_out).findings if finding.kind == "leakage")
    assert leak.rows == tuple(range(len(rows), len(rows) + 5))
