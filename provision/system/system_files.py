"""System files, replaced atomically: written to a temporary name, flushed, renamed; with a backup of the old file."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from machine.errors import OutsideFailed, Refused


class FileBefore(NamedTuple):
    """What was at a path. `sha256` None: nothing; otherwise the backup has that name.

    `made`: the topmost folder that will be created for the file; empty when all exist.
    """

    path: str
    sha256: str | None
    mode: int
    uid: int
    gid: int
    made: str = ""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_current(path: str) -> bytes | None:
    """The file's bytes; None when there is none."""
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _os_problem(path, error, "read") from error


def back_up(path: str, backups: Path) -> FileBefore:
    """Copy the file at the path into `backups`, named by its digest, and return its description."""
    content = read_current(path)
    if content is None:
        missing = [str(folder) for folder in Path(path).parents if not folder.exists()]
        return FileBefore(path, None, 0o644, 0, 0, missing[-1] if missing else "")
    found = os.stat(path)
    named = digest(content)
    if not (backups / named).exists():
        backups.mkdir(parents=True, exist_ok=True, mode=0o700)
        write(str(backups / named), content, 0o600)
    return FileBefore(path, named, found.st_mode & 0o7777, found.st_uid, found.st_gid)


def write(path: str, content: bytes, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    """Replace the file atomically; missing folders are created. A link is followed, so it remains a link."""
    real = Path(os.path.realpath(path))
    # one fixed temporary name: after a power cut the next try replaces it, and no program reads it
    beside = real.with_name(f".{real.name}.gpu-setup")
    try:
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fchmod(handle, mode)
            if os.geteuid() == 0:
                os.fchown(handle, uid, gid)
            os.fsync(handle)
        finally:
            os.close(handle)
        beside.rename(real)
        flush_folder(real.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise _os_problem(path, error, "written") from error


def remove(path: str) -> None:
    """Remove the file; nothing happens when there is none."""
    try:
        Path(path).unlink(missing_ok=True)
        flush_folder(Path(path).parent)
    except OSError as error:
        raise _os_problem(path, error, "removed") from error


def remove_empty(folder: str, top: str) -> None:
    """Remove empty folders from `folder` up to `top`, which were created for a removed file."""
    place = Path(folder)
    while top and place.is_relative_to(top):
        try:
            place.rmdir()
        except OSError:
            return
        place = place.parent


def flush_folder(folder: Path) -> None:
    """Flush a rename to the disk: after a power cut there is the old file or the new one."""
    if not folder.is_dir():
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def merge_json(path: str, now: bytes | None, wanted: str) -> bytes:
    """The existing JSON document with the wanted keys set; refuses content that is not a JSON object."""
    document: object = {}
    if now is not None and now.strip():
        try:
            document = msgspec.json.decode(now)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise _invalid_json(path, str(error)) from error
        if not isinstance(document, dict):
            raise _invalid_json(path, "it is not an object")
    whole = _over(document, msgspec.json.decode(wanted))
    return msgspec.json.format(msgspec.json.encode(whole), indent=4) + b"\n"


def contains_json(now: bytes | None, wanted: str) -> bool:
    """Whether every wanted key is in the JSON document with the wanted value."""
    if now is None or not now.strip():
        return False
    try:
        return _within(msgspec.json.decode(now), msgspec.json.decode(wanted))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False


def difference(path: str, before: bytes | None, after: bytes | None) -> str:
    """A unified diff of the two; binary content is named as such."""
    from difflib import unified_diff

    def lines(content: bytes | None) -> list[str]:
        return [] if content is None else content.decode("utf-8").splitlines(keepends=True)

    try:
        old, new = lines(before), lines(after)
    except UnicodeDecodeError:
        return f"{path}: binary content differs\n"
    names = ("/dev/null" if before is None else path, "/dev/null" if after is None else path)
    return "".join(line if line.endswith("\n") else line + "\n" for line in unified_diff(old, new, *names))


def _over(below: object, above: object) -> object:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}
    return above


def _within(document: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(document, dict) and all(
            key in document and _within(document[key], value) for key, value in wanted.items()
        )
    return document == wanted


def _invalid_json(path: str, detail: str) -> Refused:
    return Refused(
        "file.broken",
        f"{path} is not valid JSON ({detail}).",
        "A change would lose its current content, and the program that reads it would not start.",
        f"Repair {path}, then run gpu-setup apply again.",
    )


def _os_problem(path: str, error: OSError, done: str) -> OutsideFailed:
    import errno

    if error.errno == errno.EROFS:
        return OutsideFailed(
            "file.read-only",
            f"{path} cannot be {done}: its file system is mounted read-only.",
            "Linux does this after a disk error, and some systems are built that way.",
            "Find out why (sudo dmesg | grep -i remount), fix it (sudo mount -o remount,rw /), then: gpu-setup apply",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutsideFailed(
            "disk.full",
            f"{path} cannot be {done}: the disk is full.",
            f"The system says: {error.strerror}.",
            "Free some space (sudo apt-get clean; df -h), then: gpu-setup apply",
        )
    return OutsideFailed(
        "file.failed",
        f"{path} cannot be {done}.",
        f"The system says: {error.strerror or error}.",
        "Fix that, then: gpu-setup apply",
    )
