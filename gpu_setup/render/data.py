"""What the `data` commands found or did, for a terminal of 80 columns."""

from __future__ import annotations

from gpu_setup.render.layout import wrap_text
from gpu_setup.render.report import figure
from gpu_setup.terminal import style
from harness.dataset.findings import DataFinding, DataReport, KindChange, TokenCounts

SIGNS = {"error": ("✗", "red"), "warning": ("!", "yellow"), "info": ("·", "blue")}
ROWS_SHOWN = 8
DOES = {
    "drop": "dropped by `data clean`",
    "repair": "fixed by `data clean`",
    "mask": "replaced by a pseudonym by `data clean`",
    "leave": "not changed by `data clean`; review by hand",
}


def data_text(report: DataReport) -> str:
    """The whole answer of a check, of a cleaning, an import or a split."""
    lines = [*head_lines(report), ""]
    for finding in report.findings:
        lines += finding_lines(finding)
    if report.findings:
        lines.append("")
    if report.tokens is not None:
        lines += [*token_lines(report.tokens), ""]
    for change in report.changes:
        lines += change_lines(change)
    for written in report.written:
        verb = "wrote" if written.written else "would write"
        lines += wrap_text(f"{verb} {count_text(written.rows, written.what)}: {written.path}", "  ", first="→ ")
    lines += [line for note in report.notes for line in wrap_text(note, "  ", first="· ")]
    return "\n".join(lines).rstrip("\n") + "\n"


def head_lines(report: DataReport) -> list[str]:
    """File, rows, origin marks, and the verdict in a line."""
    counts = dict.fromkeys(SIGNS, 0)
    for finding in report.findings:
        counts[finding.severity] += 1
    words = [
        style(f"{count} {severity}{'s' if count != 1 else ''}", fg=SIGNS[severity][1])
        for severity, count in counts.items()
        if count and severity != "info"
    ]
    said = ", ".join(words) if words else style("no problems found", fg="green")
    lines = [f"{report.file}: {count_text(report.rows)}, {said}" if report.action == "check" else _action_line(report)]
    if report.action == "check":
        languages = ", ".join(f"{code} {count:,}" for code, count in list(report.languages.items())[:6])
        if languages:
            lines.append(f"  languages of the answers: {languages}")
        marks = report.origins
        known = marks.organic + marks.semi_synthetic + marks.synthetic
        if known:
            total = known + marks.unmarked
            parts = (
                ("organic", marks.organic), ("semi-synthetic", marks.semi_synthetic),
                ("synthetic", marks.synthetic), ("unmarked", marks.unmarked),
            )  # fmt: skip
            lines.append("  origin: " + ", ".join(f"{name} {many / total:.0%}" for name, many in parts if many))
    return lines


def count_text(number: int, what: str = "rows") -> str:
    """`1 row`, `2 changed rows`."""
    return f"{number:,} {what.replace('rows', 'row', 1) if number == 1 else what}"


def _action_line(report: DataReport) -> str:
    return f"{report.file}: {count_text(report.rows)} read"


def finding_lines(finding: DataFinding) -> list[str]:
    """One kind: what, in which rows, an excerpt, why it matters, what cleaning does."""
    sign, colour = SIGNS[finding.severity]
    lines = wrap_text(
        finding.summary,
        "  ",
        first=f"{style(sign, fg=colour)} ",
        style=lambda text: style(text, bold=True),
    )
    if finding.rows:
        shown = ", ".join(f"{row:,}" for row in finding.rows[:ROWS_SHOWN])
        more = finding.count - min(len(finding.rows), ROWS_SHOWN)
        label = "row" if finding.count == 1 else "rows"
        lines += wrap_text(f"{label} {shown}" + (f" and {more:,} more" if more > 0 else ""), "    ")
    for example in finding.examples[:2]:
        place = f"row {example.row:,}" if example.row is not None else "the file"
        where = f"{place} (line {example.line:,})" if example.line is not None else place
        if example.row is not None:
            lines += wrap_text(f"{where}: {example.excerpt}", "      ", first="    ")
    lines += wrap_text(finding.why, "    ", style=lambda text: style(text, dim=True))
    if finding.severity != "info":
        lines.append(style(f"    {finding.kind}: {DOES[finding.clean]}", dim=True))
    return lines


def token_lines(tokens: TokenCounts) -> list[str]:
    """The rows as the recipe's tokenizer and prompt see them."""
    lines = [style(f"With {tokens.recipe} (sequence_len {tokens.sequence_len:,}):", bold=True)]
    share = tokens.trainable / tokens.total if tokens.total else 0.0
    facts = [
        ("tokens", f"{tokens.total:,}, of them {tokens.trainable:,} trainable ({share:.0%})"),
        ("tokens per row", f"median {figure(tokens.lengths.median)}, longest {tokens.lengths.largest:,}"),
        ("rows trained on", f"{tokens.kept:,}"),
        ("too long", f"{tokens.over_length:,} rows ({tokens.over_length_does})"),
        ("nothing to learn from", f"{tokens.no_trainable:,} rows"),
        ("without end-of-text", f"{tokens.no_eos:,} rows"),
        ("share without padding", "not known" if tokens.efficiency is None else f"{tokens.efficiency:.0%}"),
        ("steps", f"{tokens.steps.total:,} ({tokens.steps.epochs:.2f} passes over the rows)"),
        ("time", _time(tokens)),
    ]
    for label, value in facts:
        lines += wrap_text(value, " " * 31, first=f"  {label:<29}")
    return lines


def _time(tokens: TokenCounts) -> str:
    seconds = tokens.steps.seconds
    if seconds is None:
        return f"not known: {tokens.steps.because}"
    said = (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
    return f"about {said} ({tokens.steps.because})"


def change_lines(change: KindChange) -> list[str]:
    """One kind of change with an example."""
    lines = wrap_text(
        f"{change.kind}: {count_text(change.rows)}, {change.does}",
        "  ",
        first="~ ",
        style=lambda text: style(text, bold=True),
    )
    lines += wrap_text(f"- {change.before}", "      ", first="    ", style=lambda text: style(text, fg="red"))
    if change.after:
        lines += wrap_text(f"+ {change.after}", "      ", first="    ", style=lambda text: style(text, fg="green"))
    return lines
