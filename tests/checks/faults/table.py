"""The faults and look-alikes of data/*.toml, typed, and which of them make sense on which machine."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.rules import cards

DATA = Path(__file__).with_name("data")
_OWN_FIELDS = ("of", "source", "date")


class Wording(NamedTuple):
    """One version's way to show the fault: `of` whose, `source` where it was read, `edits` as edits.py reads them."""

    of: str
    source: str
    date: str
    edits: dict[str, Any]

    @property
    def lines(self) -> tuple[str, ...]:
        """What the kernel says."""
        return tuple(self.edits.get("log", ()))


class Fault(NamedTuple):
    """`raises` are checks that must have a finding, as bad as `says` (error, warning, info) or worse.

    `on` are traits that a machine needs. The first wording is the one that the rule's own tests use.
    """

    id: str
    shows: str
    raises: tuple[str, ...]
    says: str
    on: tuple[str, ...]
    wordings: tuple[Wording, ...]


class LookAlike(NamedTuple):
    """Looks like a fault of `like`; no check may fail or warn because of it."""

    id: str
    why: str
    like: tuple[str, ...]
    on: tuple[str, ...]
    wording: Wording


@cache
def faults() -> tuple[Fault, ...]:
    return tuple(
        Fault(
            row["id"],
            row["shows"],
            tuple(row["raises"]),
            row.get("says", "warning"),
            tuple(row["on"]),
            tuple(map(_wording, row["wording"])),
        )
        for row in _rows("fault")
    )


@cache
def look_alikes() -> tuple[LookAlike, ...]:
    return tuple(
        LookAlike(
            row["id"],
            row["why"],
            tuple(row["like"]),
            tuple(row["on"]),
            _wording({key: value for key, value in row.items() if key not in ("id", "why", "like", "on")}),
        )
        for row in _rows("lookalike")
    )


def _rows(kind: str) -> list[dict[str, Any]]:
    return [row for path in sorted(DATA.glob("*.toml")) for row in tomllib.loads(path.read_text("utf-8")).get(kind, ())]


def _wording(row: dict[str, Any]) -> Wording:
    edits = {key: value for key, value in row.items() if key not in _OWN_FIELDS}
    return Wording(row["of"], row["source"], row["date"], edits)


def traits(host: Host, catalogue: Catalogue) -> frozenset[str]:
    """What the tables' `on` may ask for."""
    ours = cards.training(host, catalogue)
    rows = [row for card in ours if (row := cards.row_of(card, catalogue))]
    installed = {package.name for package in host.apt.packages or () if package.state == "installed"}
    origins = {file.origin for file in host.kernel.modules or () if file.kernel == host.kernel.release}
    has = {
        "card": bool(ours),
        "nvidia": any(card.vendor == cards.NVIDIA for card in ours),
        "amd": any(card.vendor == cards.AMD for card in ours),
        "one card": len(ours) == 1,
        "two cards": len(ours) > 1,
        "one kernel": len(host.kernel.installed or ()) == 1,
        "x16": any((card.link and card.link.width) == 16 for card in ours),
        "geforce": any(row.name.startswith("RTX") and "Ada" not in row.name for row in rows),
        "mig": any(row.name.startswith(("A100", "H100")) for row in rows),
        "integrated beside": any(c.vendor == "1002" and c not in ours for c in host.cards or ()),
        "metal": host.os.virtualisation == "none",
        "desktop": host.os.graphical is True,
        "server": host.os.graphical is False,
        "uefi": host.firmware.uefi is True,
        "secure boot": host.firmware.secure_boot is True,
        "docker": host.docker.answers is True,
        "no docker": host.docker.kind is None,
        "toolkit": "nvidia-container-toolkit" in installed,
        "dkms": "dkms" in origins,
        "prebuilt": "prebuilt" in origins,
        "in-tree": not host.amd.module_version,
        "repository": "cuda-keyring" in installed,
        "archive": "cuda-keyring" not in installed,
        "open module": host.nvidia.open_module is True,
        "rocm": bool(host.amd.rocm),
        "legacy rocm": any("repo.radeon.com/rocm" in source.uri for source in host.apt.sources or ()),
        "no rocm": not host.amd.rocm,
        "small memory": (host.resources.memory_total or 0) < 31 * 1024**3,
        **{row.generation: True for row in rows},
    }
    return frozenset(name for name, true in has.items() if true)
