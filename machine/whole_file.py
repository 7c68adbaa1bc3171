"""Files and folders that are written whole or not at all, and never over something else unless that is allowed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from machine.errors import BadUsage, OutsideFailed, reason

_NUMBERS = count()
_PART = ".part"


class FileKind(NamedTuple):
    """What a file is called in errors: their codes begin with `noun`; `example` is a name for such a file."""

    noun: str
    example: str


BUNDLE = FileKind("bundle", "gpu.tar.gz")
RECORDING = FileKind("recording", "my-pc.machine")


def check_place(file: str, force: bool, kind: FileKind) -> None:
    """Raises BadUsage where `save` would not write: asked before the long work."""
    if os.path.isdir(file):
        raise BadUsage(
            f"{kind.noun}.folder",
            f"{file} is a folder.",
            f"A {kind.noun} is one file.",
            f"Name a file: {file}/{kind.example}",
        )
    if os.path.lexists(file) and not force:
        raise BadUsage(
            f"{kind.noun}.exists",
            f"{file} exists already.",
            f"A {kind.noun} is not written over something else.",
            "Name another file, or allow it with --force.",
        )


def save(file: str, data: bytes, force: bool, kind: FileKind) -> None:
    """Write the file whole or not at all, readable for its owner only. Raises BadUsage, or OutsideFailed."""
    check_place(file, force, kind)
    try:
        with new_file(file, 0o600, replace=force) as out:
            out.write(data)
    except FileExistsError:
        check_place(file, False, kind)
        raise
    except OSError as error:
        raise OutsideFailed(
            f"{kind.noun}.unwritable",
            f"The {kind.noun} could not be written to {file}.",
            f"The system says: {reason(error)}.",
            "Name a file in a folder with room that you can write to.",
        ) from error


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a document where a person wants it, whole or not at all, in place of what was there. Raises OSError.

    A link stays, and what it points to is replaced; a device or pipe is written to.
    """
    data = content.encode() if isinstance(content, str) else content
    if os.path.exists(path) and not os.path.isfile(path):
        # without O_NONBLOCK a pipe that nobody reads would be waited for
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        return
    with new_file(os.path.realpath(path)) as out:
        out.write(data)


@contextmanager
def new_file(
    path: str | Path, mode: int | None = None, owner: tuple[int, int] | None = None, *, replace: bool = True
) -> Iterator[BinaryIO]:
    """A file to write that is at `path` once the block has ended; an error in it leaves what was there before.

    `mode`: its permissions; else those of the file that it replaces, or the umask's. `owner`: user and group of a file
    that replaces none. A link is not followed. Raises OSError; FileExistsError without `replace`.
    """
    beside = str(_part(Path(path).parent))
    handle, has_name = _create(beside, 0o666 if mode is None else mode)
    try:
        with os.fdopen(handle, "wb") as out:
            before = _plain_file(path)
            if before is not None:
                # root, too, gives no file of a person to itself
                owner = (before.st_uid, before.st_gid)
            # only root may give a file away, and FAT knows neither owners nor permissions
            with suppress(OSError):
                if owner is not None:
                    os.fchown(handle, *owner)
            with suppress(OSError):
                if before is not None and mode is None:
                    os.fchmod(handle, stat.S_IMODE(before.st_mode))
            yield out
            out.flush()
            os.fsync(handle)
            if not has_name:
                # only linkat(2) follows the link, and Python calls it only where a folder is given, which is not used
                os.link(f"/proc/self/fd/{handle}", beside, src_dir_fd=handle, follow_symlinks=True)
        _into_place(beside, str(path), replace)
    finally:
        Path(beside).unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that is at `path`, absent or empty before, once the block has ended; an error leaves nothing.

    Raises OSError.
    """
    place = Path(os.path.realpath(path))
    existed = place.is_dir()
    missing = [folder for folder in place.parents if not folder.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    # an existing folder keeps its owner and permissions, and may be a mount point or somebody's working directory
    stage = _part(place if existed else place.parent)
    try:
        stage.mkdir()
        yield stage
        if existed:
            for name in sorted(os.listdir(stage)):
                (stage / name).rename(place / name)
            stage.rmdir()
        else:
            stage.rename(place)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def is_empty(folder: Path) -> bool:
    """Whether it holds nothing but what a killed process has left of `new_folder`."""
    return all(name.startswith(".gpu-setup.") and name.endswith(_PART) for name in os.listdir(folder))


def _part(folder: Path) -> Path:
    return folder / f".gpu-setup.{os.getpid()}.{next(_NUMBERS)}{_PART}"


def _create(beside: str, mode: int) -> tuple[int, bool]:
    """A new file in that folder, and whether it has that name already: a process that is killed leaves none without."""
    if os.path.isdir("/proc/self/fd"):
        # some file systems (NFS, older overlays) know no files without a name
        with suppress(OSError):
            return os.open(os.path.dirname(beside) or ".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, mode), False
    return os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode), True


def _plain_file(path: str | Path) -> os.stat_result | None:
    """The status of the file at this place; None where there is none, or something else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _into_place(beside: str, file: str, replace: bool) -> None:
    if not replace:
        try:
            # unlike a rename, a link never replaces a file that somebody wrote in the same moment
            os.link(beside, file)
            return
        except PermissionError:
            # FAT and some network drives know no links
            pass
        except OSError as error:
            if isinstance(error, FileExistsError):
                raise
    os.replace(beside, file)
