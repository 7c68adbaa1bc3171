"""Writes the results into README.md as tables, with targets; a missed target is marked.

python3 benchmarks/table.py            write them
python3 benchmarks/table.py --check    exit with status 1 when README.md does not show the newest results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from result import RESULTS, format_value, target, verdict

README = Path(__file__).resolve().parent / "README.md"
BEGIN, END = "<!-- results, written by table.py -->", "<!-- end of the results -->"


def table(document: dict[str, Any]) -> str:
    """One result: where and when, then a row for each figure."""
    machine = document["machine"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['os']}, "
        f"Python {machine['python']}; {document['date']}, commit {document['commit'] or 'unknown'}, "
        f"load before the start {machine['load_before']}."
    )
    lines = [
        f"### {document['title']}",
        "",
        where,
        "",
        "| | figure | 95 % interval | target | | runs |",
        "|---|---|---|---|---|---|",
    ]
    for figure in document["figures"]:
        ends = figure["ci95"]
        between = " to ".join(format_value(end, figure["unit"]) for end in ends) if ends else ""
        wanted = target(figure)
        judged = verdict(figure) if wanted else ""
        marked = {"met": "met", "MISSED": "**MISSED**"}.get(judged, judged)
        name = figure["name"] + (f" ({figure['note']})" if figure["note"] else "")
        value = format_value(figure["value"], figure["unit"])
        lines.append(f"| {name} | {value} | {between} | {wanted} | {marked} | {figure['n']} |")
    return "\n".join(lines)


def render_page(page: str) -> str:
    """The page with the newest results between its two marks."""
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    tables = "\n\n".join(table(document) for document in documents) or "No results yet."
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        sys.exit(f"{README.name} has no lines {BEGIN} … {END}: add them where the tables belong.")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    given = parser.parse_args()
    page = README.read_text(encoding="utf-8")
    new = render_page(page)
    if given.check:
        if new != page:
            sys.exit("benchmarks/README.md does not show the newest results; run: python3 benchmarks/table.py")
        return
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
