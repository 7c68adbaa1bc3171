"""A machine that was recorded: replayed from a folder.

DIR/sysroot/        files at their absolute paths, bytes as read; symbolic links as on the machine, resolved inside
DIR/paths.json      "unreadable" {PATH: {reason, detail}}, "stat" {PATH: {kind, mode, uid, gid, size, inode}},
                    "space" {PATH: {free, total, inodes_free, fstype, options}}, "names" {PATH: [names in that folder
                    whose content was not recorded]}, "access" {PATH: {"r" | "w" | "x": bool}} where an access list
                    decides otherwise than the mode does (udev's uaccess)
DIR/commands.json   [{argv, rc, stdout, stderr, seconds, problem}]
DIR/nvml.json, DIR/amdsmi.json   what bindings.py printed; no file: no library
DIR/session.json    {uid, user, gids, environ}
DIR/machine.json    {name, taken_at, tool_version, note, synthetic}

A recording may come from a stranger: links that lead outside, pipes and devices, huge or broken files are refused.
A path that is only in paths.json exists, but has no content. Only DIR/sysroot is required.
"""

from __future__ import annotations

import os
import posixpath
import stat as stat_bits
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from machine.errors import BadUsage, Refused
from machine.local import ABSENT, DENIED, FAILED, SMALL_FILE, TOO_LARGE, FileStatus, Outcome, Session, Space, Unreadable
from machine.recording_files import FolderTree, RecordingTree
from machine.untrusted_json import JsonObject, contents, rows

NOT_RECORDED = "not-recorded"
DOCUMENTS = {"nvidia": "nvml.json", "amd": "amdsmi.json"}
_MOST_LINKS = 40


