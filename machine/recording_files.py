"""The files of a recording: in a folder, or (of a bundle or a machine file) in memory only."""

from __future__ import annotations

import os
import stat as stat_bits
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

FOLDER = stat_bits.S_IFDIR | 0o755
FILE = stat_bits.S_IFREG | 0o644
LINK = stat_bits.S_IFLNK | 0o777


class RecordingTree(Protocol):
    """Paths are relative (`sysroot/etc/fstab`) and no part but the last may be a link; the last is never followed."""

    place: str
    # values of JSON files that came as something else than JSON
    decoded: Mapping[str, Any]

    def label(self, path: str) -> str:
        """How an error names the file."""
        ...

    def mode(self, path: str) -> int:
        """The mode of lstat(2), 0 for what is missing."""
        ...

    def size(self, path: str) -> int: ...

    def target(self, path: str) -> str:
        """Where a link points; raises OSError for everything else."""
        ...

    def names(self, path: str) -> list[str]:
        """What a folder holds; raises OSError for everything else."""
        ...

    def data(self, path: str, limit: int) -> bytes:
        """At most `limit` + 1 bytes of a plain file; raises OSError for everything else."""
        ...


class FolderTree:
    """Files below a folder that a stranger may have made: pipes and devices are never opened, huge files not read."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder)
        self.decoded: Mapping[str, Any] = {}

    def label(self, path: str) -> str:
        return self._at(path)

    def _at(self, path: str) -> str:
        return f"{self.place}/{path}"

    def mode(self, path: str) -> int:
        try:
            return os.lstat(self._at(path)).st_mode
        except (OSError, ValueError):
            return 0

    def size(self, path: str) -> int:
        return os.lstat(self._at(path)).st_size

    def target(self, path: str) -> str:
        return os.readlink(self._at(path))

    def names(self, path: str) -> list[str]:
        return os.listdir(self._at(path))

    def data(self, path: str, limit: int) -> bytes:
        handle = os.open(self._at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if not stat_bits.S_ISREG(os.fstat(handle).st_mode):
                raise OSError("not a plain file")
            parts, size = [], 0
            while size <= limit and (part := os.read(handle, limit + 1 - size)):
                parts.append(part)
                size += len(part)
        finally:
            os.close(handle)
        return b"".join(parts)


class TwoKinds(ValueError):
    """A path that is a folder and also a file or a link."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path[:80]!r} is a folder and also a file")
        self.path = path


class MemoryTree:
    """Files and links by relative path; their parents are folders. Raises TwoKinds if one is both."""

    def __init__(
        self,
        place: str,
        files: Mapping[str, bytes],
        links: Mapping[str, str] | None = None,
        folders: Iterable[str] = (),
        decoded: Mapping[str, Any] | None = None,
    ) -> None:
        self.decoded: Mapping[str, Any] = decoded or {}
        self.place, self.files, self.links = place, dict(files), dict(links or {})
        self._folders: dict[str, set[str]] = {"": set(), **{path: set() for path in folders}}
        for path in (*self.files, *self.links, *tuple(self._folders)):
            while path:
                above, _, name = path.rpartition("/")
                self._folders.setdefault(above, set()).add(name)
                path = above
        for path in self._folders:
            if path in self.files or path in self.links:
                raise TwoKinds(path)

    def label(self, path: str) -> str:
        return f"{self.place}/{path}"

    def mode(self, path: str) -> int:
        kinds = ((self.links, LINK), (self.files, FILE), (self._folders, FOLDER))
        return next((mode for held, mode in kinds if path in held), 0)

    def size(self, path: str) -> int:
        return len(self.files.get(path, b""))

    def target(self, path: str) -> str:
        if path not in self.links:
            raise OSError("not a link")
        return self.links[path]

    def names(self, path: str) -> list[str]:
        if path not in self._folders:
            raise OSError("not a folder")
        return sorted(self._folders[path])

    def data(self, path: str, limit: int) -> bytes:
        if path not in self.files:
            raise OSError("not a plain file")
        return self.files[path][: limit + 1]
