"""`gpu-setup bench`: how fast does this machine train?"""

from __future__ import annotations

from pathlib import Path

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training import (
    Runtime,
    check_out,
    choose_job,
    data_option,
    keep_report,
    my_paths,
    out_option,
    recipe_option,
    runtime_options,
)
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup bench                                 with the recipe that fits this machine
  gpu-setup bench --recipe smollm2-135m-qlora --out results/
  gpu-setup bench --steps 20 --json > report.json

\b
Exit codes: 0 measured, or inconclusive; 1 the loss was not finite (--strict: or inconclusive), or the data is bad;
2 recipe unknown or broken; 3 needs a GPU; 4 the training environment or process failed.
"""


@click.command(epilog=EPILOG)
@json_option
@recipe_option
@data_option
@out_option
@runtime_options
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train N steps instead of the recipe's number.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Another seed than the recipe's.")
@click.option("--strict", is_flag=True, help="End with 1 when the result is inconclusive.")
def command(
    as_json: bool,
    recipe_name: str | None,
    data: Path | None,
    out: Path | None,
    steps: int | None,
    seed: int | None,
    strict: bool,
    runtime: Runtime,
) -> Answer:
    """Measure how fast this machine trains: tokens a second in three counts, with interval, and memory."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.prove import fresh_run, prepare, reported
    from machine.door import LocalMachine
    from machine.errors import BAD_ANSWER, FINE

    check_out(out)
    machine, paths = LocalMachine(), my_paths()
    host = read_host(machine)
    chosen = {"max_steps": steps, "seed": seed}
    job, _ = choose_job(host, recipe_name, data, {key: value for key, value in chosen.items() if value is not None})
    with reporter(as_json) as emit:
        job, runner, environment = runtime.ready(job, host, machine, paths, emit)
        ready = prepare(job, runner, paths, emit, environment)
        folder = fresh_run(job, ready, runner, paths.runs, emit)
    report = reported(job, ready, folder, host, catalogue(), None)
    code = BAD_ANSWER if strict and report.verdict != "pass" else FINE
    path = keep_report(report, Answer("report", report, code, str), out)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n"

    return Answer("report", report, code, text)
