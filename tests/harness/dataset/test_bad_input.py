"""Files that no one should have: a clear word with the place, nothing lost, the rest used where it can be."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.check import CheckSettings, check
from harness.dataset.findings import DataFinding, DataReport
from machine.errors import BadAnswer, BadUsage
from tests.harness.dataset.corpus import clean_rows


def rows(count: int = 3, seed: int = 1) -> list[dict[str, Any]]:
    return clean_rows(count, seed)


def checked(tmp_path: Path, raw: bytes) -> DataReport:
    path = tmp_path / "data.json"
    path.write_bytes(raw)
    return check(path, wanted=CheckSettings(workers=1))


def of(report: DataReport, kind: str) -> DataFinding:
    return next(finding for finding in report.findings if finding.kind == kind)


def kinds(report: DataReport) -> set[str]:
    return {finding.kind for finding in report.findings} - {"few-rows"}


def as_json(*values: Any) -> bytes:
    return json.dumps(list(values), ensure_ascii=False).encode()


@pytest.mark.parametrize("raw", [b"Dear all, here is the data", b"<html></html>", b"instruction,output\nHi,Hello"])
def test_not_json_is_an_error_with_place_and_next_step(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(BadAnswer) as told:
        checked(tmp_path, raw)
    assert told.value.code == "data.not-json"
    assert "line 1" in told.value.what and "data import" in told.value.next


@pytest.mark.parametrize("raw", [b"", b" \n\n "])
def test_an_empty_file(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(BadAnswer) as told:
        checked(tmp_path, raw)
    assert told.value.code == "data.empty"


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BadUsage):
        check(tmp_path / "absent.json")


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert checked(tmp_path, b"[]").rows == 0


def test_truncated_json_keeps_the_whole_rows(tmp_path: Path) -> None:
    raw = as_json(*rows(5))
    report = checked(tmp_path, raw[: raw.rindex(b'"output"') + 20])
    assert report.rows == 5
    assert of(report, "unreadable-row").rows == (4,)
    assert "file is incomplete" in of(report, "cut-file").summary and "line" in of(report, "cut-file").summary


def test_a_list_without_its_bracket(tmp_path: Path) -> None:
    report = checked(tmp_path, as_json(*rows(3)).rstrip(b"]"))
    assert report.rows == 3 and kinds(report) == {"cut-file"}


def test_one_broken_row_costs_only_itself(tmp_path: Path) -> None:
    one, two, three = (json.dumps(row).encode() for row in rows(3))
    broken = two.replace(b'"output": "', b'"output": ', 1)
    report = checked(tmp_path, b"[" + one + b",\n" + broken + b",\n" + three + b"]")
    assert report.rows == 3
    assert of(report, "unreadable-row").rows == (1,) and of(report, "unreadable-row").lines == (2,)


def test_rows_are_not_split_inside_a_text_that_contains_json(tmp_path: Path) -> None:
    tricky = {
        "instruction": "Give me JSON.",
        "input": '[{"a": 1}, {"b": 2}',
        "output": 'Here: {"a": 1}, {"b": "}, {"} …',
    }
    one, two = rows(2)
    raw = as_json(one, tricky, two)
    assert checked(tmp_path, raw).rows == 3
    # and beside a broken row, where the slow way is taken
    report = checked(tmp_path, raw[:-1] + b', {"instruction": broken}, ' + json.dumps(rows(1, 9)[0]).encode() + b"]")
    assert report.rows == 5 and of(report, "unreadable-row").rows == (3,)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nested_a_million_deep(tmp_path: Path, opening: bytes) -> None:
    deep = opening * (1_000_000 // len(opening)) + b"1"
    report = checked(tmp_path, b"[" + json.dumps(rows(1)[0]).encode() + b",\n" + deep + b"]")
    assert of(report, "unreadable-row").count >= 1
    assert 0 not in of(report, "unreadable-row").rows


@pytest.mark.parametrize("shape", ["lines", "list"])
def test_one_huge_line_is_skipped_and_the_rest_is_checked(tmp_path: Path, shape: str) -> None:
    one, two = (json.dumps(row).encode() for row in rows(2))
    path = tmp_path / "data.json"
    with path.open("wb") as file:
        file.write((b"[" if shape == "list" else b"") + one + (b",\n" if shape == "list" else b"\n"))
        file.write(b'{"instruction": "x", "output": "')
        for _ in range(120):
            file.write(b"abcdefgh" * (128 << 10))
        file.write(b'"}' + (b",\n" if shape == "list" else b"\n") + two + (b"]" if shape == "list" else b"\n"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check(path, wanted=CheckSettings(workers=1))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert report.rows == 3
    assert of(report, "too-long").rows == (1,)
    assert "bytes" in of(report, "too-long").excerpt
    # 120 MB stand in that line, and are not held
    assert grown < 100


def test_nul_bytes_and_raw_control_characters(tmp_path: Path) -> None:
    one, two = rows(2)
    raw = as_json(one, two).replace(
        two["output"][:8].encode(), two["output"][:4].encode() + b"\x00" + two["output"][4:8].encode()
    )
    report = checked(tmp_path, raw)
    assert report.rows == 2
    assert of(report, "unreadable-row").rows == (1,)
    assert of(report, "control-characters").rows == (1,)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("text", "a text"), (7, "a number"), (None, "null"), ([], "a list"), (True, "true or false"),
        ({"instruction": 1, "output": "x"}, "instruction is a number"), ({"output": "x"}, "instruction is missing"),
        ({"instruction": "x", "output": None}, "output is null"),
        ({"instruction": "x", "output": {}}, "output is an object"),
        ({"instruction": "x", "output": "y", "input": ["z"]}, "input is a list"),
    ],
)  # fmt: skip
def test_wrong_types_are_named(tmp_path: Path, value: Any, said: str) -> None:
    report = checked(tmp_path, as_json(*rows(2), value))
    assert of(report, "schema").rows == (2,) and said in of(report, "schema").excerpt


def test_mixed_encodings_row_by_row(tmp_path: Path) -> None:
    german = {
        "instruction": "Was heißt Größe auf Englisch?",
        "input": "",
        "output": "Die Größe heißt dort „size“, natürlich.",
    }
    text = json.dumps(german, ensure_ascii=False)
    raw = b"[" + text.encode() + b",\n" + text.replace("?", "!").encode("cp1252") + b"]"
    report = checked(tmp_path, raw)
    assert of(report, "not-utf8").rows == (1,)
    assert "cp1252" in of(report, "not-utf8").excerpt


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_utf_16_and_32_are_read_and_reported(tmp_path: Path, encoding: str) -> None:
    report = checked(tmp_path, json.dumps(rows(4)).encode(encoding))
    assert report.rows == 4
    assert of(report, "not-utf8").rows == ()


def test_a_byte_order_mark_is_reported(tmp_path: Path) -> None:
    assert kinds(checked(tmp_path, b"\xef\xbb\xbf" + as_json(*rows(2)))) == {"byte-order-mark"}


def test_a_list_in_a_wrapper_is_found(tmp_path: Path) -> None:
    report = checked(tmp_path, json.dumps({"data": rows(3)}).encode())
    assert report.rows == 3 and not kinds(report)


def test_a_file_of_nothing_but_broken_rows_ends(tmp_path: Path) -> None:
    report = checked(tmp_path, b"[" + b",\n".join([b'{"instruction": oops}'] * 5000) + b"]")
    assert of(report, "unreadable-row").count >= 1000
    assert report.rows < 5000


def test_lone_surrogates_and_nan(tmp_path: Path) -> None:
    report = checked(
        tmp_path,
        b'[{"instruction": "a \\ud800 b", "output": "Some words stand here."}, {"instruction": NaN, "output": "y"}]',
    )
    assert report.rows == 2
    assert of(report, "lost-characters").rows == (0,)
    assert of(report, "schema").rows == (1,)
