"""Which lab tests share a process; the groups run beside each other, and whoever is free takes the next one.

What is made once for guests (a base system, repositories) and for engines (an image) is made by one process, and a file
of trainings keeps the runs that several of its tests read. All others go wherever there is time.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

FOLDERS = {"tests/lab/provision/": "guests", "tests/lab/containers/": "engines"}


def group(nodeid: str) -> str:
    """What runs in one process, one after the other."""
    file, _, _ = nodeid.partition("::")
    named = (name for folder, name in FOLDERS.items() if file.startswith(folder))
    return next(named, file if file.startswith("tests/lab/harness/") else nodeid)


class Groups(LoadScopeScheduling):
    """xdist's grouping, by these in the place of module or class; the largest group begins first."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
