"""A data check as one self-contained HTML page: findings and length histograms, no script, nothing loaded."""

from __future__ import annotations

from typing import NamedTuple

from gpu_setup.render.data import DOES, count_text
from gpu_setup.render.template import fill_template
from harness.dataset.findings import DataReport, LengthHistogram
from machine.plain_text import clean

WIDTH, HEIGHT, MARGIN = 640, 180, 34


class Bar(NamedTuple):
    """One bar in the picture's units, and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    text: str


class Histogram(NamedTuple):
    unit: str
    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, str], ...]
    most: int
    caption: str


def data_page(report: DataReport, tool_version: str) -> str:
    """The page's text. Everything from the data is escaped by the template engine."""
    lengths = [*report.lengths, *([report.tokens.lengths] if report.tokens else [])]
    return fill_template(
        "data.html.j2",
        {"clean": clean, "number": lambda value: f"{value:,}"},
        report=report,
        histograms=[histogram(each) for each in lengths if each.counts],
        does=DOES,
        width=WIDTH,
        height=HEIGHT,
        tool_version=tool_version,
    )


def histogram(lengths: LengthHistogram) -> Histogram:
    """Bars, the labels under some of them, and the figures in a sentence."""
    count, most = len(lengths.counts), max(lengths.counts)
    step = (WIDTH - MARGIN) / count
    tall = HEIGHT - 2 * MARGIN
    bars = tuple(
        Bar(
            round(MARGIN + step * number, 1),
            round(HEIGHT - MARGIN - tall * many / most, 1),
            round(max(1.0, step - 2), 1),
            round(tall * many / most, 1),
            f"{lengths.edges[number]:,} to {lengths.edges[number + 1]:,}: {count_text(many)}",
        )
        for number, many in enumerate(lengths.counts)
    )
    every = max(1, count // 6)
    labels = tuple((bars[number].x, f"{lengths.edges[number]:,}") for number in range(0, count, every))
    caption = f"shortest {lengths.smallest:,}, median {lengths.median:,.0f}, longest {lengths.largest:,}"
    return Histogram(lengths.unit, bars, labels, most, caption)
