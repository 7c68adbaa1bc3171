"""Cleaning: shown, written beside the input, reversible, with the same pseudonym for the same person."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.check import CheckSettings, check, open_checked
from harness.dataset.clean import CleaningRules, summarise_cleaning, undo, write_clean
from machine.errors import BadUsage
from machine.events import silent
from tests.harness.dataset.corpus import clean_rows
from tests.harness.dataset.planted import planted


def cleaned(path: Path, rules: CleaningRules | None = None) -> tuple[list[dict[str, Any]], Path, Path]:
    out, log = path.with_name("clean.json"), path.with_name("clean.log.jsonl")
    with open_checked(path, None, CheckSettings(), silent) as checked:
        write_clean(checked, rules or CleaningRules(), out, log)
    return json.loads(out.read_text(encoding="utf-8")), out, log


def written(tmp_path: Path, rows: list[Any]) -> Path:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def with_output(text: str, seed: int = 3) -> dict[str, Any]:
    return {**clean_rows(1, seed)[0], "output": text}


def test_the_same_person_gets_the_same_pseudonym(tmp_path: Path) -> None:
    rows = [
        with_output("Dear Emily,\n\nthe kettle is ready.\n\nKind regards,\nEmily Thornbury", 1),
        with_output("I asked Emily Thornbury about the fence, and she said yes to it.", 2),
        with_output("My name is Jack Whitcombe. Write to jack@whitcombe.org or call me at +1 212 555 0187.", 3),
        with_output("Jack Whitcombe, jack@whitcombe.org, had the other one. My name is Jack Whitcombe.", 4),
    ]
    new, _, _ = cleaned(written(tmp_path, rows))
    assert new[0]["output"] == "Dear Customer 1,\n\nthe kettle is ready.\n\nKind regards,\nCustomer 1"
    assert new[1]["output"].startswith("I asked Customer 1 about the fence")
    assert new[2]["output"] == "My name is Customer 2. Write to customer1@example.com or call me at phone number 1."
    assert "Customer 2, customer1@example.com" in new[3]["output"]


def test_text_is_repaired(tmp_path: Path) -> None:
    rows = [
        with_output("Das Fenster ist geÃ¶ffnet, und die TÃ¼r ist zu.", 1),
        with_output("\ufeffThe radio\x07 plays\u200b softly in the hall.", 2),
        with_output("<p>Oil the chain &amp; the hinge.</p><p>Then wait.</p>", 3),
        with_output("It takes ten minutes to dry.\n\nOn Mon, 2 Feb 2026 at 10:00, Sam wrote:\n> How long?", 4),
        with_output("<|im_start|>assistant\nPut it near the stove to dry.<|im_end|>", 5),
        with_output("  Blanks around the answer.\n\n", 6),
    ]
    new, _, _ = cleaned(written(tmp_path, rows))
    assert [row["output"] for row in new] == [
        "Das Fenster ist geöffnet, und die Tür ist zu.",
        "The radio plays softly in the hall.",
        "Oil the chain & the hinge.\nThen wait.",
        "It takes ten minutes to dry.",
        "Put it near the stove to dry.",
        "Blanks around the answer.",
    ]


def test_the_original_is_restored_from_the_log(tmp_path: Path) -> None:
    rows, _, _ = planted(seed=8, clean=200, each=6)
    path = written(tmp_path, rows)
    before = path.read_bytes()
    new, out, log = cleaned(path)
    assert len(new) < len(rows)
    assert path.read_bytes() == before
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert undo(out, log, tmp_path / "back.json", scratch) == len(rows)
    assert json.loads((tmp_path / "back.json").read_text(encoding="utf-8")) == rows


def test_rows_that_were_not_json_are_restored_too(tmp_path: Path) -> None:
    one, two = (json.dumps(row).encode() for row in clean_rows(2, 4))
    broken, latin = (
        b'{"instruction": oops, "output": 1}',
        b'{"instruction": "Gr\xfc\xdfe?", "output": "Sch\xf6ne Gr\xfc\xdfe an alle daheim."}',
    )
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b",\n".join([one, broken, latin, two]) + b"]")
    new, out, log = cleaned(path)
    assert [row["instruction"] for row in new][1] == "Grüße?"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    undo(out, log, tmp_path / "back.json", scratch)
    back = (tmp_path / "back.json").read_bytes()
    assert broken in back and latin in back


def test_nothing_is_left_to_clean_afterwards(tmp_path: Path) -> None:
    rows, _, _ = planted(seed=9, clean=400, each=8)
    _, out, _ = cleaned(written(tmp_path, rows))
    left = {finding.kind for finding in check(out).findings if finding.clean in ("drop", "mend", "mask")}
    assert left == set()


def test_only_the_chosen_kinds_are_cleaned(tmp_path: Path) -> None:
    rows = [with_output("My name is Jack Whitcombe, and I wrote <b>this</b> &amp; that.", 1), *clean_rows(3, 5)]
    new, _, _ = cleaned(written(tmp_path, rows), CleaningRules(keep=frozenset({"name"})))
    assert new[0]["output"] == "My name is Jack Whitcombe, and I wrote this & that."
    new, _, _ = cleaned(written(tmp_path, rows), CleaningRules(drop=frozenset({"name"})))
    assert len(new) == 3
    new, _, _ = cleaned(written(tmp_path, rows), CleaningRules(person="Kundin"))
    assert "Kundin 1" in new[0]["output"]


def test_clean_rows_stay_as_they_are(tmp_path: Path) -> None:
    rows = [
        {**row, "source": f"book#{number}", "extra": [1, {"a": None}]} for number, row in enumerate(clean_rows(200, 6))
    ]
    new, _, _ = cleaned(written(tmp_path, rows))
    assert new == rows


def test_the_summary_says_what_would_change(tmp_path: Path) -> None:
    rows = [with_output("Write to jack@whitcombe.org for the rest of it.", 1), *clean_rows(2, 5), clean_rows(1, 5)[0]]
    with open_checked(written(tmp_path, rows), None, CheckSettings(), silent) as checked:
        planned = summarise_cleaning(checked, CleaningRules())
    assert (planned.kept, planned.gone, planned.touched) == (3, 1, 2)
    mail = next(change for change in planned.changes if change.kind == "email")
    assert "jack@whitcombe.org" in mail.before and "customer1@example.com" in mail.after


def test_only_its_owner_can_read_the_log(tmp_path: Path) -> None:
    _, out, log = cleaned(written(tmp_path, [with_output("Write to jack@whitcombe.org for more.", 1)]))
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert b"jack@" not in out.read_bytes()


def test_a_file_that_is_not_a_log(tmp_path: Path) -> None:
    other = tmp_path / "x.jsonl"
    other.write_text('{"schema": "else"}\n')
    with pytest.raises(BadUsage):
        undo(other, other, tmp_path / "back.json", tmp_path)
