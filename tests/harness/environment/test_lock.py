"""Locks: which packages at which versions, and the part of the text that pip gets for a repair."""

from __future__ import annotations

import re

import pytest

from checks.catalogue import catalogue
from harness.environment.lock_file import load_lock, lock_entries, normalised, parse_lock

TEXT = """\
# made by uv
addict==2.4.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
Async_Timeout==5.0.1 ; python_full_version < '3.12' \\
    --hash=sha256:cc
ruamel.yaml==0.18.6 ; python_version >= "3.12" \\
    --hash=sha256:dd
axolotl==0.19.0
"""


def test_names_as_packages_compare_them() -> None:
    assert {normalised(name) for name in ("Foo.Bar", "foo_bar", "FOO--bar")} == {"foo-bar"}


@pytest.mark.parametrize(
    ("python", "packages"),
    [
        ("3.11", {"addict": "2.4.0", "async-timeout": "5.0.1", "axolotl": "0.19.0"}),
        ("3.12", {"addict": "2.4.0", "ruamel-yaml": "0.18.6", "axolotl": "0.19.0"}),
    ],
)
def test_markers_choose_by_the_python_version(python: str, packages: dict[str, str]) -> None:
    lock = parse_lock("x.txt", TEXT, {"python_version": python, "python_full_version": f"{python}.0"})
    assert lock.packages == packages


def test_the_digest_is_the_texts() -> None:
    same, other = parse_lock("x", TEXT, {}), parse_lock("x", TEXT + "\n", {})
    assert len(same.digest) == 64
    assert same.digest != other.digest


def test_entries_carry_their_hashes_and_nothing_else() -> None:
    lock = parse_lock("x.txt", TEXT, {"python_version": "3.11", "python_full_version": "3.11.0"})
    assert lock_entries(lock, {"addict", "axolotl"}) == (
        "addict==2.4.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\naxolotl==0.19.0\n"
    )
    assert lock_entries(lock, set()) == ""


@pytest.mark.parametrize("stack", [stack.name for stack in catalogue().stacks if stack.lock])
def test_each_shipped_lock_has_what_its_stack_says(stack: str) -> None:
    chosen = catalogue().stack(stack)
    assert chosen.lock
    for python in chosen.pythons:
        lock = load_lock(chosen.lock, python)
        assert lock.packages["axolotl"] == chosen.axolotl
        assert lock.packages["bitsandbytes"] == chosen.bitsandbytes
        assert "torch" not in lock.packages, "torch is installed by a call of its own"
        found = re.findall(r"(?m)^[A-Za-z0-9].*(?:\n[ #].*)*", lock_entries(lock, set(lock.packages)))
        assert {normalised(re.split("[=<> @;[]", entry)[0]) for entry in found} == set(lock.packages)
        assert [entry for entry in found if "--hash=sha256:" not in entry] == []
