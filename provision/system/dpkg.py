"""dpkg's database: every package, which were installed as a dependency, which are on hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from checks.facts.apt import STATUS, STATUS_LIMIT
from checks.facts.deb822 import paragraphs
from machine.local import Machine, Unreadable

EXTENDED = "/var/lib/apt/extended_states"
UPDATES = "/var/lib/dpkg/updates"
# dpkg(1): states in which the package's files are installed
THERE = ("installed", "triggers-pending", "triggers-awaited", "half-configured", "unpacked")
UNFINISHED = ("half-installed", "half-configured", "unpacked", "triggers-awaited", "triggers-pending")


class PackageRecord(NamedTuple):
    """One package: `want` is install, hold, deinstall …; `state` installed, half-configured, config-files …"""

    version: str
    want: str
    state: str
    flag: str
    depends: str
    provides: str = ""

    @property
    def is_present(self) -> bool:
        return self.state in THERE

    @property
    def is_working(self) -> bool:
        return self.state in ("installed", "triggers-pending", "triggers-awaited") and self.flag == "ok"


class DpkgDatabase(NamedTuple):
    """`records` by name, foreign architectures as `name:arch`; `auto`: installed as a dependency (apt's marks)."""

    records: Mapping[str, PackageRecord]
    auto: frozenset[str]
    interrupted: bool

    def version(self, name: str) -> str | None:
        """The version, if the package is installed and configured; None otherwise."""
        found = self.records.get(name)
        return found.version if found is not None and found.is_working else None

    def installed_versions(self) -> dict[str, str]:
        return {name: record.version for name, record in self.records.items() if record.is_present}

    def held_packages(self) -> frozenset[str]:
        return frozenset(name for name, record in self.records.items() if record.want == "hold")

    def broken_packages(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                name
                for name, record in self.records.items()
                if record.state in UNFINISHED or (record.flag != "ok" and record.state != "not-installed")
            )
        )


_FIELD = re.compile(rb"^(Package|Status|Version|Architecture|Pre-Depends|Depends|Provides): (.*)$", re.MULTILINE)


def parse_status(content: bytes) -> dict[str, PackageRecord]:
    """The whole of /var/lib/dpkg/status. Packages of another architecture than dpkg's are called `name:arch`."""
    found: dict[str, PackageRecord] = {}
    own = b""
    rows = []
    for paragraph in content.split(b"\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        words = fields.get(b"Status", b"").split()
        if b"Package" not in fields or len(words) != 3:
            continue
        if fields[b"Package"] == b"dpkg":
            own = fields.get(b"Architecture", b"")
        rows.append((fields, words))
    for fields, (want, flag, state) in rows:
        name = _text(fields[b"Package"].strip())
        arch = fields.get(b"Architecture", b"").strip()
        if own and arch not in (own.strip(), b"all", b""):
            name += ":" + _text(arch)
        depends = b", ".join(fields[key] for key in (b"Pre-Depends", b"Depends") if key in fields)
        found[name] = PackageRecord(
            _text(fields.get(b"Version", b"").strip()),
            _text(want),
            _text(state),
            _text(flag),
            _text(depends),
            _text(fields.get(b"Provides", b"")),
        )
    return found


def parse_auto(content: str, native: str = "") -> frozenset[str]:
    """Names that apt's extended_states marks Auto-Installed: 1; foreign ones as `name:arch`."""
    names = set()
    for fields in paragraphs(content):
        if fields.get("auto-installed", "").strip() == "1" and fields.get("package"):
            arch = fields.get("architecture", "").strip()
            names.add(fields["package"].strip() + (f":{arch}" if native and arch not in (native, "all", "") else ""))
    return frozenset(names)


_SETTINGS = re.compile(rb"^Conffiles:\n((?: .*\n?)+)", re.MULTILINE)


def conffiles(machine: Machine) -> dict[str, dict[str, str]]:
    """Package → its settings' paths, each with the MD5 (hex) that dpkg keeps of the package's version.

    Includes packages that are removed and not purged; excludes files that are obsolete or not installed yet.
    """
    try:
        content = machine.read(STATUS, STATUS_LIMIT)
    except Unreadable:
        return {}
    found = {}
    for paragraph in content.split(b"\n\n"):
        listed = _SETTINGS.search(paragraph + b"\n")
        name = re.search(rb"^Package: (\S+)$", paragraph, re.MULTILINE)
        if listed is None or name is None:
            continue
        rows = (line.split() for line in listed[1].splitlines())
        found[_text(name[1])] = {_text(row[0]): _text(row[1]) for row in rows if len(row) == 2 and len(row[1]) == 32}
    return found


_NAME = re.compile(r"\s*([a-z0-9][a-z0-9.+-]*)")


def clauses(record: PackageRecord) -> tuple[tuple[str, ...], ...]:
    """The package's Depends and Pre-Depends: one tuple of alternatives for each clause, versions left out."""
    parts = (part.split("|") for part in record.depends.split(","))
    found = (tuple(match[1] for each in part if (match := _NAME.match(each))) for part in parts)
    return tuple(clause for clause in found if clause)


def needs(record: PackageRecord) -> frozenset[str]:
    """Names in the package's Depends and Pre-Depends, alternatives included."""
    return frozenset(name for clause in clauses(record) for name in clause)


def removable(candidates: frozenset[str], database: DpkgDatabase) -> frozenset[str]:
    """Those of `going` that no remaining package needs, by their name or by what they provide."""
    remaining = {name for name, record in database.records.items() if record.is_present} - candidates
    candidates = candidates & {name for name, record in database.records.items() if record.is_present}
    while True:
        offered = {_bare(name) for name in remaining} | {
            virtual for name in remaining for virtual in _provided(database.records[name])
        }
        wanted: set[str] = set()
        for name in remaining:
            for clause in clauses(database.records[name]):
                if not offered & set(clause):
                    wanted |= set(clause)
        kept = {name for name in candidates if _bare(name) in wanted or wanted & set(_provided(database.records[name]))}
        if not kept:
            return candidates
        candidates, remaining = candidates - kept, remaining | kept


def _provided(record: PackageRecord) -> tuple[str, ...]:
    return tuple(match[1] for part in record.provides.split(",") if (match := _NAME.match(part)))


def _bare(name: str) -> str:
    return name.partition(":")[0]


def read(machine: Machine) -> DpkgDatabase:
    """The database as it is now; empty on a machine without dpkg."""
    try:
        content = machine.read(STATUS, STATUS_LIMIT)
    except Unreadable:
        content = b""
    try:
        extended = machine.read(EXTENDED, STATUS_LIMIT).decode("utf-8", "replace")
    except Unreadable:
        extended = ""
    try:
        waiting = any(name.isdecimal() for name in machine.list(UPDATES))
    except Unreadable:
        waiting = False
    native = re.search(rb"^Package: dpkg\n(?:.+\n)*?Architecture: (\S+)", content, re.MULTILINE)
    return DpkgDatabase(parse_status(content), parse_auto(extended, _text(native[1]) if native else ""), waiting)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
