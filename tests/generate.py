"""Write every file that is generated: `python -m tests.generate`.

The ids of new checks, the catalogue as JSON, docs/reference/checks.md and scoreboard.md, the published schemas, and the
Dockerfiles of the recorded machines. Tests compare each of them with its source.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable

from tests.tool import ROOT

IDS = ROOT / "checks" / "check_ids.py"
SCOREBOARD = ROOT / "docs" / "reference" / "scoreboard.md"
BOARDS = ("tests.checks.faults.scoreboard", "tests.reports.scoreboard")
WRITERS = ("checks.catalogue", "checks.docs", "gpu_setup.schema", "tests.containers.golden")


def with_new(ids: Iterable[str], files: Iterable[Iterable[str]]) -> list[str]:
    """`ids` with those of each file that are not in it yet: after the id before it in its file, else at the end."""
    found = list(ids)
    for file in files:
        before = None
        for id in file:
            if id not in found:
                found.insert(found.index(before) + 1 if before else len(found), id)
            before = id
    return found


def ids_text(source: str, ids: Iterable[str]) -> str:
    """check_ids.py with these ids."""
    rows = "".join(f'    "{id}",\n' for id in ids)
    return re.sub(r"(?<= = \(\n).*(?=\)\n)", lambda _: rows, source, flags=re.DOTALL)


def write_ids() -> None:
    from checks.check_ids import IDS as known
    from checks.registry import MODULES, checks_in

    files = ([check.id for check in checks_in(module)] for module in MODULES)
    IDS.write_text(ids_text(IDS.read_text(encoding="utf-8"), with_new(known, files)), encoding="utf-8")


def main() -> None:
    write_ids()
    # each in a process of its own: it must import what the one before has written
    for module in WRITERS:
        subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=True)
    SCOREBOARD.write_bytes(
        b"".join(
            subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=True, capture_output=True).stdout
            for module in BOARDS
        )
    )


if __name__ == "__main__":
    main()
