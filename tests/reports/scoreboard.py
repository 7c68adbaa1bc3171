"""How the doctor answers real reports: `python -m tests.reports.scoreboard` prints that part of the scoreboard."""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import NamedTuple

from tests.reports.ask import ask
from tests.reports.judge import Verdict, failures, verdict
from tests.reports.table import Look, Report, looks, reports
from tests.tool import ROOT

PAGE = ROOT / "docs" / "reference" / "scoreboard.md"
_BEST_FIRST = sorted(Verdict, reverse=True)


class Judged(NamedTuple):
    """A report, the verdict on what doctor and plan say of it, and why it is not right."""

    report: Report
    verdict: Verdict
    why: list[str]


@cache
def judged() -> tuple[Judged, ...]:
    answers = ((report, ask(report)) for report in reports())
    return tuple(Judged(each, verdict(each.right, said), failures(each.right, said)) for each, said in answers)


def committed() -> dict[str, Verdict]:
    """The verdicts on the page, by the reports' names."""
    rows = re.findall(r"^\| ([a-z0-9-]+) \|.*\| (\w+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return {name: Verdict[word] for name, word in rows if word in Verdict.__members__}


def text() -> str:
    """The table as Markdown."""
    verdicts = [row.verdict for row in judged()]
    counts = ", ".join(f"{verdicts.count(each)} {each}" for each in _BEST_FIRST)
    lines = [
        "",
        "## Real reports",
        "",
        f"Machines that people wrote about, rebuilt from their posts: {len(verdicts)} reports, {counts}.",
        "[tests/reports](../../tests/reports/README.md) has what a right answer says and what it must not say, written",
        "from the report. None is a recording of the reporter's machine.",
        "",
        "| report | source | what was wrong | quoted | composed | answer |",
        "|---|---|---|---|---|---|",
        *map(_row, judged()),
        "",
        "## What other doctors look for",
        "",
        "The failure modes of rocm-cli and the checks of cuda-doctor, and what answers them here",
        "([peers.toml](../../tests/reports/peers.toml)).",
        "",
        "| of | what it looks for | reports above | checks | no fault, because |",
        "|---|---|---|---|---|",
        *map(_look_row, looks()),
    ]
    return "\n".join(lines) + "\n"


def _row(row: Judged) -> str:
    report = row.report
    links = ", ".join(f"[{number}]({source})" for number, source in enumerate(report.source, 1))
    cells = (report.name, links, report.cause, report.quoted, report.composed, str(row.verdict))
    return f"| {' | '.join(cells)} |"


def _look_row(look: Look) -> str:
    checks = ", ".join(f"`{check}`" for check in look.checks)
    cells = (f"{look.of} {look.id}", look.what, ", ".join(look.reports), checks, look.not_)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(text())
