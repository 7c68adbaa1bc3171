"""A comparison as one self-contained HTML page: bars with intervals, tables, no script, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpu_setup.render.charts import bar_chart
from gpu_setup.render.compare import FIGURES, interval, other_words, percent, ratio_words, record_words, work_words
from gpu_setup.render.report import figure
from gpu_setup.render.template import fill_template
from harness.measure.measurement import Measurement
from harness.report.compare import Comparison, Figures, format_value, short_digest
from harness.report.comparison_key import describe_work

# chart id, title, unit, field of Figures, what one unit is of the measured one
CHARTS = (
    ("speed", "Speed, without padding", "tokens/s", "non_padding", 1.0),
    ("mfu", "Model FLOPs of the card's peak (MFU)", "%", "mfu", 0.01),
    ("ceiling", "Share of the matmul ceiling", "%", "ceiling_share", 0.01),
    ("energy", "Energy", "joules per token", "joules_per_token", 1.0),
    ("memory", "Peak memory", "GiB", "peak_memory", float(1 << 30)),
)

FILTERS: dict[str, Callable[..., Any]] = {
    "figure": figure,
    "shown": format_value,
    "interval": interval,
    "rated": ratio_words,
    "record": record_words,
    "percent": percent,
    "digest": short_digest,
    "other": other_words,
}


def comparison_page(comparison: Comparison, tool_version: str) -> str:
    """The page's text. Everything from reports is escaped by the template engine."""
    runs = comparison.runs
    rows = [
        (label, [written(_measurement(run.figures, field).median) for run in runs])
        for label, field, written in FIGURES
        if any(_measurement(run.figures, field).median is not None for run in runs)
    ]
    return fill_template(
        "compare.html.j2",
        FILTERS,
        comparison=comparison,
        work=work_words(comparison),
        keys=describe_work(comparison.work),
        rows=rows,
        charts=comparison_charts(comparison),
        tool_version=tool_version,
    )


def comparison_charts(comparison: Comparison) -> dict[str, str]:
    """A chart for each figure that some run has, by id."""
    names = [f"{run.letter}  {run.machine}" for run in comparison.runs]
    charts = {}
    for name, title, unit, field, scale in CHARTS:
        found = [_measurement(run.figures, field) for run in comparison.runs]
        if all(each.median is None for each in found):
            continue
        values = [None if each.median is None else each.median / scale for each in found]
        spreads = [None if each.ci95 is None else (each.ci95[0] / scale, each.ci95[1] / scale) for each in found]
        charts[name] = bar_chart(title, unit, names, values, spreads)
    return charts


def _measurement(figures: Figures, field: str) -> Measurement:
    found: Measurement = getattr(figures, field)
    return found
