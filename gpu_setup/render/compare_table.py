"""A comparison as CSV for a spreadsheet and as Markdown for a forum. Neither holds a path of a person's files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_setup.render.compare import FIGURES, interval, other_words, ratio_words, record_words, work_words
from gpu_setup.render.data_table import escape_formula
from gpu_setup.render.report import figure
from harness.measure.measurement import Measurement
from harness.report.compare import Comparison, format_value, short_digest
from harness.report.comparison_key import describe_work, list_conditions
from machine.plain_text import clean

PUBLISHED_SHOWN = 3


def comparison_csv(comparison: Comparison, tool_version: str) -> str:
    """One line a run: its figures with unit and interval, its ratio, every condition, and the work."""
    target = io.StringIO()
    writer = csv.writer(target)
    rows = [dict(_cells(comparison, number)) for number in range(len(comparison.runs))]
    writer.writerow([escape_formula(name) for name in rows[0]] + ["gpu-setup"])
    for row in rows:
        writer.writerow([_cell(value) for value in row.values()] + [tool_version])
    # the mark makes Excel read it as UTF-8
    return "\ufeff" + target.getvalue()


def _cell(value: Any) -> str:
    """A number stays one; everything else is text that no spreadsheet computes."""
    if value is None:
        return ""
    return (
        repr(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else escape_formula(format_value(value))
    )


def _cells(comparison: Comparison, number: int) -> Iterator[tuple[str, Any]]:
    run = comparison.runs[number]
    for name in ("letter", "machine", "recipe", "started_at", "verdict", "digest"):
        yield name, getattr(run, name)
    for name in run.figures.__struct_fields__:
        found: Measurement = getattr(run.figures, name)
        low, high = found.ci95 or (None, None)
        yield name, found.median
        yield f"{name}_low", low
        yield f"{name}_high", high
        yield f"{name}_n", found.n
        yield f"{name}_unit", found.unit
    ratio = run.ratio
    yield "to_first", ratio.value if ratio else None
    yield "to_first_low", ratio.low if ratio else None
    yield "to_first_high", ratio.high if ratio else None
    yield "to_first_verdict", ratio.verdict if ratio else None
    for name, value in list_conditions(run.conditions):
        yield f"condition: {name}", value
    for name, value in describe_work(comparison.work):
        yield f"work: {name}", value


def comparison_markdown(comparison: Comparison, tool_version: str) -> str:
    """A table that forums and code hosts show, what differs, what is published, and the digest of each run."""
    runs = comparison.runs
    title = "A measured run" if len(runs) == 1 else f"{len(runs)} runs of the same work"
    lines = [f"### {title}", "", plain(work_words(comparison)), ""]
    head = ["", "machine", "tokens/s", "95 % interval", *(["against A"] if len(runs) > 1 else [])]
    used = [each for each in FIGURES if any(getattr(run.figures, each[1]).median is not None for run in runs)]
    head += [label for label, _, _ in used]
    lines += [_line(head), _line(["---", "---", *["--:"] * (len(head) - 2)])]
    for run in runs:
        speed = run.figures.non_padding
        cells = [run.letter, plain(run.machine), figure(speed.median), interval(speed)]
        if len(runs) > 1:
            cells.append("" if run.ratio is None else f"{run.ratio.value:.3f}, {run.ratio.verdict}")
        cells += [written(getattr(run.figures, field).median) for _, field, written in used]
        lines.append(_line(cells))
    rated = [f"- {run.letter}: {ratio_words(run.ratio)}" for run in runs if run.ratio]
    lines += ["", *rated] if rated else []
    if comparison.changed:
        lines += ["", "Conditions that differ:", "", _line(["", *(run.letter for run in runs)])]
        lines.append(_line(["---"] * (len(runs) + 1)))
        lines += [
            _line([each.key, *(plain(format_value(value)) for value in each.values)]) for each in comparison.changed
        ]
    published = list(_published_lines(comparison))
    lines += ["", *published] if published else []
    lines += ["", *(f"- {plain(note)}" for note in comparison.notes)] if comparison.notes else []
    digests = ", ".join(f"{run.letter} `{short_digest(run)}`" for run in runs)
    lines += [
        "",
        f"Tokens without padding. gpu-setup {tool_version}; digest of all that affects a figure: {digests}.",
    ]
    return "\n".join(lines) + "\n"


def _published_lines(comparison: Comparison) -> Iterator[str]:
    for run in comparison.runs:
        if run.beside is None or run.beside.card is None:
            continue
        yield f"- {run.letter}: {plain(run.beside.sentence)}"
        for other in run.beside.others[:PUBLISHED_SHOWN]:
            words = f"{record_words(other.judged)}. Not comparable: {other_words(other)}."
            yield f"  - {plain(words)} <{other.judged.record.source}>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# what Markdown or a forum would take for markup, a table's border, a link or a person's name
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~#$])")


def plain(text: str) -> str:
    """Text from machines and reports as text: markup is escaped, @ mentions nobody, lines stay one."""
    escaped = _MARKUP.sub(r"\\\1", " ".join(clean(text).split()))
    return escaped.replace("@", "@\N{ZERO WIDTH NON-JOINER}")
