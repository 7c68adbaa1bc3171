"""A run's report as files: report.json and report.html in the run's folder, and copies where the person wants them."""

from __future__ import annotations

import os
from pathlib import Path

from gpu_setup.envelope import Answer, encode
from gpu_setup.portable import portable
from gpu_setup.render.page import report_page
from gpu_setup.version import version
from harness.atomic_files import write_atomic
from harness.measure.run_context import TELEMETRY
from harness.measure.telemetry import read_telemetry
from harness.process.worker_log import read_worker_log
from harness.report.run_report import Report, write_report
from machine.errors import FINE, OutsideFailed


def make_out(out: Path | None) -> None:
    """Make the folder for the report's copies, so that one that cannot be written is reported before the training."""
    if out is None:
        return
    why = "The system says: Permission denied."
    try:
        out.mkdir(parents=True, exist_ok=True)
        if os.access(out, os.W_OK):
            return
    except OSError as error:
        why = f"The system says: {error.strerror or error}."
    raise OutsideFailed("paths.unwritable", f"The folder {out} cannot be written.", why, "Give another --out.")


def keep_report(report: Report, out: Path | None, exit_code: int = FINE) -> Path:
    """Write the run's report.json and report.html, and copies into `out`; returns the JSON's path.

    They name no folder, account or host of this machine, since they are published.
    """
    folder, warmup = Path(report.folder), report.measurements.warmup_steps
    sent = portable(report)
    log = read_worker_log(folder / "worker.jsonl")
    dropped = report.recipe.warmup_steps if warmup is None else warmup
    page = report_page(sent, log.steps if log else (), dropped, version(), read_telemetry(folder / TELEMETRY))
    path = write_report(folder, encode(Answer("report", sent, exit_code, str)), page)
    if out is not None:
        for name in ("report.json", "report.html"):
            write_atomic(out / name, path.with_name(name).read_bytes())
        path = out / "report.json"
    return path
