"""The tool as root runs it: a copy that only root can write, named by its digest.

LIBRARY/DIGEST is a Python environment (pyvenv.cfg, bin/python as a link to the system's Python) with the packages of
the tool that provisioning needs, and their dependencies.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from machine.errors import Refused
from provision.apply_context import LIBRARY

ROOMS = ("gpu_setup", "provision", "checks", "machine")
# what they import; the vendors' bindings only where they are installed
PACKAGES = ("click", "msgspec")
BINDINGS = ("pynvml", "amdsmi")
# the table of PCI ids too; the locks are for the training environment, which root never makes
_KEPT = (".py", ".toml", ".json", ".so", ".typed", ".sh", "devices.txt")
SYSTEM_PYTHON = "/usr/bin/python3"


class ToolCopy(NamedTuple):
    """`content` is the archive that root unpacks; `python` is the interpreter that runs it."""

    digest: str
    content: bytes
    python: str

    @property
    def place(self) -> Path:
        return LIBRARY / self.digest

    def command(self, *arguments: str) -> tuple[str, ...]:
        """argv of the copy, as root starts it."""
        return (str(self.place / "bin/python"), "-I", str(self.place / "tool/gpu_setup/__main__.py"), *arguments)


def here() -> Path:
    """The folder with this tool's packages."""
    return Path(__file__).resolve().parents[2]


def is_copy() -> bool:
    """Whether this process already runs from root's copy."""
    return here().is_relative_to(LIBRARY)


def make_copy(version: str) -> ToolCopy:
    """Pack the running tool: the same tool gives the same bytes and digest. Refused without a Python owned by root."""
    python = interpreter()
    numbers = f"{sys.version_info.major}.{sys.version_info.minor}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        link = tarfile.TarInfo("bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, python
        archive.addfile(link)
        home = os.path.dirname(python)
        _add(archive, "pyvenv.cfg", f"home = {home}\ninclude-system-site-packages = false\n".encode())
        _add(archive, "tool/pyproject.toml", f'[project]\nversion = "{version}"\n'.encode())
        for room in ROOMS:
            _tree(archive, here() / room, f"tool/{room}")
        for name in (*PACKAGES, *BINDINGS):
            _package(archive, name, f"lib/python{numbers}/site-packages")
    content = buffer.getvalue()
    return ToolCopy(hashlib.sha256(content).hexdigest(), content, python)


def interpreter() -> str:
    """A Python of the same version that only root can write, with its library; refuses if there is none."""
    own = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    library = os.path.realpath(os.__file__)
    if is_owned_by_root(own) and is_owned_by_root(library):
        return own
    system = os.path.realpath(SYSTEM_PYTHON)
    if system.endswith(f"python{sys.version_info.major}.{sys.version_info.minor}") and is_owned_by_root(system):
        return system
    raise Refused(
        "apply.python",
        f"Root does not run {own}: users other than root can change it or its library.",
        f"A program that a user can change would give that user root access. {SYSTEM_PYTHON} is safe, but it is "
        f"{os.path.basename(system)}, and the tool runs on {sys.version_info.major}.{sys.version_info.minor}.",
        f"Start the tool with the system's Python once: GPU_SETUP_PYTHON={SYSTEM_PYTHON} ./gpu-setup apply",
    )


def is_owned_by_root(path: str) -> bool:
    """Whether the file and every folder above it belong to root and nobody else can write them."""
    for place in (path, *(str(parent) for parent in Path(path).parents)):
        try:
            found = os.lstat(place)
        except OSError:
            return False
        if found.st_uid != 0 or (found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)):
            return False
    return True


def bootstrap_source() -> str:
    return Path(__file__).with_name("bootstrap.py").read_text(encoding="utf-8")


def _package(archive: tarfile.TarFile, name: str, under: str) -> None:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        if name in PACKAGES:
            raise ModuleNotFoundError(name, name=name)
        return
    origin = Path(spec.origin)
    if origin.name == "__init__.py":
        _tree(archive, origin.parent, f"{under}/{name}")
    else:
        _add(archive, f"{under}/{origin.name}", origin.read_bytes())


def _tree(archive: tarfile.TarFile, folder: Path, under: str) -> None:
    for place in sorted(folder.rglob("*")):
        relative = place.relative_to(folder)
        if "__pycache__" in relative.parts or not place.name.endswith(_KEPT) or not place.is_file():
            continue
        if relative.parts[0] in ("schemas", "locks", "recipes") or relative.parts[:2] == ("data", "locks"):
            continue
        _add(archive, f"{under}/{relative.as_posix()}", place.read_bytes())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Owner, time and mode are fixed, so that the archive's digest is the tool's."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o644, 0
    archive.addfile(member, io.BytesIO(content))
