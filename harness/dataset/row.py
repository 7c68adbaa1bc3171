"""One raw piece of a data file as an Alpaca row, as far as it is one."""

from __future__ import annotations

import codecs
import json
from typing import Any, NamedTuple

import msgspec

from harness.dataset.alpaca import LONGEST_TEXT

FIELDS = ("instruction", "input", "output")


class Row(NamedTuple):
    """The three texts, what is wrong with the row's form (`(kind, words)`), and the mark of where it came from."""

    instruction: str
    input: str
    output: str
    problems: tuple[tuple[str, str], ...]
    origin: str
    whole: bool

    @property
    def texts(self) -> tuple[str, str, str]:
        return self.instruction, self.input, self.output


NOTHING = Row("", "", "", (), "", False)
_DECODER = msgspec.json.Decoder()
# how a row may say whether a person or a model wrote it
_ORIGIN_FIELDS = ("kind", "origin", "provenance")
ORIGINS = ("organic", "semi-synthetic", "synthetic")


def decode(raw: bytes) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """The JSON value and the problems met; the value is None where there is none to be had."""
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
    """Also with raw control characters, NaN and lone surrogates, which strict readers refuse."""
    try:
        return json.loads(text, strict=False), ()
    except (ValueError, RecursionError) as error:
        return None, (("unreadable-row", str(error)[:80]),)


def guess_encoding(raw: bytes) -> str:
    """The likeliest older encoding of the bytes."""
    from charset_normalizer import from_bytes

    best = from_bytes(raw[:20000], cp_exclusion=["utf_8", "ascii"], preemptive_behaviour=False).best()
    # Windows-1252 is what Western files are in nearly always, and short texts tell its cousins apart badly
    if best is None or best.encoding in _COUSINS:
        return "cp1252"
    return codecs.lookup(best.encoding).name


# encodings that charset-normalizer names for short Western texts, and older ones that no data file is in today
_COUSINS = frozenset(
    (
        "latin_1", "cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_9",
        "iso8859_10", "iso8859_13", "iso8859_14", "iso8859_15", "iso8859_16", "cp437", "cp850", "cp852", "cp858",
        "mac_roman", "mac_latin2", "mac_iceland", "mac_turkish", "hp_roman8", "cp500", "cp037", "cp1140", "cp273",
        "cp1026", "cp775", "cp860", "cp861", "cp863", "cp865",
    )
)  # fmt: skip


def row_of(value: Any, problems: tuple[tuple[str, str], ...]) -> Row:
    """The value as a row; every deviation from Alpaca's form is told."""
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
            wrong.append(f"{field} is {_named(text)}, not a text")
    if wrong:
        problems = (*problems, ("schema", "; ".join(wrong)))
    origin = ""
    for field in _ORIGIN_FIELDS:
        mark = value.get(field)
        if isinstance(mark, str) and mark in ORIGINS:
            origin = mark
            break
    row = Row(texts[0], texts[1], texts[2], problems, origin, not wrong)
    if not wrong:
        longest = max(map(len, texts))
        if longest > LONGEST_TEXT:
            return row._replace(problems=(*problems, ("too-long", f"a text of {longest:,} characters")), whole=False)
        empty = [field for field in ("instruction", "output") if not texts[FIELDS.index(field)].strip()]
        if empty:
            return row._replace(problems=(*problems, ("empty", f"{' and '.join(empty)} is empty")), whole=False)
    return row


def _named(value: Any) -> str:
    names = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "of another type")
