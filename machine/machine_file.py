r"""A recorded machine as one text file, to be read, compared line by line and changed by hand.

The first line is MAGIC, the last `=== end`; between them are sections, each with a header that begins with `=== `:

=== document NAME                      a document of the recording as it is: machine.json, session.json, nvml.json …
=== command exit N, S s $ ARGV         a command's exit status, seconds and words; below it its stdout
=== command problem WORD, S s $ ARGV   one that could not run: absent, timed-out …
=== stderr                             stderr of the command above it, left out when that is empty
=== stat                               rows PATH KIND MODE UID:GID SIZE [inode N], the mode in octal
=== space                              rows PATH free N total N inodes N|unknown type FSTYPE options OPTION…
=== access                             rows PATH +r -w …, where an access list decides otherwise than the mode
=== unreadable                         rows PATH REASON DETAIL
=== names FOLDER                       names in a folder whose content was not recorded, one a line
=== file PATH                          a file's content as it is
=== link PATH -> TARGET                a symbolic link
=== folder PATH                        a folder in which nothing was recorded

Contents are UTF-8 text whose last line is complete. For every other content the header begins with `=== escaped `:
there `\xNN` is a byte, `\\` a backslash, and a line that ends with `\` has no line end. Words with spaces or odd
characters are quoted as in JSON. A file may come from a stranger: the rules for paths, links and size are a bundle's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from machine.errors import BadUsage
from machine.recording_files import MemoryTree, TwoKinds
from machine.untrusted_json import LARGEST, bad, decode_json, is_name, is_plain_path
from machine.words import word, words

MAGIC = b"gpu-setup recorded machine, format 1"
HEADER = b"=== "
RIGHTS = ("r", "w", "x")
# documents that are decoded with the recording; what a vendor's library said stays the text that bindings.py printed
DECODED = ("machine.json", "session.json")
_MOST_PATHS = 20_000
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_ESCAPES = re.compile(rb"(?:[^\\]|\\(?:x[0-9a-f]{2}|\\|\n))*+")
_COMMAND = re.compile(r'(?:exit (-?[0-9]+), )?(?:problem ("(?:[^"\\]|\\.)*+"|[^\s"]+), )?([0-9.e+-]+) s \$(?: (.*))?')


class MachineFile(MemoryTree):
    """The recording that a machine file holds; a document's errors name the line where the document begins."""

    def __init__(self, place: str, sections: _Sections) -> None:
        super().__init__(place, sections.files, sections.links, ("sysroot", *sections.folders), sections.decoded)
        self._lines = {name: sections.line(number) for name, number in sections.documents.items()}

    def label(self, name: str) -> str:
        return f"{self.place}, line {self._lines[name]} ({name})" if name in self._lines else super().label(name)


def load(file: str) -> MachineFile:
    """The recording in the file; raises BadUsage."""
    try:
        with open(file, "rb") as found:  # noqa: PTH123
            data = found.read(LARGEST + 1)
    except OSError as error:
        raise bad(file, f"it cannot be read: {error.strerror or error}") from error
    if len(data) > LARGEST:
        raise bad(file, f"it is larger than {LARGEST >> 20} MiB, which no recording is")
    return read(file, data)


def read(file: str, data: bytes) -> MachineFile:
    """The recording in the file's bytes; raises BadUsage that names the line for everything that is damaged."""
    sections = _Sections(data)
    try:
        sections.read()
        return MachineFile(file, sections)
    except TwoKinds as error:
        line, why = sections.line(sections.placed[error.path]), str(error)
    except ValueError as error:
        line, why = sections.line(), str(error)
    raise BadUsage(
        "recording.broken",
        f"{file} cannot be used: line {line} is damaged.",
        f"{why[0].upper()}{why[1:]}.",
        "Repair this line, or record the machine again with: gpu-setup facts record --one-file FILE.",
    )


