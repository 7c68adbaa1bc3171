"""The first program that root runs: install root's copy of the tool, then run the command with it.

Its source is passed to `python3 -I -S -c`, since root has no copy of the tool yet. The copy's bytes come first on
stdin; what follows them is for the command. Standard library only; Python 3.11 or newer.

    bootstrap LIBRARY DIGEST SIZE COMMAND …      creates LIBRARY/DIGEST, owned by root, then executes COMMAND
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile


def receive(size: int) -> bytes:
    """Exactly this many bytes of stdin, unbuffered: the rest is for the command."""
    parts = []
    while size > 0 and (part := os.read(0, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def place(library: str, digest: str, content: bytes) -> str | None:
    """Create LIBRARY/DIGEST from the archive; returns what is wrong, or None."""
    if hashlib.sha256(content).hexdigest() != digest:
        return "the tool's copy was changed during the transfer"
    os.makedirs(library, mode=0o755, exist_ok=True)
    found = os.lstat(library)
    if os.path.islink(library) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        return f"{library} does not belong to root, or others can write to it"
    target = os.path.join(library, digest)
    if os.path.isdir(target):
        return None
    making = f"{target}.{os.getpid()}.partial"
    shutil.rmtree(making, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            if not _plain(member):
                return f"the tool's copy contains the unexpected entry {member.name}"
            path = os.path.join(making, member.name)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if member.issym():
                os.symlink(member.linkname, path)
                continue
            source = archive.extractfile(member)
            if source is None:
                return f"the tool's copy contains the unexpected entry {member.name}"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if member.mode & 0o100 else 0o644)
            with os.fdopen(handle, "wb") as file:
                file.write(source.read())
                file.flush()
                os.fsync(file.fileno())
    os.rename(making, target)
    _launcher(library, target)
    return None


def _plain(member: tarfile.TarInfo) -> bool:
    """A file with a name below the folder; the only link is the interpreter, to a path of the system."""
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts:
        return False
    return member.isfile() or (member.issym() and member.name == "bin/python" and member.linkname.startswith("/"))


def _launcher(library: str, target: str) -> None:
    """LIBRARY/gpu-setup starts the newest copy: for recovery mode, where nothing else may be available."""
    path = os.path.join(library, "gpu-setup")
    beside = f"{path}.{os.getpid()}"
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\nexec {target}/bin/python -I {target}/tool/gpu_setup/__main__.py "$@"\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def main(arguments: list[str]) -> int:
    library, digest, size, *command = arguments
    os.umask(0o022)
    try:
        wrong = place(library, digest, receive(int(size)))
    except OSError as error:
        wrong = f"{error.filename or library}: {error.strerror}"
    if wrong is None:
        os.execv(command[0], command)
    sys.stderr.write(f"gpu-setup: {wrong}\n")
    return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
