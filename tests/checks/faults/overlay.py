"""A recorded machine with edits on top, in memory: files, links, nodes, names, commands, NVML's answer, environment."""

from __future__ import annotations

import json
import os
import posixpath
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from machine.local import ABSENT, SMALL_FILE, FileStatus, Outcome, Session, Space, Unreadable
from machine.recording import RecordedMachine

JOURNAL = ("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "-q")


class Remembered:
    """A recorded machine that reads each of its files once: hundreds of overlays stand on it."""

    read: Callable[..., bytes]
    list: Callable[..., tuple[str, ...]]
    link: Callable[..., str]
    stat: Callable[..., FileStatus]
    access: Callable[..., bool | None]
    space: Callable[..., Space | None]
    binding: Callable[..., Outcome]

    def __init__(self, under: RecordedMachine) -> None:
        self.name, self.taken_at = under.name, under.taken_at
        self.read = _remember(under.read)
        self.list = _remember(under.list)
        self.link = _remember(under.link)
        self.stat = _remember(under.stat)
        self.access = _remember(under.access)
        self.space = _remember(under.space)
        self.binding = _remember(under.binding)
        self.run = under.run
        self.stream = under.stream
        self.session = under.session


def _remember(read: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[Any, ...], Any] = {}

    def asked(*arguments: Any) -> Any:
        if arguments not in known:
            try:
                known[arguments] = (True, read(*arguments))
            except Unreadable as error:
                known[arguments] = (False, error)
        fine, found = known[arguments]
        if fine:
            return found
        raise Unreadable(found.path, found.reason, found.detail)

    return asked


class Overlay:
    """Reads as `under` does, but for what was put on top; paths are taken as readers spell them, links not followed."""

    def __init__(self, under: Remembered) -> None:
        self.under, self.name, self.taken_at = under, under.name, under.taken_at
        self._files: dict[str, bytes] = {}
        self._links: dict[str, str] = {}
        self._entries: dict[str, FileStatus] = {}
        self._spaces: dict[str, Space] = {}
        self._gone: set[str] = set()
        self._shown: dict[str, set[str]] = {}
        self._outcomes: dict[tuple[str, ...], Outcome] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._environ: dict[str, str] = {}
        self._gids: tuple[int, ...] | None = None

    # --- edits

    def write(self, path: str, content: str) -> None:
        self._put(path)
        self._files[path] = content.encode()

    def text(self, path: str) -> str:
        """The file as it is now, empty when there is none."""
        try:
            return self.read(path).decode()
        except Unreadable:
            return ""

    def put_link(self, path: str, target: str) -> None:
        self._put(path)
        self._links[path] = target

    def put_node(self, path: str, **fields: Any) -> None:
        """`kind`, `mode`, `uid`, `gid`, `size`, `inode`; what is left out stays as it was."""
        old = self.stat(path) if self.access(path, os.F_OK) is not None else FileStatus("file", 0o644, 0, 0, 0)
        self._put(path)
        self._entries[path] = old._replace(**fields)

    def put_space(self, path: str, **fields: Any) -> None:
        old = self.space(path) or Space(1 << 40, 1 << 40, 1 << 26, "ext4", ("rw",))
        self._spaces[path] = old._replace(**fields)

    def remove(self, path: str) -> None:
        self._gone.add(path)
        for known in (self._files, self._links, self._entries):
            known.pop(path, None)

    def show(self, folder: str, *names: str) -> None:
        """Names that the folder lists; the folder is made."""
        for name in names:
            self._put(f"{folder}/{name}")

    def say(
        self, argv: Sequence[str], stdout: str = "", stderr: str = "", rc: int | None = 0, problem: str = ""
    ) -> None:
        self._outcomes[tuple(argv)] = Outcome(tuple(argv), rc, stdout, stderr, 0.02, problem)

    def log(self, lines: Sequence[str]) -> None:
        """Messages at the end of the kernel log; the later lines of one message are indented, as journalctl does."""
        stamp = "[ 5321.118204] " + self.name + " kernel: "
        text = "".join(stamp + line.replace("\n", "\n" + " " * len(stamp)) + "\n" for line in lines)
        self.say(JOURNAL, self.run(JOURNAL).stdout + text)

    def answer(self, vendor: str, **fields: Any) -> None:
        """Change the document that the bindings print."""
        self._answers.setdefault(vendor, json.loads(self.under.binding(vendor).stdout or "{}")).update(fields)

    def environ(self, **variables: str) -> None:
        self._environ.update(variables)

    def groups(self, *gids: int) -> None:
        self._gids = gids

    def _put(self, path: str) -> None:
        self._gone.discard(path)
        while path != "/":
            path, name = posixpath.split(path)
            self._shown.setdefault(path, set()).add(name)

    # --- the machine

    def _hidden(self, path: str) -> bool:
        return any(path == gone or path.startswith(gone + "/") for gone in self._gone) and path not in self._shown

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        if path in self._files:
            return self._files[path]
        if self._hidden(path):
            raise Unreadable(path, ABSENT)
        return self.under.read(path, limit)

    def list(self, path: str) -> tuple[str, ...]:
        if self._hidden(path):
            raise Unreadable(path, ABSENT)
        shown = self._shown.get(path, set())
        try:
            found = set(self.under.list(path))
        except Unreadable:
            if not shown:
                raise
            found = set()
        return tuple(sorted(name for name in found | shown if not self._hidden(f"{path.rstrip('/')}/{name}")))

    def link(self, path: str) -> str:
        if path in self._links:
            return self._links[path]
        if self._hidden(path):
            raise Unreadable(path, ABSENT)
        return self.under.link(path)

    def stat(self, path: str) -> FileStatus:
        if path in self._entries:
            return self._entries[path]
        if path in self._files or path in self._links:
            return FileStatus("file", 0o644, 0, 0, len(self._files.get(path, b"")))
        if self._hidden(path):
            raise Unreadable(path, ABSENT)
        try:
            return self.under.stat(path)
        except Unreadable:
            if path in self._shown:
                return FileStatus("folder", 0o755, 0, 0, 0)
            if posixpath.basename(path) in self._shown.get(posixpath.dirname(path), ()):
                return FileStatus("file", 0o644, 0, 0, 0)
            raise

    def access(self, path: str, wanted: int) -> bool | None:
        if path not in self._entries and path not in self._files and self._gids is None and not self._hidden(path):
            plain = self.under.access(path, wanted)
            if plain is not None:
                return plain
        try:
            entry = self.stat(path)
        except Unreadable as error:
            return None if error.reason == ABSENT else False
        session = self.session()
        if session.uid == 0:
            return True
        shift = 6 if entry.uid == session.uid else 3 if entry.gid in session.gids else 0
        return (entry.mode >> shift & wanted) == wanted

    def space(self, path: str) -> Space | None:
        while path not in self._spaces and path != "/":
            if (own := self.under.space(path)) is not None and own != self.under.space(posixpath.dirname(path)):
                return own
            path = posixpath.dirname(path)
        return self._spaces.get(path) or self.under.space(path)

    def session(self) -> Session:
        under = self.under.session()
        gids = under.gids if self._gids is None else self._gids
        return under._replace(environ={**under.environ, **self._environ}, gids=gids)

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        if vendor not in self._answers:
            return self.under.binding(vendor, timeout)
        return Outcome((vendor,), 0, json.dumps(self._answers[vendor]), "", 0.0)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        return self._outcomes.get(tuple(argv)) or self.under.run(argv, timeout, env)

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        return self.under.stream(argv, on_line)
