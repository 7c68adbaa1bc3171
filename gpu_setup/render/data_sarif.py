"""A data check as SARIF 2.1.0 (OASIS): one result a row, at most MOST_RESULTS a kind."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from harness.dataset.findings import DataFinding, DataReport, kinds
from machine.plain_text import hide_in_strings
from machine.secrets import redact

LEVELS = {"error": "error", "warning": "warning", "info": "note"}
# code hosts take some thousand results a run
MOST_RESULTS = 1000


def sarif(report: DataReport) -> str:
    """The document's text, with one newline at the end."""
    from gpu_setup.version import version

    met = [finding.kind for finding in report.findings]
    known = kinds()
    document = {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "gpu-setup data check",
                        "version": version(),
                        "rules": [
                            {
                                "id": kind,
                                "shortDescription": {"text": known[kind].title},
                                "fullDescription": {"text": known[kind].why},
                                "defaultConfiguration": {"level": LEVELS[known[kind].severity]},
                            }
                            for kind in met
                        ],
                    }
                },
                "results": [
                    result
                    for number, finding in enumerate(report.findings)
                    for result in _results(finding, number, quote(report.file.replace("\\", "/")))
                ],
                "properties": {"rows": report.rows, "counts": {each.kind: each.count for each in report.findings}},
            }
        ],
    }
    shown = hide_in_strings(document, redact)
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode() + "\n"


def _results(finding: DataFinding, rule: int, uri: str) -> list[dict[str, Any]]:
    said = {example.row: example.excerpt for example in finding.examples}
    places = list(zip(finding.rows, finding.lines, strict=False))[:MOST_RESULTS]
    if not places:
        first = finding.examples[0] if finding.examples else None
        return [_result(finding, rule, uri, finding.summary, first.line if first and first.line else 1)]
    results = []
    for row, line in places:
        excerpt = said.get(row)
        text = f"Row {row}: {kinds()[finding.kind].title.lower()}." + (f" {excerpt}" if excerpt else "")
        results.append(_result(finding, rule, uri, text, line))
    return results


def _result(finding: DataFinding, rule: int, uri: str, text: str, line: int) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": max(line, 1)}}
    return {
        "ruleId": finding.kind,
        "ruleIndex": rule,
        "level": LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
