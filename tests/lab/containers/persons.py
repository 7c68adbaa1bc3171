"""Commands of a user without root, although the tests are in a home that this user cannot read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.tool import ROOT

# $1: a folder closed to others (root's home); up to "--": what somebody needs of it, opened for this command alone
_OPENED = r"""
set -eu
closed=$1
shift
kept=$(mktemp -d)
mount --bind "$closed" "$kept"
mount -t tmpfs -o mode=755 opened "$closed"
while [ "$1" != -- ]; do
    mkdir -p "$closed/$1"
    mount --rbind "$kept/$1" "$closed/$1"
    shift
done
shift
umount -l "$kept"
rmdir "$kept"
exec "$@"
"""


def as_person(number: int, argv: Iterable[str], groups: Iterable[int] = ()) -> list[str]:
    """`argv` by the user of this number, without root and without capabilities."""
    groups = ",".join(map(str, groups))
    to_groups = f"--groups={groups}" if groups else "--clear-groups"
    command = ["setpriv", f"--reuid={number}", f"--regid={number}", to_groups, "--", *argv]
    # the environment by both of its names: a link lies beside what it points to
    needed = {Path(sys.prefix).parent, Path(sys.prefix).resolve().parent, Path(sys.base_prefix), ROOT}
    needed |= {link.parent for link in _links(Path(sys.executable))}
    for closed in {found for path in needed if (found := _closed_above(path))}:
        inside = sorted(str(path.relative_to(closed)) for path in needed if path.is_relative_to(closed))
        command = ["unshare", "--mount", "sh", "-c", _OPENED, "opened", str(closed), *inside, "--", *command]
    return command


def _links(path: Path) -> Iterator[Path]:
    """The path, and each one that it leads to: any of them may lie in a closed folder."""
    yield path
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield path


def _closed_above(path: Path) -> Path | None:
    """The outermost folder over `path` that others may not enter."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)
