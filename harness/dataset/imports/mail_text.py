"""The text that the writer of a mail wrote: without quotes, signature and advertisement. Line by line."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from importlib import resources
from typing import NamedTuple

from harness.dataset.rules.people import closings
from harness.dataset.rules.phrases import find_phrases, fold_case, phrases

# a longer mail is read up to here
LONGEST_MAIL = 100_000
# a signature below a closing: name, title, phone in a few short lines
SIGNATURE_LINES, SIGNATURE_WIDTH = 8, 60
_QUOTED = re.compile(r"^[ \t]?(?:>[ \t]?)+")
_ONE_LEVEL = re.compile(r"^[ \t]?>[ \t]?")
_SPACES = re.compile(r"[ \t\r\n\u00a0]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_HEADER = re.compile(
    r"^\*?(?:from|to|cc|sent|date|subject|von|an|gesendet|datum|betreff|de|à|envoyé|objet|para|enviado|fecha|asunto|da|a|inviato|data|oggetto|van|aan|verzonden|onderwerp)\s?:\*?\s",
    re.IGNORECASE,
)


class MailParts(NamedTuple):
    """The writer's text, and the quoted text (without one level of >)."""

    own: str
    quoted: str


@cache
def _words() -> dict[str, tuple[str, ...]]:
    import tomllib

    text = (resources.files("harness.dataset.imports") / "mail_text.toml").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in tomllib.loads(text).items()}


def is_forwarded(subject: str) -> bool:
    return subject.strip().casefold().startswith(_words()["forwarded"])


def split_mail(text: str) -> MailParts:
    """The writer's and the quoted text of a plain-text mail."""
    text = text[:LONGEST_MAIL].replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ")
    intro = find_phrases("quoted-mail", fold_case(text), range(len(phrases().by_kind["quoted-mail"])))
    begin, behind = (intro[0][0], text[intro[0][0] :]) if intro else (len(text), "")
    above = text[:begin]
    own = [line for line in above.split("\n") if not _QUOTED.match(line)]
    quoted_above = [_ONE_LEVEL.sub("", line) for line in above.split("\n") if _QUOTED.match(line)]
    marked = [line for line in behind.split("\n") if _QUOTED.match(line)]
    if marked:
        # text between the quoted lines is the writer's own
        own += _between(behind.split("\n"))
        quoted = [_ONE_LEVEL.sub("", line) for line in marked]
    else:
        quoted = _without_headers(behind.split("\n")[1:]) if behind else []
    return MailParts(strip_signature("\n".join(own)), _first_mail("\n".join([*quoted_above, *quoted])))


def _between(lines: list[str]) -> list[str]:
    """Lines without > after the first quoted one."""
    first = next(number for number, line in enumerate(lines) if _QUOTED.match(line))
    return [line for line in lines[first:] if not _QUOTED.match(line)]


def _without_headers(lines: list[str]) -> list[str]:
    """Outlook quotes without marks, below lines From:, Sent:, To: and Subject:."""
    number = 0
    while number < len(lines) and (not lines[number].strip() or _HEADER.match(lines[number])):
        number += 1
    return lines[number:]


def _first_mail(quoted: str) -> str:
    """Of several nested quotes the outermost: the mail that was answered."""
    found = find_phrases("quoted-mail", fold_case(quoted), range(len(phrases().by_kind["quoted-mail"])))
    quoted = quoted[: found[0][0]] if found else quoted
    return strip_signature("\n".join(line for line in quoted.split("\n") if not _QUOTED.match(line)))


def strip_signature(text: str) -> str:
    """The text without signature and advertisement, with at most one blank line in a row."""
    lines = [line.rstrip() for line in text.split("\n")]
    advertisement = _words()["sent_from"]
    for number, line in enumerate(lines):
        low = line.strip().lower()
        # RFC 3676: two hyphens and a space begin the signature
        if line in ("--", "-- ") or re.fullmatch(r"[_-]{5,}", low) or low.lstrip("*_ ").startswith(advertisement):
            lines = lines[:number]
            break
    return _BLANK_LINES.sub("\n\n", "\n".join(_above_signature(lines))).strip()


def _above_signature(lines: list[str]) -> list[str]:
    """The lines up to the closing, if only short lines follow it."""
    for number in range(len(lines) - 1, max(-1, len(lines) - 14), -1):
        words, comma, behind = lines[number].strip().partition(",")
        if words.rstrip("!.").strip().lower() in closings():
            below = [line for line in lines[number + 1 :] if line.strip()]
            if len(below) <= SIGNATURE_LINES and all(len(line) <= SIGNATURE_WIDTH for line in below):
                # "Best, Anna": the name is removed, the closing is part of the style
                return [*lines[:number], words + comma if len(behind) < 40 else lines[number]]
            break
    return lines


class _Text(HTMLParser):
    """HTML as plain text: paragraphs as lines, quotes marked with >, without scripts and styles."""

    _BLOCKS = frozenset(["p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "blockquote", "table", "ul", "ol", "hr"])

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0
        self._quotes = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "head", "title"):
            self._silent += 1
        if tag == "blockquote":
            self._quotes += 1
        if tag in self._BLOCKS:
            self._break()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._BLOCKS:
            self._break()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "head", "title"):
            self._silent = max(0, self._silent - 1)
        if tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        if tag in self._BLOCKS and tag != "br":
            self._break()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(_SPACES.sub(" ", data))

    def _break(self) -> None:
        self.parts.append("\n" + "> " * min(self._quotes, 5))


def text_of_html(source: str) -> str:
    parser = _Text()
    parser.feed(source[: 4 * LONGEST_MAIL])
    parser.close()
    lines = [_SPACES.sub(" ", line) for line in "".join(parser.parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()