class _Sections:
    """What a machine file holds, gathered section by section; errors are ValueErrors, `line` says where."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sections = data.split(b"\n" + HEADER)
        self._number = self._row = 0
        self._left = _MOST_PATHS
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.folders: set[str] = set()
        # section numbers of documents by name, and of files, links and folders by path below the recording
        self.documents: dict[str, int] = {}
        self.placed: dict[str, int] = {}
        self._tables: dict[str, dict[str, Any]] = {name: {} for name in (*_ROWS, "names")}
        self._commands: dict[tuple[str, ...], dict[str, Any]] = {}
        self.decoded: dict[str, Any] = {"paths.json": self._tables}
        self._kinds: dict[str, Callable[[str, bytes], None]] = {
            "document": self._document, "command": self._command, "stderr": self._stderr, "names": self._names,
            "file": self._file, "link": self._link, "folder": self._folder,
        }  # fmt: skip

    def line(self, number: int | None = None) -> int:
        """The line where a section begins; without a number, the line that was read last."""
        before = self._sections[: self._number if number is None else number]
        return 1 + sum(section.count(b"\n") + 1 for section in before) + (self._row if number is None else 0)

    def read(self) -> None:
        self._check_text()
        if self._sections[0] != MAGIC:
            raise ValueError(f"the first line must be `{MAGIC.decode()}`, and the second a header")
        self._count(len(self._sections))
        for number, section in enumerate(self._sections[1:-1], 1):
            self._number, self._row = number, 0
            self._section(section)
        self._number, self._row = len(self._sections) - 1, 0
        if self._sections[-1] not in (b"end\n", b"end"):
            raise ValueError("the file is incomplete: its last line must be `=== end`")
        self.decoded["commands.json"] = list(self._commands.values())

    def _count(self, paths: int) -> None:
        self._left -= paths
        if self._left < 0:
            raise ValueError(f"the file has more than {_MOST_PATHS} sections and rows of tables")

    def _check_text(self) -> None:
        """Refuse what an editor or a mail program may have put in, or what steers a terminal."""
        odd = _CONTROL.search(self._data)
        if odd is not None:
            self._row = self._data.count(b"\n", 0, odd.start())
            what = "Windows line ends" if odd[0] == b"\r" else f"the control character {odd[0]!r}"
            raise ValueError(f"it has {what}; save the file with plain line ends, and write such content as `escaped`")
        try:
            self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            self._row = self._data.count(b"\n", 0, error.start)
            raise ValueError("it is not UTF-8; write such content as `escaped`") from error

    def _section(self, section: bytes) -> None:
        header, line_end, rest = section.partition(b"\n")
        content = rest + line_end
        kind, _, subject = header.decode().partition(" ")
        if kind == "escaped":
            kind, _, subject = subject.partition(" ")
            content = self._unescape(content)
        if kind in _ROWS and not subject:
            self._table(kind, content)
        elif kind in self._kinds:
            self._kinds[kind](subject, content)
        else:
            raise ValueError(f"{header.decode()[:80]!r} is not the header of a section")

    def _unescape(self, content: bytes) -> bytes:
        end = _ESCAPES.match(content).end()  # type: ignore[union-attr]
        if end < len(content):
            self._row = 1 + content.count(b"\n", 0, end)
            raise ValueError(r"a backslash in an escaped section is written `\\`, a byte `\xNN`")
        # only escapes that Python knows too are left; its codec takes all other bytes as Latin-1
        return content.decode("unicode_escape").encode("latin-1")

    def _rows(self, content: bytes) -> Iterator[str]:
        for row, line in enumerate(content.decode().split("\n")[:-1], 1):
            self._row = row
            yield line

    def _table(self, name: str, content: bytes) -> None:
        self._count(content.count(b"\n"))
        for line in self._rows(content):
            path, *rest = words(line) or [""]
            self._add(name, _plain(path), _ROWS[name](rest))

    def _names(self, subject: str, content: bytes) -> None:
        folder = _plain(word(subject))
        names = []
        for line in self._rows(content):
            names.append(word(line))
            if not is_name(names[-1]):
                raise ValueError(f"{names[-1][:80]!r} is not a file's name")
        self._row = 0
        self._add("names", folder, names)

    def _add(self, table: str, path: str, row: object) -> None:
        if path in self._tables[table]:
            raise ValueError(f"{path[:80]!r} is listed twice under {table}")
        self._tables[table][path] = row

    def _document(self, subject: str, content: bytes) -> None:
        name = word(subject)
        if not is_name(name) or name == "sysroot" or name in ("paths.json", "commands.json"):
            raise ValueError(f"no document may be called {name[:80]!r}")
        if name in self.documents:
            raise ValueError(f"the document {name[:80]!r} is listed twice")
        self.documents[name] = self._number
        self.files[name] = content
        if name in DECODED:
            try:
                self.decoded[name] = decode_json(content.decode("utf-8"))
            except ValueError as error:
                self._row = error.lineno if isinstance(error, json.JSONDecodeError) else 0
                raise ValueError(f"{name} is not JSON: {getattr(error, 'msg', error)}") from error

    def _command(self, subject: str, content: bytes) -> None:
        match = _COMMAND.fullmatch(subject)
        if match is None:
            raise ValueError("`command exit N, S s $ ARGV` is expected (instead of exit: `problem WORD`)")
        argv = words(match[4] or "")
        if tuple(argv) in self._commands:
            raise ValueError(f"the command {' '.join(argv)[:80]!r} is listed twice")
        self._commands[tuple(argv)] = {
            "argv": argv,
            "rc": _number(match[1]) if match[1] else None,
            "problem": word(match[2]) if match[2] else "",
            "seconds": float(match[3]),
            "stdout": content.decode("utf-8", "replace"),
            "stderr": "",
        }

    def _stderr(self, subject: str, content: bytes) -> None:
        before = self._sections[self._number - 1].removeprefix(b"escaped ")
        if subject or not before.startswith(b"command "):
            raise ValueError("`=== stderr` must follow the command that it belongs to")
        next(reversed(self._commands.values()))["stderr"] = content.decode("utf-8", "replace")

    def _file(self, subject: str, content: bytes) -> None:
        self.files[self._place(word(subject))] = content

    def _link(self, subject: str, content: bytes) -> None:
        found = words(subject)
        if len(found) != 3 or found[1] != "->" or content:
            raise ValueError("`link PATH -> TARGET` is expected, and no content")
        self.links[self._place(found[0])] = found[2]

    def _folder(self, subject: str, content: bytes) -> None:
        if content:
            raise ValueError("a folder has no content")
        self.folders.add(self._place(word(subject)))

    def _place(self, path: str) -> str:
        """Where a path's content is in the recording; each path has one."""
        place = f"sysroot{_plain(path)}"
        if path == "/":
            raise ValueError("`/` is a folder and always recorded")
        if place in self.placed:
            raise ValueError(f"{path[:80]!r} is recorded twice")
        self.placed[place] = self._number
        return place


