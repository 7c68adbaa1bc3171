"""Builds Debian packages with a given name, version, dependencies and the few files that matter."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

MAINTAINER = "Lab <lab@example.invalid>"
# dpkg asks for a time; a fixed one makes the same package the same bytes
TIME = 1_760_000_000


class File(NamedTuple):
    """`link`: a symbolic link to this instead of content."""

    content: bytes = b""
    mode: int = 0o644
    link: str = ""


class Package(NamedTuple):
    """One package. Relations in dpkg's own words; `scripts`: postinst, prerm … as shell; `size` in KiB of ballast."""

    name: str
    version: str
    depends: str = ""
    provides: str = ""
    conflicts: str = ""
    replaces: str = ""
    arch: str = "amd64"
    section: str = "main"
    files: Mapping[str, File] = {}
    scripts: Mapping[str, str] = {}
    size: int = 4

    @property
    def archive(self) -> str:
        """Its name in an archive, where the epoch is left out."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.arch}.deb"


def script(text: str) -> File:
    return File(text.encode(), 0o755)


def text(content: str) -> File:
    return File(content.encode())


def control(package: Package) -> str:
    """The paragraph of dpkg's control file."""
    fields = {
        "Package": package.name,
        "Version": package.version,
        "Architecture": package.arch,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(package.size),
        "Depends": package.depends,
        "Provides": package.provides,
        "Conflicts": package.conflicts,
        "Replaces": package.replaces,
        "Section": "misc",
        "Priority": "optional",
        "Description": f"stand-in for {package.name}",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def build(package: Package) -> bytes:
    """The .deb (deb(5)): an ar archive of its version, its control files and its files."""
    # the same bytes for the same name, and none that compression would take away
    ballast = random.Random(package.name).randbytes(package.size << 10)
    files = {f"usr/share/doc/{package.name}/ballast": File(ballast), **package.files}
    meta = {"control": File(control(package).encode())}
    settings = [f"/{path}\n" for path, file in files.items() if path.startswith("etc/") and not file.link]
    if settings:
        meta["conffiles"] = File("".join(settings).encode())
    meta |= {name: script(f"#!/bin/sh\nset -e\n{body}\n") for name, body in package.scripts.items()}
    parts = (("debian-binary", b"2.0\n"), ("control.tar.gz", _tar(meta)), ("data.tar.gz", _tar(files)))
    return b"!<arch>\n" + b"".join(_member(name, content) for name, content in parts)


def entry(package: Package, content: bytes, path: str) -> str:
    """The paragraph of an archive's Packages file."""
    digest = hashlib.sha256(content).hexdigest()
    return f"{control(package)}Filename: {path}\nSize: {len(content)}\nSHA256: {digest}\n"


def _member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return head + content + (b"\n" if len(content) % 2 else b"")


def _tar(files: Mapping[str, File]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        made: set[str] = set()
        for path, file in files.items():
            for folder in _folders(path):
                if folder not in made:
                    made.add(folder)
                    archive.addfile(_info(f"./{folder}/" if folder else "./", tarfile.DIRTYPE, 0o755))
            if file.link:
                info = _info(f"./{path}", tarfile.SYMTYPE, 0o777)
                info.linkname = file.link
                archive.addfile(info)
                continue
            info = _info(f"./{path}", tarfile.REGTYPE, file.mode)
            info.size = len(file.content)
            archive.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def _folders(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["", *("/".join(parts[: n + 1]) for n in range(len(parts)))]


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.uname, info.gname = kind, mode, TIME, "root", "root"
    return info
