"""One raw piece of a data file as an Alpaca row, as far as possible."""

from __future__ import annotations

import codecs
import json
from typing import Any, NamedTuple

import msgspec

from harness.dataset.alpaca import LONGEST_TEXT

FIELDS = ("instruction", "input", "output")


class DataRow(NamedTuple):
    """The three texts, problems of the row's form (`(kind, words)`), and its origin mark."""

    instruction: str
    input: str
    output: str
    problems: tuple[tuple[str, str], ...]
    origin: str
    whole: bool

    @property
    def texts(self) -> tuple[str, str, str]:
        return self.instruction, self.input, self.output


NOTHING = DataRow("", "", "", (), "", False)
_DECODER = msgspec.json.Decoder()
# fields that may record whether a person or a model wrote the row
_ORIGIN_FIELDS = ("kind", "origin", "provenance")
ORIGINS = ("organic", "semi-synthetic", "synthetic")


def decode_row(raw: bytes) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """The JSON value and the problems; the value is None where nothing can be decoded."""
    try:
        return _DECODER.decode(raw), ()
    except UnicodeDecodeError as error:
        encoding = guess_encoding(raw)
        value, problems = _lenient(raw.decode(encoding, "replace"))
        said = f"byte 0x{error.object[error.start]:02x} is not UTF-8; it reads as {encoding}"
        return value, (("not-utf8", said), *problems)
    except RecursionError:
        return None, (("unreadable-row", "nested too deeply"),)
    except msgspec.DecodeError as error:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode(guess_encoding(raw), "replace")
        value, _ = _lenient(text)
        return value, (("unreadable-row", str(error).removeprefix("JSON is malformed: ")),)


def _lenient(text: str) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """Accepts raw control characters, NaN and lone surrogates too, which strict readers refuse."""
    try:
        return json.loads(text, strict=False), ()
    except (ValueError, RecursionError) as error:
        return None, (("unreadable-row", str(error)[:80]),)


def guess_encoding(raw: bytes) -> str:
    """The most likely older encoding of the bytes."""
    from charset_normalizer import from_bytes

    best = from_bytes(raw[:20000], cp_exclusion=["utf_8", "ascii"], preemptive_behaviour=False).best()
    # Western files are nearly always in Windows-1252, and short texts do not distinguish the encodings related to it
    if best is None or best.encoding in _RELATED:
        return "cp1252"
    return codecs.lookup(best.encoding).name


# encodings that charset-normalizer guesses for short Western texts, and older ones that no data file uses today
_RELATED = frozenset(
    (
        "latin_1", "cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_9",
        "iso8859_10", "iso8859_13", "iso8859_14", "iso8859_15", "iso8859_16", "cp437", "cp850", "cp852", "cp858",
        "mac_roman", "mac_latin2", "mac_iceland", "mac_turkish", "hp_roman8", "cp500", "cp037", "cp1140", "cp273",
        "cp1026", "cp775", "cp860", "cp861", "cp863", "cp865",
    )
)  # fmt: skip


def row_of(value: Any, problems: tuple[tuple[str, str], ...]) -> DataRow:
    """The value as a row; every deviation from Alpaca's form is reported."""
    if value is None and problems:
        return NOTHING._replace(problems=problems)
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
        return NOTHING._replace(problems=(*problems, ("schema", f"the row is {kind}, not an object")))
    wrong = []
    texts = []
    for field in FIELDS:
        text = value.get(field)
        if isinstance(text, str):
            texts.append(text)
            continue
        texts.append("")
        if field not in value:
            if field != "input":
                wrong.append(f"{field} is missing")
        elif text is None:
            wrong.append(f"{field} is null")
        else:
            wrong.append(f"{field} is {_json_type(text)}, not a text")
    if wrong:
        problems = (*problems, ("schema", "; ".join(wrong)))
    origin = ""
    for field in _ORIGIN_FIELDS:
        mark = value.get(field)
        if isinstance(mark, str) and mark in ORIGINS:
            origin = mark
            break
    row = DataRow(texts[0], texts[1], texts[2], problems, origin, not wrong)
    if not wrong:
        longest = max(map(len, texts))
        if longest > LONGEST_TEXT:
            return row._replace(problems=(*problems, ("too-long", f"a text of {longest:,} characters")), whole=False)
        empty = [field for field in ("instruction", "output") if not texts[FIELDS.index(field)].strip()]
        if empty:
            return row._replace(problems=(*problems, ("empty", f"{' and '.join(empty)} is empty")), whole=False)
    return row


def _json_type(value: Any) -> str:
    names = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "of another type")