def _plain(path: str) -> str:
    if not is_plain_path(path):
        raise ValueError(f"{path[:80]!r} is not a plain absolute path")
    return path


def _stat(rest: list[str]) -> dict[str, Any]:
    if len(rest) not in (4, 6) or rest[4:5] not in ([], ["inode"]):
        raise ValueError("PATH KIND MODE UID:GID SIZE [inode N] is expected")
    kind, mode, owner, size = rest[:4]
    uid, _, gid = owner.partition(":")
    inode = {"inode": _number(rest[5])} if len(rest) == 6 else {}
    row = {"mode": _number(mode, 8), "uid": _number(uid), "gid": _number(gid), "size": _number(size)}
    return {"kind": kind, **row, **inode}


def _space(rest: list[str]) -> dict[str, Any]:
    if len(rest) < 9 or rest[:9:2] != ["free", "total", "inodes", "type", "options"]:
        raise ValueError("PATH free N total N inodes N|unknown type FSTYPE options OPTION… is expected")
    _, free, _, total, _, inodes, _, fstype, _, *options = rest
    left = None if inodes == "unknown" else _number(inodes)
    return {"free": _number(free), "total": _number(total), "inodes_free": left, "fstype": fstype, "options": options}


def _access(rest: list[str]) -> dict[str, Any]:
    if not all(len(right) == 2 and right[0] in "+-" and right[1] in RIGHTS for right in rest):
        raise ValueError("PATH +r -w +x is expected, + for allowed and - for not")
    return {right[1]: right[0] == "+" for right in rest}


def _unreadable(rest: list[str]) -> dict[str, Any]:
    if len(rest) != 2:
        raise ValueError("PATH REASON DETAIL is expected, a detail with spaces in quotes")
    return {"reason": rest[0], "detail": rest[1]}


_ROWS = {"stat": _stat, "space": _space, "access": _access, "unreadable": _unreadable}


def _number(text: str, base: int = 10) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise ValueError(f"a number is expected instead of {text[:80]!r}") from error
