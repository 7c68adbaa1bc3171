"""One machine with one of its sources damaged: a file, a folder, a link, a command's output or a library's answer."""

from __future__ import annotations

import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from machine.local import DENIED, FAILED, SMALL_FILE, TIMED_OUT, Outcome, Space, Unreadable
from tests.checks.damage.formats import is_whole, link_is_whole
from tests.checks.faults.overlay import Overlay


class Source(NamedTuple):
    """What a reader asked the machine for. `kind`: file, folder, link, command, answer, space; `key`: path, argv …"""

    kind: str
    key: Any

    @property
    def name(self) -> str:
        """As `is_whole` names it."""
        return self.key[0].rpartition("/")[2] if self.kind == "command" else str(self.key)


class Between(ABC):
    """A machine that stands before another one: every question to a source passes `_ask`."""

    def __init__(self, under: Overlay) -> None:
        self.under, self.name, self.taken_at = under, under.name, under.taken_at

    @abstractmethod
    def _ask(self, kind: str, key: Any, ask: Callable[..., Any], *rest: Any) -> Any: ...

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        return self._ask("file", path, self.under.read, limit)

    def list(self, path: str) -> tuple[str, ...]:
        return self._ask("folder", path, self.under.list)

    def link(self, path: str) -> str:
        return self._ask("link", path, self.under.link)

    def space(self, path: str) -> Space | None:
        return self._ask("space", path, self.under.space)

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        return self._ask("answer", vendor, self.under.binding)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Any = None) -> Outcome:
        return self._ask("command", tuple(argv), self.under.run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


class Watched(Between):
    """A machine that remembers what was read of it, and what the answer was."""

    def __init__(self, under: Overlay) -> None:
        super().__init__(under)
        self.seen: dict[Source, Any] = {}

    def _ask(self, kind: str, key: Any, ask: Callable[..., Any], *rest: Any) -> Any:
        found = ask(key, *rest)
        self.seen.setdefault(Source(kind, key), found)
        return found


class Hurt(Between):
    """A machine on which some sources answer otherwise: `answers` holds for each what to return or to raise."""

    def __init__(self, under: Overlay, answers: dict[Source, Any]) -> None:
        super().__init__(under)
        self.answers = answers
        self.asked: set[Source] = set()

    def _ask(self, kind: str, key: Any, ask: Callable[..., Any], *rest: Any) -> Any:
        source = Source(kind, key)
        self.asked.add(source)
        if source not in self.answers:
            return ask(key, *rest)
        answer = self.answers[source]
        if isinstance(answer, Unreadable):
            raise Unreadable(str(key), answer.reason, answer.detail)
        return answer


class Injury(NamedTuple):
    """How a source was damaged, and whether that can be noticed."""

    source: Source
    how: str
    answer: Any
    noticeable: bool


def injure(rng: random.Random, source: Source, found: Any) -> Injury:
    if source.kind in ("file", "link", "folder") and rng.random() < (0.2 if source.kind == "file" else 0.8):
        reason, detail = rng.choice(
            [
                (DENIED, "Permission denied"),
                (FAILED, "Input/output error"),
                (FAILED, "Too many levels of symbolic links"),
                (FAILED, "Is a directory"),
            ]
        )
        # a link that is a plain file may be somebody's choice, except in sysfs
        # the kernel hides the nodes of cards that a container was not given
        hidden = "/kfd/topology/" in source.key and reason == DENIED
        noticeable = not hidden and (source.kind != "link" or (source.key.startswith("/sys/") and reason != DENIED))
        return Injury(source, f"{reason}: {detail}", Unreadable("", reason, detail), noticeable)
    if source.kind == "folder":
        names = _fewer(rng, found) if rng.random() < 0.5 else (*found, rng.choice(_ODD_NAMES))
        return Injury(source, "other names", tuple(sorted(names)), False)
    if source.kind == "link":
        how, changed = _change(rng, found.encode("utf-8", "surrogateescape"))
        text = changed.decode("utf-8", "replace").replace("\0", "?")
        return Injury(source, f"target {how}", text, not link_is_whole(source.key, text))
    if source.kind == "space":
        odd = rng.choice((-1, 0, 1 << 80))
        field = rng.choice(("free", "total"))
        changed = found._replace(**{field: odd}) if found else None
        return Injury(source, f"{field} {odd}", changed, changed is not None and odd != 0)
    if source.kind == "file":
        how, changed = _change(rng, found)
        return Injury(source, how, changed, is_whole(source.name, found) and not is_whole(source.name, changed))
    return _outcome(rng, source, found)


def _outcome(rng: random.Random, source: Source, found: Outcome) -> Injury:
    kind = rng.random()
    if kind < 0.1:
        changed = found._replace(rc=None, stdout="", stderr="", problem=TIMED_OUT)
        return Injury(source, TIMED_OUT, changed, True)
    if kind < 0.2:
        rc = rng.choice((1, 2, 127, -9, -11))
        return Injury(source, f"exit status {rc}", found._replace(rc=rc), rc < 0 or source.kind == "answer")
    how, changed = _change(rng, found.stdout.encode("utf-8", "surrogateescape"))
    text = changed.decode("utf-8", "replace")
    noticeable = is_whole(source.name, found.stdout.encode()) and not is_whole(source.name, text.encode())
    # a program that failed may print nothing, or an error in words
    in_words = not found.ok and "{" not in text and text.isprintable()
    return Injury(source, how, found._replace(stdout=text), noticeable and not in_words)


_ODD_NAMES = ("\x1b[2J", "..conf", "0000:zz:00.0", "é" * 80, "renderD999999", "cuda-", "vmlinuz-", "\udcff\udcfe")


def _fewer(rng: random.Random, names: tuple[str, ...]) -> tuple[str, ...]:
    gone = rng.randrange(len(names)) if names else 0
    return names[:gone] + names[gone + 1 :]


def _change(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Another content, and how it was made."""
    kind = rng.choice(_CHANGES)
    return kind.__name__.strip("_"), kind(rng, data)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))] if data else data


def _emptied(rng: random.Random, data: bytes) -> bytes:
    return b""


def _garbage(rng: random.Random, data: bytes) -> bytes:
    return rng.randbytes(rng.randint(1, max(2, min(len(data), 4000))))


def _garbage_inside(rng: random.Random, data: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at + rng.randint(0, 16) :]


def _zeros(rng: random.Random, data: bytes) -> bytes:
    """As a disk shows after a power failure: zeros to the end of a block."""
    at = rng.randint(0, len(data))
    return data[:at] + b"\0" * max(1, len(data) - at)


def _latin(rng: random.Random, data: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice((b"\xe9", b"\xff\xfe", b"\xc3")) + data[at:]


def _flipped(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data or b"\n")
    for _ in range(rng.randint(1, 8)):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _line(change: Callable[[bytes, int], list[bytes]]) -> Callable[[random.Random, bytes], bytes]:
    def on_one(rng: random.Random, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True) or [b""]
        at = rng.randrange(len(lines))
        return b"".join((*lines[:at], *change(lines[at], rng.randint(0, len(lines[at]))), *lines[at + 1 :]))

    return on_one


_line_dropped = _line(lambda line, at: [])
_line_doubled = _line(lambda line, at: [line, line])
_line_torn = _line(lambda line, at: [line[:at]])
_line_broken = _line(lambda line, at: [line[:at], b"\n", line[at:]])


def _number(replacement: Callable[[random.Random, bytes], bytes]) -> Callable[[random.Random, bytes], bytes]:
    def on_one(rng: random.Random, data: bytes) -> bytes:
        numbers = list(re.finditer(rb"[0-9]+", data))
        if not numbers:
            return _garbage_inside(rng, data)
        match = rng.choice(numbers)
        return data[: match.start()] + replacement(rng, match[0]) + data[match.end() :]

    return on_one


_number_as_text = _number(lambda rng, old: rng.choice((b"many", b"nan", b"-", b"\xc2\xbd")))
_number_huge = _number(lambda rng, old: b"9" * rng.choice((20, 40, 4400)))
_number_negative = _number(lambda rng, old: b"-" + old)
for _name, _function in list(globals().items()):
    if _name.startswith(("_line_", "_number_")):
        _function.__name__ = _name
_CHANGES = (
    _cut, _cut, _emptied, _garbage, _garbage_inside, _zeros, _latin, _flipped, _flipped,
    _line_dropped, _line_doubled, _line_torn, _line_broken, _number_as_text, _number_huge, _number_negative,
)  # fmt: skip
