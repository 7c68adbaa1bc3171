"""A stack's lock file: which packages, at which versions, and the file's digest."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import msgspec

_LINE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


class Lock(msgspec.Struct, frozen=True):
    """`packages` maps the normalised name to its version; `digest` is the sha256 of the text, hex."""

    name: str
    text: str
    packages: dict[str, str]
    digest: str


def normalised(name: str) -> str:
    """The package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(name: str, text: str, environment: dict[str, str]) -> Lock:
    """Read a hashed requirements file; a package whose marker is false in `environment` is skipped."""
    from packaging.markers import Marker

    packages = {
        normalised(package): version
        for package, version, marker in _LINE.findall(text)
        if not marker or Marker(marker).evaluate(dict(environment))
    }
    return Lock(name, text, packages, hashlib.sha256(text.encode()).hexdigest())


def load_lock(name: str, python: str) -> Lock:
    """The lock `checks/data/locks/NAME` (or a file by its absolute path) for Python `python`, such as "3.12"."""
    text = (resources.files("checks") / "data" / "locks" / name).read_text(encoding="utf-8")
    return parse_lock(name, text, {"python_version": python, "python_full_version": f"{python}.0"})


def requirement_versions(text: str, package: str) -> tuple[str, ...]:
    """The versions that the text of a lock pins `package` to, by == or ===."""
    return tuple(re.findall(rf"(?m)^{re.escape(package)}={{2,3}}([^\s;\\=]+)", text))


def lock_entries(lock: Lock, wanted: set[str]) -> str:
    """The part of the lock's text for the packages `wanted` (normalised names), hashes included."""
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.text)
    return "".join(
        block for block in blocks if (found := _LINE.match(block.split("\n", 1)[0])) and normalised(found[1]) in wanted
    )
