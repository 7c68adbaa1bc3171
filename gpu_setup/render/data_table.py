"""A data check as CSV for a spreadsheet: one line a row that was found."""

from __future__ import annotations

import csv
import io

from harness.dataset.findings import DataReport
from machine.plain_text import clean

# a cell that begins like this is a formula to a spreadsheet; the text comes from strangers (OWASP, CSV injection)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def data_table(report: DataReport) -> str:
    """The table's text, with the mark that makes Excel read it as UTF-8."""
    target = io.StringIO()
    writer = csv.writer(target)
    writer.writerow(("kind", "severity", "row", "line", "excerpt"))
    for finding in report.findings:
        said = {example.row: example.excerpt for example in finding.examples}
        places = list(zip(finding.rows, finding.lines, strict=False))
        if not places:
            places = [(None, example.line or "") for example in finding.examples[:1]]  # type: ignore[misc]
        for row, line in places:
            cells = (finding.kind, finding.severity, "" if row is None else row, line, said.get(row, ""))
            writer.writerow([escape_formula(str(cell)) for cell in cells])
    return "\ufeff" + target.getvalue()


def escape_formula(cell: str) -> str:
    """The cell as text: an apostrophe keeps a spreadsheet from taking it as a formula."""
    shown = clean(cell)
    return f"'{shown}" if shown.startswith(FORMULAS) else shown
