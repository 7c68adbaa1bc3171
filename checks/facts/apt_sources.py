"""apt's repositories: one-line .list files and deb822 .sources files."""

from __future__ import annotations

import re

from checks.facts.deb822 import paragraphs
from checks.facts.gaps import Gaps, names, text
from checks.facts.host import AptSource
from checks.facts.software import RepositoryOwner
from machine.local import Machine

# the owner of a repository by its address; the first match counts
_OWNERS: tuple[tuple[RepositoryOwner, str], ...] = (
    ("nvidia-toolkit", r"nvidia\.github\.io/(?:libnvidia-container|nvidia-docker|nvidia-container-runtime)"),
    (
        "nvidia",
        r"developer\.download\.nvidia\.(?:com|cn)/compute/(?:cuda|nvidia-driver)|^file:/+var/(?:cuda|nvidia-driver)-",
    ),
    ("amd-toolkit", r"repo\.radeon\.com/amd-container-toolkit"),
    ("amd-graphics", r"repo\.radeon\.com/(?:amdgpu|graphics)/"),
    ("amd-rocm", r"repo\.radeon\.com/rocm|(?:^|\.|//)repo\.amd\.com/rocm"),
    ("docker", r"download\.docker\.com/linux"),
    ("ppa", r"ppa\.launchpad(?:content)?\.net"),
    (
        "ubuntu",
        r"(?:^|[./])(?:archive|security|ports|old-releases)\.ubuntu\.com|esm\.ubuntu\.com|/ubuntu(?:-ports)?/?$",
    ),
)


def owner(uri: str) -> RepositoryOwner:
    return next((name for name, pattern in _OWNERS if re.search(pattern, uri.lower())), "other")


def parse_list(file: str, content: str) -> tuple[AptSource, ...]:
    """One-line style (sources.list(5)): `deb [arch=amd64 signed-by=FILE] URI SUITE COMPONENTS`."""
    found = []
    for line in content.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)(?:\s+([^\s#]+))?", line)
        if match:
            signed = re.search(r"(?:^|\s)signed-by=(\S+)", match[1] or "", re.IGNORECASE)
            found.append(
                AptSource(
                    file=file,
                    uri=match[2],
                    suite=match[3],
                    signed_by=signed[1] if signed else None,
                    owner=owner(match[2]),
                )
            )
    return tuple(found)


def parse_sources(file: str, content: str) -> tuple[AptSource, ...]:
    """deb822 style: one source for each URI and suite of an enabled paragraph with `Types: deb`."""
    found = []
    for fields in paragraphs(content):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed = fields.get("signed-by", "").strip() or None
        if signed and "BEGIN PGP" in signed:
            signed = "embedded"
        for uri in fields.get("uris", "").split():
            # a flat repository may come without a suite
            for suite in fields.get("suites", "").split() or [""]:
                found.append(AptSource(file=file, uri=uri, suite=suite or None, signed_by=signed, owner=owner(uri)))
    return tuple(found)


def read_sources(machine: Machine, gaps: Gaps) -> tuple[AptSource, ...] | None:
    """None when the folder cannot be listed."""
    main = "/etc/apt/sources.list"
    found = list(parse_list(main, text(machine, main, gaps) or ""))
    folder = "/etc/apt/sources.list.d"
    held = names(machine, folder, gaps)
    if held is None:
        return None
    for path in (f"{folder}/{name}" for name in held):
        if path.endswith(".list"):
            found += parse_list(path, text(machine, path, gaps) or "")
        elif path.endswith(".sources"):
            found += parse_sources(path, text(machine, path, gaps) or "")
    return tuple(found)
