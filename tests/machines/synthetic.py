"""A synthetic recording: files, links, listings and commands that a script puts together and writes as one file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine.machine_file_writer import RecordingParts, text


@dataclass
class Recording:
    """One machine. Paths are absolute; `seat`: the person sits at it, with a desktop, not behind SSH.

    `release` is the running kernel's; `log_open`: this session may read the kernel log.
    """

    name: str
    note: str
    release: str = ""
    log_open: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)
    stat: dict[str, dict[str, Any]] = field(default_factory=dict)
    space: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    access: dict[str, dict[str, bool]] = field(default_factory=dict)
    seat: bool = True
    commands: list[dict[str, Any]] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)

    def file(self, path: str, text: str | bytes) -> None:
        self.files[path] = text.encode() if isinstance(text, str) else text

    def link(self, path: str, target: str) -> None:
        self.links[path] = target

    def node(self, path: str, kind: str, mode: int, gid: int = 0, size: int = 0) -> None:
        """A path of which only stat(2) is recorded: a device, a socket, a file whose content does not matter."""
        self.stat[path] = {"kind": kind, "mode": mode, "uid": 0, "gid": gid, "size": size}
        self.listing(str(Path(path).parent), Path(path).name)

    def program(self, path: str, target: str, size: int) -> None:
        """A link to a program beside it; stat(2) follows it, so both paths have the program's."""
        self.link(path, target)
        for each in (path, str(Path(path).with_name(target))):
            self.node(each, "file", 0o755, size=size)

    def listing(self, folder: str, *found: str) -> None:
        """Names that the folder shows beside what is recorded of it; none: an empty folder."""
        self.names.setdefault(folder, set()).update(found)

    def run(self, argv: tuple[str, ...], stdout: str, rc: int = 0, stderr: str = "") -> None:
        self.commands.append(
            {"argv": list(argv), "rc": rc, "stdout": stdout, "stderr": stderr, "seconds": 0.02, "problem": ""}
        )

    def fails(self, argv: tuple[str, ...], *, rc: int | None = None, stderr: str = "", problem: str = "") -> None:
        """A command that fails, or (`problem`) that is absent or does not end."""
        self.commands.append(
            {"argv": list(argv), "rc": rc, "stdout": "", "stderr": stderr, "seconds": 0.02, "problem": problem}
        )

    def package(self, name: str, version: str, status: str = "install ok installed", arch: str = "amd64") -> None:
        """A stanza of dpkg's status file, with the fields that differ between packages."""
        stanza = f"Package: {name}\nStatus: {status}\nArchitecture: {arch}\nVersion: {version}\n"
        self.packages.append(stanza + f"Description: {name}\n")

    def text(self, expected: bytes) -> bytes:
        """The machine file; `expected` is its expect.json."""
        self.file("/var/lib/dpkg/status", "\n".join(sorted(self.packages)))
        self.file("/proc/modules", "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in self.modules))
        if self.log_open:
            lines = (f"[{3 + n * 0.113:12.6f}] {self.name} kernel: {line}\n" for n, line in enumerate(self.log))
            self.run(("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "-q"), "".join(lines))
        paths = {
            "unreadable": self.unreadable,
            "stat": self.stat,
            "space": self.space,
            "names": self.names,
            "access": self.access,
        }
        machine = {
            "name": self.name,
            "taken_at": "2026-11-24T12:00:00Z",
            "tool_version": "0.1.0",
            "note": self.note,
            "synthetic": ["/", "commands", "nvml", "amdsmi", "session"],
        }
        documents = {"machine.json": _json(machine), "session.json": _json(self.session), "expect.json": expected}
        documents |= {f"{name}.json": _json(document) for name, document in self.documents.items()}
        return text(RecordingParts(self.files, self.links, (), documents, paths, self.commands))


def _json(document: object) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
