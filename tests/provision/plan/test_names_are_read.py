"""The packages of a plan must be among those that are read: otherwise a finished step would never be done."""

from __future__ import annotations

from checks.catalogue import catalogue
from checks.facts.apt import parse_status
from tests.subjects import for_each

WORDS = {"branch": "595", "flavour": "generic", "kernel": "6.8.0-117-generic", "target": "gfx1100"}


@for_each("key", [rule.key for rule in catalogue().packages if not rule.key.startswith("apt.tools")])
def test_every_package_of_the_catalogue_is_read_from_dpkgs_database(key: str) -> None:
    names = [name for rule in catalogue().packages if rule.key == key for name in rule.fill(**WORDS)]
    for name in (name.partition(":")[0] for name in names if "*" not in name and not name.endswith("-")):
        status = f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"
        packages, _ = parse_status(status.encode())
        assert [package.name for package in packages] == [name]
