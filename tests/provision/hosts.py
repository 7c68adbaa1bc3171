"""Stand-ins for a site: a machine that has nothing, and one that lives in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from machine.local import ABSENT, FileStatus, LocalMachine, Outcome, Unreadable


class Nowhere(LocalMachine):
    """Every file absent, every program not installed."""

    def read(self, path: str, limit: int = 0) -> bytes:
        raise Unreadable(path, ABSENT)

    def list(self, path: str) -> tuple[str, ...]:
        raise Unreadable(path, ABSENT)

    def run(self, argv: object, timeout: float = 5.0, env: object = None) -> Outcome:
        return Outcome((), None, "", "", 0.0, ABSENT)


class Folder(LocalMachine):
    """Reads below a folder as if it were /; programs answer as told, all others are not installed."""

    def __init__(self, top: Path, **answers: str) -> None:
        self._top, self._answers = top, answers

    def _at(self, path: str) -> str:
        return str(self._top / path.lstrip("/"))

    def read(self, path: str, limit: int = 1 << 26) -> bytes:
        return super().read(self._at(path), limit)

    def list(self, path: str) -> tuple[str, ...]:
        return super().list(self._at(path))

    def link(self, path: str) -> str:
        return super().link(self._at(path))

    def stat(self, path: str) -> FileStatus:
        return super().stat(self._at(path))

    def access(self, path: str, wanted: int) -> bool | None:
        return super().access(self._at(path), wanted)

    def run(self, argv: object, timeout: float = 5.0, env: object = None) -> Outcome:
        words = tuple(map(str, argv)) if isinstance(argv, (tuple, list)) else ()
        said = self._answers.get(os.path.basename(words[0]) if words else "")
        return Outcome(words, 0, said, "", 0.0) if said is not None else Outcome(words, None, "", "", 0.0, ABSENT)

    def put(self, path: str, content: str | bytes) -> None:
        place = Path(self._at(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def status(*packages: str) -> str:
    """dpkg's status file: `name version` or `name version half-configured`, `; Depends: …` after it."""
    paragraphs = []
    for package in ("dpkg 1.22", *packages):
        head, _, more = package.partition("; ")
        name, version, *state = head.split()
        fields = [f"Package: {name}", f"Status: install ok {state[0] if state else 'installed'}"]
        fields += ["Architecture: amd64", f"Version: {version}", *([more] if more else [])]
        paragraphs.append("\n".join(fields) + "\n")
    return "\n".join(paragraphs)
