"""Which tests of ./test's second start share a process; groups run beside each other, the longest begin first.

What is made once for guests (a base system, repositories) and for engines (an image) is made by one process. So is what
the tests of one file read. Whoever is free takes the next group.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

FOLDERS = {"tests/lab/provision/": "guests", "tests/lab/containers/": "engines"}
# minutes each (python -m tests.times); the others follow by their number of tests
LONGEST = (
    *("guests", "engines"),
    *(f"tests/lab/harness/test_{name}.py" for name in ("training", "recipes", "train", "failures", "bad_input", "up")),
)


def group(nodeid: str) -> str:
    """What runs in one process, one after the other."""
    file, _, _ = nodeid.partition("::")
    return next((name for folder, name in FOLDERS.items() if file.startswith(folder)), file)


class Groups(LoadScopeScheduling):
    """xdist's grouping, by these in the place of module or class."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        first = next((name for name in LONGEST if name in self.workqueue), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
