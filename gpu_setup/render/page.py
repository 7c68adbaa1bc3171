"""A run's report as one self-contained HTML page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_setup.render.charts import run_charts, sensor_charts
from gpu_setup.render.report import figure, flops, in_gib, machine_words, percent, workload_words
from gpu_setup.render.template import fill_template
from harness.measure.telemetry import Telemetry
from harness.process.worker_log import StepEvent
from harness.report.run_report import Report


def report_page(
    report: Report, steps: Sequence[StepEvent], warmup: int, tool_version: str, telemetry: Telemetry | None = None
) -> str:
    """The page's text. Everything from models and machines is escaped by the template engine."""
    timed = [step for step in steps if step.seconds > 0]
    return fill_template(
        "report.html.j2",
        {"figure": figure, "flops": flops, "gib": in_gib, "percent": percent},
        report=report,
        machine=machine_words(report),
        charts={**(run_charts(timed, warmup) if timed else {}), **(sensor_charts(telemetry) if telemetry else {})},
        tool_version=tool_version,
        workload=workload_words(report),
    )
