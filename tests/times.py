"""Where the tests' time goes, as two tables: `./test --junitxml=/tmp/times.xml; python -m tests.times /tmp/times.xml`.

./test starts pytest twice, and the second start (lab and long) is what the file then holds. What is made once for many
tests (an environment, an image, a run) counts for the test that came first.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from tests.lab_groups import group

SLOWEST = 40


def node(classname: str, name: str) -> str:
    """pytest's id of a case of the file."""
    return f"{classname.replace('.', '/')}.py::{name}"


def read_times(file: Path) -> dict[str, float]:
    """Seconds of each test: its fixtures, itself, and what it cleans up."""
    cases = ElementTree.parse(file).getroot().iter("testcase")
    return {node(case.attrib["classname"], case.attrib["name"]): float(case.attrib["time"]) for case in cases}


def group_totals(times: dict[str, float]) -> list[tuple[str, float]]:
    """Seconds of each group that runs in one process, the longest first."""
    totals: Counter[str] = Counter()
    for test, seconds in times.items():
        totals[group(test).removeprefix("tests/")] += seconds
    return totals.most_common()


def tables(times: dict[str, float]) -> str:
    rows = ["| group | tests' seconds |", "|---|---|"]
    rows += [f"| {name} | {seconds:.0f} |" for name, seconds in group_totals(times)]
    rows += ["", f"| the slowest {SLOWEST} | seconds |", "|---|---|"]
    slowest = sorted(times.items(), key=lambda row: -row[1])[:SLOWEST]
    rows += [f"| `{test.removeprefix('tests/')}` | {seconds:.0f} |" for test, seconds in slowest]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(tables(read_times(Path(sys.argv[1]))))
