"""Alpaca data: read when right, and told with the place when wrong."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.alpaca import AlpacaRow, parse_alpaca, read_alpaca
from machine.errors import BadAnswer, BadUsage
from tests.cpu_time import at_most

GOOD = b'[{"instruction": "Greet.", "input": "", "output": "Hello."}, {"instruction": "Add 1 and 2.", "output": "3"}]'


def test_rows_with_and_without_input() -> None:
    assert parse_alpaca(GOOD, "x.json") == (AlpacaRow("Greet.", "Hello.", ""), AlpacaRow("Add 1 and 2.", "3", ""))


def test_a_byte_order_mark_and_further_fields_do_not_matter() -> None:
    raw = codecs.BOM_UTF8 + b'[{"instruction": "Greet.", "output": "Hi.", "id": 7}]'
    assert parse_alpaca(raw, "x.json") == (AlpacaRow("Greet.", "Hi."),)


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"", "data.empty", "x.json is empty"),
        (b" \n\t", "data.empty", "x.json is empty"),
        (b"[]", "data.empty", "has no rows"),
        (b"instruction,output\nGreet.,Hi.\n", "data.not-json", "not JSON"),
        (GOOD[:40], "data.not-json", "not JSON"),
        (b'[{"x": ' + b"[" * 100_000, "data.not-json", "not JSON"),
        (b'{"rows": []}', "data.not-alpaca", "Expected `array`, got `object`"),
        (b'[{"instruction": "Greet."}]', "data.not-alpaca", "missing required field `output` - at `$[0]`"),
        (b'[{"instruction": "a", "output": "b"}, {"instruction": 3, "output": "b"}]', "data.not-alpaca",
         "got `int` - at `$[1].instruction`"),
        (b'[{"instruction": "a", "input": null, "output": "b"}]', "data.not-alpaca", "`$[0].input`"),
        (b'[["a", "b"]]', "data.not-alpaca", "`$[0]`"),
        (b'[{"instruction": " ", "output": "b"}]', "data.empty-row", "Row 0 of x.json has an empty instruction"),
        (b'[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": ""}]', "data.empty-row",
         "Row 1 of x.json has an empty output"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(raw: bytes, code: str, words: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        parse_alpaca(raw, "x.json")
    assert caught.value.code == code
    assert words in caught.value.what
    assert caught.value.why and caught.value.next


def test_not_utf8_names_byte_and_line() -> None:
    with pytest.raises(BadAnswer) as caught:
        parse_alpaca(b'[\n{"instruction": "Gr\xfc\xdfe.",\n"output": "Hi."}]', "x.json")
    assert caught.value.code == "data.encoding"
    assert "byte 21 (line 2) is 0xfc" in caught.value.what
    assert "iconv -f WINDOWS-1252" in caught.value.next


def test_half_a_character_is_not_utf8_either() -> None:
    with pytest.raises(BadAnswer) as caught:
        parse_alpaca(b'[{"instruction": "\\ud800", "output": "x"}]', "x.json")
    assert caught.value.code == "data.not-json"


def test_a_text_of_50_mb_is_too_long() -> None:
    raw = b'[{"instruction": "a", "output": "' + b"x" * (50 << 20) + b'"}]'
    with at_most(5), pytest.raises(BadAnswer) as caught:
        parse_alpaca(raw, "x.json")
    assert caught.value.code == "data.too-long"
    assert "Row 0 of x.json has a text of 52,428,800 characters" in caught.value.what


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadUsage) as caught:
        read_alpaca(tmp_path / name)
    assert caught.value.code == "data.unreadable"


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    try:
        assert parse_alpaca(raw, "x.json")
    except BadAnswer as problem:
        assert problem.code.startswith("data.")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["instruction", "input", "output", "x"]), inner, max_size=4)
        ),
    )
)
def test_any_json(value: object) -> None:
    try:
        assert parse_alpaca(json.dumps([value]).encode(), "x.json")
    except BadAnswer as problem:
        assert problem.code.startswith("data.")
