"""A recording as a bundle: a gzipped tar archive, read without touching the disk.

Whoever sends a bundle may be a stranger: names that lead out, links as folders, devices, files that are given twice,
archives that unfold to more than LARGEST bytes are refused. Links inside are kept and resolved by RecordedMachine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from machine.errors import BadUsage
from machine.recording_files import MemoryTree
from machine.safe_tar import members

TOP = "gpu-setup-bundle"
# what a mail or an issue takes without asking
MOST = 1_000_000
LARGEST_FILE = 16 << 20
LARGEST = 64 << 20
_MOST_MEMBERS = 20_000


def pack(tree: MemoryTree, more: Mapping[str, bytes]) -> bytes:
    """The tree, and `more` files beside it, as the bytes of a .tar.gz that holds neither owners nor times."""
    import gzip
    import io
    import tarfile

    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in sorted({**tree.files, **more}.items()):
            member = tarfile.TarInfo(f"{TOP}/{path}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for path, target in sorted(tree.links.items()):
            member = tarfile.TarInfo(f"{TOP}/{path}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return gzip.compress(unpacked.getvalue(), mtime=0)


def unpack(file: str) -> MemoryTree:
    """The bundle's files, in memory; raises BadUsage for everything that is not plainly a bundle."""
    import zlib

    try:
        return _tree(file, _decompress(file))
    except (zlib.error, EOFError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _broken(file, f"It is no complete .tar.gz archive: {' '.join(why.split())[:200]}.") from error


def _decompress(file: str) -> bytes:
    """The archive without its compression, never more than LARGEST + 1 bytes in memory."""
    import gzip

    with open(file, "rb") as packed:  # noqa: PTH123
        size = os.fstat(packed.fileno()).st_size
        if size > LARGEST_FILE:
            raise _broken(file, f"It has {size} bytes; a bundle has less than {MOST}.")
        if packed.peek(4)[:2] == b"PK":
            raise _broken(file, "It is a ZIP archive.", "Unpack it and name the folder that it holds.")
        with gzip.GzipFile(fileobj=packed) as plain:
            data = plain.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise _broken(file, f"It unfolds to more than {LARGEST >> 20} MiB, which no recording does.")
    return data


def _tree(file: str, data: bytes) -> MemoryTree:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    folders = set()
    for number, (kind, name, target, content) in enumerate(members(data)):
        if number >= _MOST_MEMBERS:
            raise _broken(file, f"It holds more than {_MOST_MEMBERS} files.")
        path = _plain(file, name)
        if path in files or path in links:
            raise _broken(file, f"It holds {path[:80]!r} twice.")
        if kind == b"5":
            folders.add(path)
        elif kind == b"2":
            links[path] = target
        elif kind in (b"0", b"\0"):
            files[path] = content
        else:
            raise _broken(file, f"{path[:80]!r} in it is neither a file, a folder nor a symbolic link.")
    return _under_one_folder(file, files, links, folders)


def _plain(file: str, name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _broken(file, f"{name[:80]!r} in it is a path outside the bundle.")
    return "/".join(parts)


def _under_one_folder(file: str, files: dict[str, bytes], links: dict[str, str], folders: set[str]) -> MemoryTree:
    """The tree of what is in the archive itself, or in the one folder that it holds."""
    tops = {path.partition("/")[0] for path in (*files, *links, *folders) if path}
    if "sysroot" not in tops and len(tops) == 1:
        files = {path.partition("/")[2]: data for path, data in files.items()}
        links = {path.partition("/")[2]: target for path, target in links.items()}
        folders = {path.partition("/")[2] for path in folders}
    if "" in files or "" in links:
        raise _broken(file, "It holds one file and no recording.")
    return MemoryTree(file, files, links, folders)


def _broken(
    file: str, why: str, next: str = "Ask for a new one, made with: gpu-setup doctor --bundle FILE."
) -> BadUsage:
    return BadUsage("bundle.broken", f"{file} is no bundle that can be read.", why, next)
