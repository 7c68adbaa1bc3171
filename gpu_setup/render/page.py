"""A run's report as one self-contained HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from gpu_setup.render.charts import run_charts, sensor_charts
from gpu_setup.render.plain import clean
from gpu_setup.render.report import figure, in_gib, machine_words, percent, workload_words
from harness.report import Report
from harness.telemetry import Telemetry
from harness.worker_log import Step


def report_page(
    report: Report, steps: Sequence[Step], warmup: int, tool_version: str, telemetry: Telemetry | None = None
) -> str:
    """The page's text. Everything from models and machines is escaped by the template engine."""
    from jinja2 import Environment, StrictUndefined, select_autoescape

    environment = Environment(
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # control characters are no HTML; type(), since the charts are marked as safe by a class of their own
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters |= {"figure": figure, "gib": in_gib, "percent": percent}
    source = (resources.files("gpu_setup") / "render" / "templates" / "report.html.j2").read_text(encoding="utf-8")
    timed = [step for step in steps if step.seconds > 0]
    return environment.from_string(source).render(
        report=report,
        machine=machine_words(report),
        charts={**(run_charts(timed, warmup) if timed else {}), **(sensor_charts(telemetry) if telemetry else {})},
        tool_version=tool_version,
        workload=workload_words(report),
    )
