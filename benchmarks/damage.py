"""What damage does to the doctor: recorded machines with a fault, a source of theirs damaged, judged again.

    python benchmarks/damage.py [--machines 10000] [--seed 1] [--processes 2]      with the Python of the tests

Each machine is one of tests/machines, as recorded or with a fault of tests/checks/faults, so that checks fail or warn.
One source that the doctor reads of it, sometimes two, is damaged; half the time one that shows the fault. Counted:

- crash: an exception, a check or a probe that crashed; hang: not judged within 10 s;
- wrong pass: a check that failed or warned before, and passes or is skipped now;
- silent: the damaged source was read, but `unread` does not name it.

What counts as damage: only what can be noticed. tests/checks/damage/formats.py lists for each source what its writer
can have written (the kernel's files are never empty or without a line end, `class` is 0x and six digits, JSON is whole,
each message of the log has its time …), independently of the readers. Damaged are:

- a file, folder or link that exists and cannot be read: permission, input/output error, too many links, wrong kind;
- contents that fit no form: truncated, emptied, garbage, zeros, not UTF-8, flipped bits, lines dropped, doubled or
  broken, numbers that are text, negative or huge;
- an output that is truncated or garbled, a program that was killed or timed out, a library that crashed or gives half a
  document; a file system with an impossible size.

Not counted, because it is another machine's truth: a changed content that still fits its form (another number of the
same kind, a line of the log or a package gone, a list cut between two entries), a name missing from a folder, a shell
script or Python file with other words (no form distinguishes them from a person's own), a file that is absent, and exit
statuses without a signal. One machine in ten has such a change: those may not crash or hang either.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from result import CHECKOUT, Figure, machine, progress, report, write

sys.path.append(str(CHECKOUT))

NEEDED = 10_000
BATCH = 50


def judge(seed: int, first: int, count: int) -> list[dict[str, Any]]:
    """What was found on these machines, one row each."""
    from tests.checks.damage.fuzz import cases

    return [case.row() for case in cases(seed, first, count)]


def is_bad(row: dict[str, Any]) -> bool:
    """Whether the doctor did on this machine what it must not do."""
    return bool(row["crashes"] or row["silent"] or (row["wrong"] and row["noticeable"]))


def collect(seed: int, machines: int, processes: int) -> list[dict[str, Any]]:
    """Every machine's row, in order; progress with the time that is left."""
    rows: dict[int, list[dict[str, Any]]] = {}
    begin = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        jobs = {
            pool.submit(judge, seed, first, min(BATCH, machines - first)): first for first in range(0, machines, BATCH)
        }
        for job in as_completed(jobs):
            rows[jobs[job]] = job.result()
            done = sum(map(len, rows.values()))
            left = (time.monotonic() - begin) / done * (machines - done)
            if len(rows) % 10 == 0 or done == machines:
                bad = sum(map(is_bad, (row for found in rows.values() for row in found)))
                progress(f"{done} of {machines} machines, {bad} of them judged incorrectly; about {left:.0f} s left")
    return [row for first in sorted(rows) for row in rows[first]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=NEEDED, help="damaged machines (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same machines (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="judge in so many processes (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="result file (default: benchmarks/results/damage.json)")
    given = parser.parse_args()
    described = machine()
    rows = collect(given.seed, given.machines, given.processes)
    for row in filter(is_bad, rows):
        print(json.dumps(row), flush=True)
    damaged = [row for row in rows if row["noticeable"]]
    hangs = sum("TimeoutError" in crash for row in rows for crash in row["crashes"])
    n = len(rows)
    figures = report(
        Figure("crashes", sum(bool(row["crashes"]) for row in rows) - hangs, "machines", n, NEEDED, at_most=0),
        Figure("hangs", hangs, "machines", n, NEEDED, at_most=0),
        Figure("wrong passes", sum(bool(row["wrong"]) for row in damaged), "machines", n, NEEDED, at_most=0),
        Figure("damaged sources that `unread` does not name", sum(bool(row["silent"]) for row in rows), "machines", n,
               NEEDED, at_most=0),
        Figure("machines with damage that can be noticed", len(damaged), "machines", n),
        Figure("of them with a fault in what was damaged", sum(row["hit"] for row in damaged), "machines", n),
        Figure("their bad checks that became unknown", sum(row["unknown"] for row in damaged), "checks", n),
    )  # fmt: skip
    kinds = Counter(kind for row in rows for kind in row["damage"])
    raw = {"seed": given.seed, "damage": dict(sorted(kinds.items())), "bad": list(filter(is_bad, rows))}
    write("damage", f"Damaged machines, seed {given.seed}", figures, raw, described, given.out)


if __name__ == "__main__":
    main()
