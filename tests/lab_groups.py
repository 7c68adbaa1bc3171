"""Two kinds of lab tests run side by side: those of guests and engines, and the trainings.

Two trainings at once would only wait for each other's threads; and what is made once for guests and engines (a base
system, an image) is made by one process.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

MACHINES = ("tests/lab/provision/", "tests/lab/containers/")


def side(nodeid: str) -> str:
    """What runs in one process, one after the other; a test outside of the lab may run anywhere."""
    if nodeid.startswith(MACHINES):
        return "machines"
    return "trainings" if nodeid.startswith("tests/lab/") else nodeid


class Sides(LoadScopeScheduling):
    """xdist's grouping, by side in the place of module or class."""

    def _split_scope(self, nodeid: str) -> str:
        return side(nodeid)
