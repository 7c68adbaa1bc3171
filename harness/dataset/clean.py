"""`data clean`: what would change, the cleaned copy, and a log from which the original rows can be restored.

checked file ─▶ changes(): for each row drop, change or keep ─▶ summary (nothing written) or new file + log
"""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from harness.dataset.block_reader import read_blocks
from harness.dataset.check import CheckedFile
from harness.dataset.findings import CleaningAction, KindChange, kinds
from harness.dataset.pseudonyms import Pseudonyms
from harness.dataset.row import FIELDS, DataRow, decode_row, row_of
from harness.dataset.row_rules import private_spans
from harness.dataset.row_writer import RowWriter, new_file
from harness.dataset.rules.damage import repair_text
from harness.dataset.rules.gates import gates_of
from harness.dataset.rules.hints import rules_with_hints
from harness.dataset.rules.phrases import find_phrases, fold_case, phrases
from harness.dataset.rules.span import PRECEDENCE, TextSpan
from machine.errors import BadUsage, reason
from machine.input_file import open_input

LOG_SCHEMA = "gpu-setup/data-clean-log/1"
_TAG = re.compile(r"<[^<>\n]{1,220}>")
_BREAK = re.compile(r"<br\s*/?>|</p>|</div>|</li>|</tr>", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n{3,}")


class CleaningRules(NamedTuple):
    """`keep`: kinds that stay unchanged; `drop`: kinds whose rows are removed although cleaning would keep them."""

    keep: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()
    person: str = "Customer"
    names: bool = True


class RowChange(NamedTuple):
    """One row. `kinds`: why it changes; `value`: the new row, None when it is removed; `place`: offset and length of a
    row too long for the log, which is kept in the input only.
    """

    row: int
    raw: bytes
    kinds: tuple[str, ...]
    value: Any
    before: DataRow
    after: tuple[str, str, str] | None
    place: tuple[int, int] | None = None


def cleaning_action(kind: str, rules: CleaningRules) -> CleaningAction:
    """What cleaning does with a kind under these rules."""
    if kind in rules.keep:
        return "leave"
    return "drop" if kind in rules.drop else kinds()[kind].clean


def changes(checked: CheckedFile, rules: CleaningRules) -> Iterator[RowChange]:
    """Every row of the file in order, changed or not."""
    whose: dict[int, list[str]] = {}
    for kind, rows in checked.rows_of.items():
        if cleaning_action(kind, rules) != "leave":
            for row in rows:
                whose.setdefault(row, []).append(kind)
    pseudonyms = Pseudonyms(rules.person)
    for block in read_blocks(checked.source, []):
        for number, (start, end) in enumerate(zip(block.starts, block.ends, strict=True)):
            row = block.row + number
            raw = block.data[start:end] if end else b""
            change = _change_row(row, raw, tuple(whose.get(row, ())), rules, pseudonyms)
            yield change if end else change._replace(place=(block.offset, block.skipped))


def _change_row(
    number: int, raw: bytes, why: tuple[str, ...], rules: CleaningRules, pseudonyms: Pseudonyms
) -> RowChange:
    value, problems = decode_row(raw) if raw else (None, (("too-long", ""),))
    row = row_of(value, problems)
    if not why:
        return RowChange(number, raw, (), value, row, row.texts)
    done = {kind: cleaning_action(kind, rules) for kind in why}
    if "drop" in done.values() or not isinstance(value, dict):
        return RowChange(number, raw, tuple(kind for kind in why if done[kind] == "drop") or why, None, row, None)
    texts = _repair_texts(row, {kind for kind, does in done.items() if does == "repair"})
    masked = {kind for kind, does in done.items() if does == "mask"}
    if masked:
        texts = _mask_texts(texts, masked, rules.names, pseudonyms)
    if not texts[0].strip() or not texts[2].strip():
        return RowChange(number, raw, why, None, row, None)
    new = dict(value)
    for field, before, after in zip(FIELDS, row.texts, texts, strict=True):
        if before != after:
            new[field] = after
    return RowChange(number, raw, why, new, row, texts)


def _repair_texts(row: DataRow, why: set[str]) -> tuple[str, str, str]:
    texts = [row.instruction, row.input, row.output]
    if why & {"mojibake", "control-characters", "invisible-characters", "byte-order-mark"}:
        texts = [repair_text(text) for text in texts]
    if "template-marker" in why:
        texts = [_without("template-marker", text) for text in texts]
    if "quoted-mail" in why:
        low = fold_case(texts[2])
        found = find_phrases("quoted-mail", low, range(len(phrases().by_kind["quoted-mail"])))
        if found:
            texts[2] = texts[2][: found[0][0]].rstrip()
    if "markup" in why:
        texts[2] = (
            _BLANK_LINES.sub("\n\n", html.unescape(_TAG.sub("", _BREAK.sub("\n", texts[2]))))
            .replace("\u00a0", " ")
            .strip()
        )
    if "untrimmed" in why or "template-marker" in why:
        texts = [text.strip() for text in texts]
    return texts[0], texts[1], texts[2]


def _without(kind: str, text: str) -> str:
    """The text without the kind's phrases."""
    parts, seen = [], 0
    for start, end in find_phrases(kind, fold_case(text), range(len(phrases().by_kind[kind]))):
        if start >= seen:
            parts.append(text[seen:start])
            seen = end
    # `<|im_start|>assistant`: the role's name belongs to the marker
    cleaned = "".join([*parts, text[seen:]]).strip()
    return re.sub(r"^(?:assistant|model|user|system)\s*\n?", "", cleaned) if parts else text


def _mask_texts(
    texts: tuple[str, str, str], masked: set[str], names: bool, pseudonyms: Pseudonyms
) -> tuple[str, str, str]:
    spans: list[list[TextSpan]] = []
    for text in texts:
        low = fold_case(text)
        found = private_spans(text, low, rules_with_hints(low), gates_of(text), names)
        spans.append([span for span in found if span.kind in masked and span.kind in PRECEDENCE])
    one, two, three = pseudonyms.in_row(texts, spans)
    return one, two, three


class CleaningSummary(NamedTuple):
    """What would change, by kind, with an example of each; how many rows are kept, removed, and changed or removed."""

    changes: tuple[KindChange, ...]
    kept: int
    gone: int
    touched: int


def summarise_cleaning(checked: CheckedFile, rules: CleaningRules) -> CleaningSummary:
    """The whole cleaning as a dry run: nothing is written."""
    counts: dict[str, int] = {}
    first: dict[str, RowChange] = {}
    kept = gone = touched = 0
    for change in changes(checked, rules):
        if change.value is None:
            gone += 1
        else:
            kept += 1
        touched += bool(change.kinds or change.value is None)
        for kind in change.kinds:
            counts[kind] = counts.get(kind, 0) + 1
            first.setdefault(kind, change)
    order = list(kinds())
    made = tuple(_example_of_kind(kind, counts[kind], first[kind], rules) for kind in sorted(counts, key=order.index))
    return CleaningSummary(made, kept, gone, touched)


def _example_of_kind(kind: str, rows: int, change: RowChange, rules: CleaningRules) -> KindChange:
    before, after = "", ""
    if change.after is None:
        raw = change.raw[:200].decode("utf-8", "replace")
        before = _short(f"{change.before.instruction} → {change.before.output}" if change.before.output else raw)
    else:
        for old, new in zip(change.before.texts, change.after, strict=True):
            if old != new:
                before, after = _near_difference(old, new)
                break
    does = {
        "drop": "the row is removed",
        "repair": "repaired",
        "mask": "replaced by a pseudonym",
        "leave": "unchanged",
    }[cleaning_action(kind, rules)]
    return KindChange(kind, does, rows, change.row, before, after)


def _near_difference(old: str, new: str, around: int = 25) -> tuple[str, str]:
    """Both texts, near the first place where they differ."""
    place = next(
        (at for at, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )
    begin = max(0, place - around)
    return _short(repr(old[begin : place + 45])[1:-1]), _short(repr(new[begin : place + 45])[1:-1])


def _short(text: str, most: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def write_clean(checked: CheckedFile, rules: CleaningRules, target: Path, log: Path) -> tuple[int, int]:
    """Write the cleaned rows and the log; returns rows written and log entries. The log has the original rows."""
    entries = 0
    with new_file(log, private=True) as log_file, new_file(target) as file:
        writer = RowWriter(file)
        head = {"schema": LOG_SCHEMA, "input": checked.source.name, "output": str(target), "rows": checked.own_rows}
        log_file.write(msgspec.json.encode(head) + b"\n")
        for change in changes(checked, rules):
            if change.value is not None:
                writer.write(change.value)
            if change.kinds or change.value is None:
                entries += 1
                log_file.write(msgspec.json.encode(_entry(change)) + b"\n")
        writer.end()
    return writer.rows, entries


def _entry(change: RowChange) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "row": change.row,
        "kinds": change.kinds,
        "did": "change" if change.value is not None else "drop",
    }
    if change.place is not None:
        entry["place"] = change.place
        return entry
    try:
        entry["raw"] = change.raw.decode("utf-8")
    except UnicodeDecodeError:
        entry["raw64"] = base64.b64encode(change.raw).decode()
    return entry


class _Entry(msgspec.Struct):
    row: int
    did: str
    raw: str | None = None
    raw64: str | None = None
    place: tuple[int, int] | None = None

    def original(self, source: str) -> bytes:
        """The original row; a row too long for the log is read from the file that was cleaned. Raises OSError."""
        if self.place is not None:
            with open_input(source) as file:
                begin, length = (min(max(number, 0), os.fstat(file.fileno()).st_size) for number in self.place)
                file.seek(begin)
                return file.read(length).strip().rstrip(b",")
        return self.raw.encode() if self.raw is not None else base64.b64decode(self.raw64 or "")


class _Head(msgspec.Struct):
    schema: str
    rows: int
    input: str = ""


def _read_entry(line: bytes, log: Path) -> _Entry:
    try:
        return msgspec.json.decode(line, type=_Entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(log, error) from error


def _original(entry: _Entry, source: str, log: Path) -> bytes:
    try:
        return entry.original(source)
    except (OSError, ValueError) as error:
        raise _damaged(log, error) from error


def _damaged(log: Path, error: Exception) -> BadUsage:
    return BadUsage(
        "data.log-damaged", f"A row cannot be restored from {log}.", f"{reason(error)}.", "Give the whole log."
    )


def undo(cleaned: Path, log: Path, target: Path, scratch: Path) -> int:
    """Restore the original rows, byte for byte, from the cleaned file and its log; returns how many."""
    from harness.dataset.block_reader import open_data_file

    try:
        with open_input(log) as file:
            head = msgspec.json.decode(file.readline(1 << 16), type=_Head)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadUsage(
            "data.no-log", f"{log} is not a log of data clean.", f"{reason(error)}.", "Give the log file."
        ) from error
    if head.schema != LOG_SCHEMA:
        raise BadUsage(
            "data.no-log", f"{log} is not a log of data clean.", f"Its schema is {head.schema}.", "Give the log file."
        )
    source = open_data_file(cleaned, scratch)
    rows = (
        block.data[start:end]
        for block in read_blocks(source, [])
        for start, end in zip(block.starts, block.ends, strict=True)
    )
    with open_input(log) as file, new_file(target) as out:
        file.readline()
        entries = (_read_entry(line, log) for line in file)
        entry = next(entries, None)
        writer = RowWriter(out)
        for number in range(head.rows):
            if entry is not None and entry.row == number:
                if entry.did == "change":
                    next(rows, None)
                writer.write_raw(_original(entry, head.input, log))
                entry = next(entries, None)
                continue
            raw = next(rows, None)
            if raw is None:
                raise BadUsage(
                    "data.log-mismatch",
                    f"{log} does not belong to {cleaned}.",
                    f"Row {number} is in neither of them.",
                    "Give a cleaned file with its own log.",
                )
            writer.write_raw(raw)
        writer.end()
    return writer.rows
