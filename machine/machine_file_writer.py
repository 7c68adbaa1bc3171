"""Writing a machine file (format: machine_file.py)."""

from __future__ import annotations

import stat as stat_bits
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from machine.errors import BadUsage
from machine.machine_file import DECODED, HEADER, MAGIC, RIGHTS
from machine.recording import DOCUMENTS, RecordedMachine
from machine.recording_files import RecordingTree
from machine.untrusted_json import LARGEST, contents, value_of
from machine.words import quote

# what a recording has beside paths.json and commands.json; tests keep there what they expect of the machine
KEPT = (*DECODED, "expect.json", *DOCUMENTS.values())


class RecordingParts(NamedTuple):
    """A recording: `files` and `links` by absolute path, `folders` that may be empty, `documents` as text by name.

    `paths` and `commands` are what paths.json and commands.json hold (recording.py).
    """

    files: Mapping[str, bytes]
    links: Mapping[str, str]
    folders: Iterable[str]
    documents: Mapping[str, bytes]
    paths: Mapping[str, Any]
    commands: Iterable[Mapping[str, Any]]


def text(parts: RecordingParts) -> bytes:
    """The machine file."""
    found = [MAGIC + b"\n"]
    found += [_section(f"document {quote(name)}", data) for name, data in parts.documents.items()]
    for row in {tuple(row["argv"]): row for row in parts.commands}.values():
        found.append(_section(_command(row), _encode(row.get("stdout", ""))))
        if row.get("stderr"):
            found.append(_section("stderr", _encode(row["stderr"])))
    tables = {"stat": _stat, "space": _space, "access": _access, "unreadable": _unreadable}
    for name, line in tables.items():
        rows = sorted(parts.paths.get(name, {}).items())
        if rows:
            found.append(_section(name, "".join(f"{quote(path)} {line(row)}\n" for path, row in rows).encode()))
    return b"".join([*found, *(section for _, section in sorted(_sections_by_path(parts))), HEADER + b"end\n"])


def parts_of(tree: RecordingTree) -> RecordingParts:
    """The parts of a recording in a folder, a bundle or a machine file; raises BadUsage for what it may not hold."""
    # refuses documents that no reader understands
    RecordedMachine(tree)
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    folders = []
    left = ["sysroot"]
    while left:
        path = left.pop()
        mode, absolute = tree.mode(path), path.removeprefix("sysroot")
        if stat_bits.S_ISLNK(mode):
            links[absolute] = tree.target(path)
        elif stat_bits.S_ISDIR(mode):
            found = tree.names(path)
            left += [f"{path}/{name}" for name in found]
            folders += [absolute] if absolute and not found else []
        else:
            files[absolute] = _content(tree, path)
    documents = {name: data.encode() for name in KEPT if (data := contents(tree, name)) is not None}
    paths, commands = value_of(tree, "paths.json", {}), value_of(tree, "commands.json", [])
    return RecordingParts(files, links, folders, documents, paths, commands)


def _content(tree: RecordingTree, path: str) -> bytes:
    try:
        data = tree.data(path, LARGEST)
    except OSError as error:
        data, why = None, error.strerror or str(error)
    else:
        why = f"it is larger than {LARGEST >> 20} MiB"
    if data is None or len(data) > LARGEST:
        raise BadUsage(
            "recording.broken",
            f"{tree.label(path)} cannot be part of a machine file.",
            f"The reason: {why}.",
            "Remove it from the recording.",
        )
    return data


def _sections_by_path(parts: RecordingParts) -> Iterator[tuple[tuple[str, str], bytes]]:
    for path, names in parts.paths.get("names", {}).items():
        lines = "".join(f"{quote(name)}\n" for name in sorted(names))
        yield (path, "names"), _section(f"names {quote(path)}", lines.encode())
    for path, data in parts.files.items():
        yield (path, "file"), _section(f"file {quote(path)}", data)
    for path, target in parts.links.items():
        yield (path, "link"), _section(f"link {quote(path)} -> {quote(target)}", b"")
    for path in parts.folders:
        yield (path, "folder"), _section(f"folder {quote(path)}", b"")


def _section(header: str, content: bytes) -> bytes:
    if _is_clean(content):
        return HEADER + header.encode() + b"\n" + content
    return HEADER + b"escaped " + header.encode() + b"\n" + _escape_content(content)


def _is_clean(content: bytes) -> bool:
    try:
        plain = content.decode("utf-8").replace("\n", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        return False
    return plain and content[-1:] in (b"", b"\n") and b"\n" + HEADER not in b"\n" + content


def _escape_content(content: bytes) -> bytes:
    text = "".join(map(_escape_character, content.decode("utf-8", "surrogateescape")))
    marked = f"\n{text}".replace("\n=== ", "\n\\x3d== ")[1:]
    return (marked if marked.endswith("\n") else f"{marked}\\\n").encode()


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character in "\n\t" or character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _encode(said: str) -> bytes:
    return said.encode("utf-8", "surrogateescape")


def _command(row: Mapping[str, Any]) -> str:
    rc, problem, seconds = row.get("rc"), row.get("problem", ""), float(row.get("seconds", 0.0))
    how = [f"exit {rc}, "] * (rc is not None) + [f"problem {quote(problem)}, "] * bool(problem)
    return " ".join((f"command {''.join(how)}{seconds} s $", *map(quote, row["argv"])))


def _stat(row: Mapping[str, Any]) -> str:
    inode = f" inode {row['inode']}" if row.get("inode") else ""
    owner = f"{row.get('uid', 0)}:{row.get('gid', 0)}"
    return f"{quote(row['kind'])} {row.get('mode', 0):o} {owner} {row.get('size', 0)}{inode}"


def _space(row: Mapping[str, Any]) -> str:
    inodes = "unknown" if row.get("inodes_free") is None else row["inodes_free"]
    options = " ".join(["options", *map(quote, row.get("options", ()))])
    return f"free {row['free']} total {row['total']} inodes {inodes} type {quote(row.get('fstype', ''))} {options}"


def _access(row: Mapping[str, Any]) -> str:
    return " ".join(f"{'+' if allowed else '-'}{letter}" for letter, allowed in sorted(row.items()) if letter in RIGHTS)


def _unreadable(row: Mapping[str, Any]) -> str:
    return f"{quote(row['reason'])} {quote(row.get('detail', ''))}"
