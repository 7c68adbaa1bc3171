"""A mailbox (mbox): pairs of a received mail and its answer, by thread.

Three passes over the file, with one mail in memory at a time: the first finds the user's address and the answered
mails, the second stores those in a small database on disk, the third pairs each answer with the mail that it answers or
quotes. Mails with broken headers, unknown encodings or attachments are read as far as possible.
"""

from __future__ import annotations

import email
import email.header
import email.message
import email.utils
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.dataset.imports.imported import ImportedRow, Skips
from harness.dataset.imports.mail_text import is_forwarded, split_mail, text_of_html
from machine.errors import BadAnswer, BadUsage, reason
from machine.input_file import open_input

# bytes read of one mail: its text is nearly always before its attachments
LONGEST_KEPT = 1 << 20
FEWEST_LETTERS = 8
_ID = re.compile(r"<[^<>\s]{1,250}>")


class Mail(NamedTuple):
    """One mail, decoded. `number`: its place in the file, from 0."""

    number: int
    id: str
    answers: tuple[str, ...]
    sender: str
    subject: str
    text: str


def raw_mails(path: Path) -> Iterator[bytes]:
    """The mails of an mbox file, each up to LONGEST_KEPT. A mail begins at a line `From …` after a blank one."""
    with path.open("rb") as file:
        lines: list[bytes] = []
        size, blank = 0, True
        while line := file.readline(64 << 10):
            if blank and line.startswith(b"From "):
                if lines:
                    yield b"".join(lines)
                lines, size = [], 0
            elif size < LONGEST_KEPT:
                lines.append(line[1:] if line.startswith(b">From ") else line)
                size += len(line)
            blank = not line.strip()
        if lines:
            yield b"".join(lines)


def parse_mail(raw: bytes, number: int) -> Mail | None:
    """The mail; None when it has no readable header. Never fails, whatever the bytes are."""
    try:
        message = email.message_from_bytes(raw)
    except Exception:
        # the parser is lenient, but malicious headers have made it fail before
        return None
    if not message.keys():
        return None
    answers = tuple(
        _ID.findall(_header(message, "In-Reply-To")) or reversed(_ID.findall(_header(message, "References")))
    )
    ids = _ID.findall(_header(message, "Message-ID"))
    _, sender = email.utils.parseaddr(_header(message, "From"))
    return Mail(
        number, ids[0] if ids else "", answers, sender.casefold(), _header(message, "Subject"), body_of(message)
    )


def _header(message: email.message.Message, name: str) -> str:
    """The header as text, its encoded words decoded; empty where absent or broken."""
    try:
        parts = email.header.decode_header(str(message.get(name, "")))
        return (
            "".join(
                part.decode(_known_charset(charset), "replace") if isinstance(part, bytes) else part
                for part, charset in parts
            )
            .replace("\n", " ")
            .replace("\r", "")
        )
    except Exception:
        return ""


def _known_charset(charset: str | None) -> str:
    import codecs

    try:
        return codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        return "cp1252"


def body_of(message: email.message.Message) -> str:
    """The plain text, or the text of the HTML; without attachments."""
    plain, rich = "", ""
    try:
        parts: list[Any] = list(message.walk())
    except Exception:
        parts = [message]
    for part in parts:
        if part.is_multipart() or part.get_content_disposition() == "attachment" or part.get_filename():
            continue
        kind = part.get_content_type()
        if kind not in ("text/plain", "text/html"):
            continue
        text = _decode_part(part)
        if kind == "text/plain" and not plain.strip():
            plain = text
        elif kind == "text/html" and not rich.strip():
            rich = text
    return plain if plain.strip() else text_of_html(rich)


def _decode_part(part: email.message.Message) -> str:
    try:
        payload = part.get_payload(decode=True)
    except Exception:
        return ""
    if not isinstance(payload, bytes):
        return ""
    charset = part.get_content_charset()
    try:
        return payload.decode(_known_charset(charset))
    except UnicodeDecodeError:
        pass
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        return payload.decode("cp1252", "replace")


def mbox_rows(
    sent: Path, received: tuple[Path, ...], me: str, instruction: str, skips: Skips, scratch: Path
) -> Iterator[ImportedRow]:
    """A row for each answer by the user. `received`: mailboxes with the answered mails; `me`: the user's address.

    Without `me` the most frequent sender is the user. With an `instruction` the received mail becomes the input;
    without, it is the instruction itself.
    """
    check_mbox(sent)
    mine, wanted = _survey(sent, me)
    kept = sqlite3.connect(scratch / "mails.sqlite", isolation_level=None)
    try:
        kept.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE mails (id TEXT PRIMARY KEY, text TEXT)"
        )
        kept.executemany("INSERT OR IGNORE INTO mails VALUES (?, NULL)", ((each,) for each in wanted))
        del wanted
        for path in (sent, *received):
            for mail in _mails(path):
                if mail is not None and mail.id:
                    kept.execute("UPDATE mails SET text = ? WHERE id = ? AND text IS NULL", (mail.text, mail.id))
        for number, mail in enumerate(_mails(sent)):
            place = f"{sent.name}#{number}"
            if mail is None:
                skips.skip("a mail whose headers cannot be read", place)
            elif mail.sender != mine:
                skips.skip("a mail that someone else wrote", place)
            else:
                yield from _pair(mail, place, kept, instruction, skips)
    finally:
        kept.close()


def check_mbox(path: Path) -> None:
    try:
        with open_input(path) as file:
            head = file.read(4096).lstrip(b"\r\n")
    except OSError as error:
        raise BadUsage("data.unreadable", f"{path} cannot be read.", f"{reason(error)}.", "Check the path.") from error
    if not head.startswith(b"From "):
        raise BadAnswer(
            "data.not-mbox",
            f"{path} is not a mailbox in the mbox format.",
            "A mailbox file begins with a line “From …”.",
            "Thunderbird stores folders as mbox files; other programs can export them as mbox.",
        )


def _mails(path: Path) -> Iterator[Mail | None]:
    for number, raw in enumerate(raw_mails(path)):
        yield parse_mail(raw, number)


def _survey(path: Path, me: str) -> tuple[str, set[str]]:
    """The user's address (`me`, else the most frequent sender), and the ids of the mails that were answered."""
    senders: Counter[str] = Counter()
    wanted: set[str] = set()
    for mail in _mails(path):
        if mail is not None:
            senders[mail.sender] += 1
            wanted.update(mail.answers[:1])
    mine = me.casefold() or (senders.most_common(1)[0][0] if senders else "")
    return mine, wanted


def _pair(mail: Mail, place: str, kept: sqlite3.Connection, instruction: str, skips: Skips) -> Iterator[ImportedRow]:
    if is_forwarded(mail.subject):
        skips.skip("forwarded, not answered", place)
        return
    parts = split_mail(mail.text)
    asked = ""
    for each in mail.answers[:1]:
        found = kept.execute("SELECT text FROM mails WHERE id = ?", (each,)).fetchone()
        if found and found[0]:
            asked = split_mail(found[0]).own
    asked = asked or parts.quoted
    if not asked:
        skips.skip("not an answer, or the answered mail is neither in the mailbox nor quoted", place)
    elif sum(map(str.isalpha, parts.own)) < FEWEST_LETTERS:
        skips.skip("an answer without text of its own", place)
    elif instruction:
        yield ImportedRow(instruction, asked, parts.own, "organic", place)
    else:
        yield ImportedRow(asked, "", parts.own, "organic", place)
