"""Reading tar archives that a stranger made: ustar with long names as GNU and POSIX (pax) write them, nothing more.

tarfile parses pax headers with a pattern that takes hours for a header made for it (CVE-2024-6232), and knows sparse
files and links to places outside. This takes time in proportion to the archive's size. Format: pax(1), tar(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = 512
_LONGEST_NAME = 4096


class Member(NamedTuple):
    """`kind` is tar's type flag: 0 file, 2 symbolic link, 5 folder."""

    kind: bytes
    name: str
    target: str
    content: bytes


def members(data: bytes) -> Iterator[Member]:
    """The archive's members in order; raises ValueError with what is wrong with it."""
    at, more = 0, {}
    while at < len(data):
        head = data[at : at + _BLOCK]
        if len(head) < _BLOCK:
            raise ValueError("the archive is incomplete")
        if not head.strip(b"\0"):
            return
        if _number(head[148:156]) != sum(head[:148]) + 8 * 32 + sum(head[156:]):
            raise ValueError("the archive is damaged")
        kind, size = head[156:157], _number(head[124:136])
        content = data[at + _BLOCK : at + _BLOCK + size]
        if len(content) < size:
            raise ValueError("the archive is incomplete")
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
        if kind in b"xLK" and kind:
            more.update(_long(kind, content))
        elif kind != b"g":
            prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
            name = _text(head[:100])
            yield Member(
                kind,
                more.get("path", f"{prefix}/{name}" if prefix else name),
                more.get("linkpath", _text(head[157:257])),
                content,
            )
            more = {}
    raise ValueError("the archive is incomplete")


def _long(kind: bytes, content: bytes) -> dict[str, str]:
    """What a header says of the member after it: its name and link target, where they are too long for a block."""
    if kind == b"x":
        found = _records(content)
        if "size" in found or any(key.startswith("GNU.sparse") for key in found):
            raise ValueError("it holds a file of more than 8 GiB, or a sparse one")
    else:
        found = {"path" if kind == b"L" else "linkpath": _text(content)}
    if any(len(value) > _LONGEST_NAME for key, value in found.items() if key in ("path", "linkpath")):
        raise ValueError("it holds a name that no system allows")
    return found


def _records(content: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\\\n` one after the other; LENGTH counts the whole record."""
    found, at = {}, 0
    while at < len(content):
        space = content.find(b" ", at, at + 20)
        length = int(content[at:space]) if space > at and content[at:space].isdigit() else 0
        record = content[space + 1 : at + length]
        key, sign, value = record.partition(b"=")
        if not sign or not value.endswith(b"\n") or len(record) != at + length - space - 1:
            raise ValueError("the archive is damaged")
        found[_text(key)] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return found


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        # binary numbers are for sizes from 8 GiB on
        raise ValueError("the archive is damaged")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
