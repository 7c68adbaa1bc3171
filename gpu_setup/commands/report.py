"""`gpu-setup report`: the report of a run, as a table or a document."""

from __future__ import annotations

from pathlib import Path

import click

from gpu_setup.commands.options import Whole, json_option
from gpu_setup.commands.training_options import my_paths
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup report                     the newest run's report
  gpu-setup report results/report.json
  gpu-setup report --json RUN_DIR
"""


@click.command(epilog=EPILOG)
@json_option
@click.argument("run", metavar="[RUN_DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--answers", type=Whole(min=0), default=3, metavar="N", help="Show N answers (default 3).")
def command(as_json: bool, run: Path | None, answers: int) -> Answer:
    """Show the report of a run. The page with charts is report.html in the same folder."""
    from harness.report.run_report import DOCUMENT, read_report
    from machine.errors import BAD_ANSWER, FINE, BadUsage

    if run is None:
        written = sorted(my_paths().runs.glob(f"*/{DOCUMENT}"))
        if not written:
            raise BadUsage("report.none", "No run has a report yet.", "", "gpu-setup up makes one.")
        run = written[-1].parent
    report = read_report(run)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return report_text(report, answers) + f"\nReport: {run}\n"

    return Answer("report", report, BAD_ANSWER if report.verdict == "fail" else FINE, text)