class RecordedMachine:
    """Replays the recording in a folder or tree; with `strict` a command that was not recorded is an AssertionError.

    Raises BadUsage for a place that holds no recording or a document that cannot be understood.
    """

    def __init__(self, place: str | Path | RecordingTree, strict: bool = False) -> None:
        self.tree: RecordingTree = FolderTree(Path(place)) if isinstance(place, (str, Path)) else place
        self.strict = strict
        if not stat_bits.S_ISDIR(self.tree.mode("sysroot")):
            raise BadUsage(
                "recording.none",
                f"{self.tree.place} is not a recording of a machine.",
                "It has no folder `sysroot`.",
                "Record one on the machine in question: gpu-setup facts record --one-file FILE.",
            )
        paths = JsonObject.read(self.tree, "paths.json")
        self._unreadable = paths.by_path("unreadable", lambda row: (row.text("reason"), row.text("detail", "")))
        self._stat = paths.by_path("stat", _entry)
        self._space = paths.by_path("space", _space)
        self._access = paths.by_path("access", lambda row: {key: row.flag(key) for key in row.value})
        self._names = _known_names(paths.names("names"), self._stat, self._unreadable)
        self._outcomes = {row.argv: row for row in map(_outcome, rows(self.tree, "commands.json"))}
        self._documents = {vendor: contents(self.tree, name) for vendor, name in DOCUMENTS.items()}
        self._session = _session(JsonObject.read(self.tree, "session.json"))
        about = JsonObject.read(self.tree, "machine.json")
        self.name = about.text("name", "") or os.path.basename(os.path.abspath(self.tree.place))
        self.taken_at = about.text("taken_at", "")

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        real = self._find(path)
        try:
            data = self.tree.data(real, limit)
        except OSError as error:
            raise Unreadable(path, FAILED, error.strerror or str(error)) from error
        if len(data) > limit:
            raise Unreadable(path, TOO_LARGE, f"more than {limit} bytes")
        return data

    def list(self, path: str) -> tuple[str, ...]:
        self._refuse_unreadable(path)
        known = self._names.get(_plain(path), frozenset())
        try:
            found = self.tree.names(self._find(path))
        except (Unreadable, OSError) as error:
            if not known and _plain(path) not in self._names:
                raise error if isinstance(error, Unreadable) else Unreadable(path, FAILED, str(error)) from error
            found = []
        return tuple(sorted({*found, *known}))

    def link(self, path: str) -> str:
        # where a link points is known even where what it points to could not be read
        real = self._find(path, follow=False)
        try:
            return self.tree.target(real)
        except OSError as error:
            self._refuse_unreadable(path)
            raise Unreadable(path, FAILED, "not a symbolic link") from error

    def stat(self, path: str) -> FileStatus:
        plain = _plain(path)
        if plain in self._stat:
            return self._stat[plain]
        try:
            real = self._find(path)
        except Unreadable as error:
            if error.reason == ABSENT or not self._exists(plain):
                raise
            # it is in paths.json only: what holds names is a folder, the rest counts as a plain file
            return FileStatus("folder", 0o755, 0, 0, 0) if plain in self._names else FileStatus("file", 0o644, 0, 0, 0)
        mode = self.tree.mode(real)
        kind = "folder" if stat_bits.S_ISDIR(mode) else "file"
        return FileStatus(kind, stat_bits.S_IMODE(mode), 0, 0, self.tree.size(real))

    def access(self, path: str, wanted: int) -> bool | None:
        plain = _plain(path)
        try:
            entry = self.stat(path)
        except Unreadable as error:
            return None if error.reason == ABSENT else False
        given = self._access.get(plain, {})
        allowed = _allowed(entry, self._session)
        for bit, letter in ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x")):
            if wanted & bit and not given.get(letter, bool(allowed & bit)):
                return False
        return not (wanted & os.R_OK and self._unreadable.get(plain, ("", ""))[0] == DENIED)

    def space(self, path: str) -> Space | None:
        path = _plain(path)
        while path not in self._space and path != "/":
            path = posixpath.dirname(path)
        return self._space.get(path)

    def session(self) -> Session:
        return self._session

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        name, text = DOCUMENTS[vendor], self._documents[vendor]
        if text is None:
            return Outcome((name,), None, "", "", 0.0, ABSENT)
        return Outcome((name,), 0, text, "", 0.0)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        asked = tuple(argv)
        if asked not in self._outcomes:
            if self.strict:
                raise AssertionError(f"{self.name}: not recorded: {' '.join(asked)!r}")
            return Outcome(asked, None, "", "", 0.0, NOT_RECORDED)
        return self._outcomes[asked]

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        raise Refused(
            "recording.read-only",
            f"`{' '.join(argv)}` cannot run on a recording.",
            f"{self.name} is a recording in {self.tree.place}: it can be read, not changed.",
            "Omit --machine to work on this machine.",
        )

    def _refuse_unreadable(self, path: str) -> None:
        if (plain := _plain(path)) in self._unreadable:
            raise Unreadable(path, *self._unreadable[plain])

    def _exists(self, plain: str) -> bool:
        if plain in self._stat or plain in self._names or plain in self._unreadable:
            return True
        return posixpath.basename(plain) in self._names.get(posixpath.dirname(plain), frozenset())

    def _find(self, path: str, follow: bool = True) -> str:
        """The real path of the recorded file; links are followed inside sysroot only. Raises Unreadable."""
        if follow:
            self._refuse_unreadable(path)
        plain = _plain(path)
        rest, done, links = [part for part in plain.split("/") if part][::-1], "", 0
        while rest:
            part = rest.pop()
            if part == "..":
                if not done:
                    raise Unreadable(path, FAILED, "a link leads out of the recording")
                done = done.rpartition("/")[0]
                continue
            mode = self.tree.mode(f"sysroot{done}/{part}")
            if mode == 0:
                self._refuse_unreadable(path)
                if self._exists(plain) or self._exists(f"{done}/{part}{'/' if rest else ''}{'/'.join(rest[::-1])}"):
                    raise Unreadable(path, FAILED, "not recorded")
                raise Unreadable(path, ABSENT)
            if stat_bits.S_ISLNK(mode) and (rest or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise Unreadable(path, FAILED, "too many links")
                target = self.tree.target(f"sysroot{done}/{part}")
                rest += [step for step in target.split("/") if step not in ("", ".")][::-1]
                done = "" if target.startswith("/") else done
            else:
                done = f"{done}/{part}"
        if follow and done != plain:
            self._refuse_unreadable(done or "/")
        return "sysroot" + done


def _plain(path: str) -> str:
    """The path without empty and dot steps; `..` is taken off as text, above the root it ends at the root."""
    if "\0" in path or not path.startswith("/"):
        raise Unreadable(path, FAILED, "not an absolute path")
    return "/" + posixpath.normpath(path).lstrip("/")


def _allowed(entry: FileStatus, session: Session) -> int:
    """What the mode bits allow this session, as access(2) bits."""
    if session.uid == 0:
        return os.R_OK | os.W_OK | (os.X_OK if entry.mode & 0o111 or entry.kind == "folder" else 0)
    shift = 6 if entry.uid == session.uid else 3 if entry.gid in session.gids else 0
    return entry.mode >> shift & 0o7


def _entry(row: JsonObject) -> FileStatus:
    sizes = [row.number(key, 0) for key in ("mode", "uid", "gid", "size", "inode")]
    return FileStatus(row.text("kind"), *sizes)


def _space(row: JsonObject) -> Space:
    inodes = None if row.value.get("inodes_free") is None else row.number("inodes_free")
    return Space(row.number("free"), row.number("total"), inodes, row.text("fstype", ""), row.texts("options"))


def _outcome(row: JsonObject) -> Outcome:
    rc = None if row.value.get("rc") is None else row.number("rc")
    said = (row.text("stdout", ""), row.text("stderr", ""))
    return Outcome(row.texts("argv"), rc, *said, row.amount("seconds", 0.0), row.text("problem", ""))


def _session(row: JsonObject) -> Session:
    environ = JsonObject(row.path, row.value.get("environ", {}))
    gids = tuple(JsonObject(row.path, {"gids": gid}).number("gids") for gid in row.list("gids"))
    variables = {name: environ.text(name) for name in environ.value}
    return Session(row.number("uid", 1000), row.text("user", "user"), gids, variables)


def _known_names(
    names: Mapping[str, Sequence[str]], stat: Mapping[str, FileStatus], unreadable: Mapping[str, object]
) -> dict[str, frozenset[str]]:
    """Folder → names that it holds although sysroot may not; what has a stat or a reason exists in its folder too."""
    found: dict[str, set[str]] = {folder: set(held) for folder, held in names.items()}
    for path in (*stat, *unreadable, *names):
        while path != "/":
            path, _, name = path.rpartition("/")
            path = path or "/"
            held = found.setdefault(path, set())
            if name in held:
                break
            held.add(name)
    return {folder: frozenset(held) for folder, held in found.items()}
