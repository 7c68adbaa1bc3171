"""`gpu-setup smoke`: does training work on this machine?"""

from __future__ import annotations

from pathlib import Path

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import (
    data_option,
    my_paths,
    out_option,
    recipe_option,
    runtime_options,
    settle_unverified,
)
from gpu_setup.envelope import Answer
from harness.environment.runtime import Runtime

EPILOG = """\b
Examples:
  gpu-setup smoke                        with the recipe that fits this machine
  gpu-setup smoke --recipe tiny          one minute: a small model with random weights
  gpu-setup smoke --data mine.json       on your own Alpaca data
  gpu-setup smoke --json > smoke.json

\b
Exit codes: 0 training works correctly; 1 it does not, or the data is bad; 2 recipe unknown or broken; 3 needs a GPU;
4 the training environment or process failed.
"""


@click.command(epilog=EPILOG)
@json_option
@recipe_option
@data_option
@out_option
@runtime_options
def command(as_json: bool, recipe_name: str | None, data: Path | None, out: Path | None, runtime: Runtime) -> Answer:
    """Verify that training works correctly on this machine.

    A short fine-tune: the loss must be finite, the loss on held-out answers must fall, the correct answer must stay
    preferred, and the saved adapter must reload and generate.
    """
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from gpu_setup.report_files import keep_report, make_out
    from harness.jobs.job_choice import JobRequest, choose_job, require_pretrained
    from harness.jobs.workplace import choose_workplace
    from harness.pipeline import Workplace, examine_run, prepare, report_run, train_in_new_folder, with_held_out
    from harness.report.smoke_result import smoke_result
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    make_out(out)
    machine, paths, known = LocalMachine(), my_paths(), catalogue()
    host = read_host(machine)
    job = with_held_out(choose_job(host, known, JobRequest(recipe_name, data, learns=True), paths.models))
    require_pretrained(job.recipe)
    settle_unverified(job.stack, runtime, machine, paths)
    with reporter(as_json) as emit:
        job, place = choose_workplace(job, host, known, runtime, Workplace(machine, paths, emit))
        ready = prepare(job, *place)
        folder = train_in_new_folder(job, ready, place)
        examination = examine_run(job, ready, folder, place.machine, emit)
    report = report_run(job, ready, folder, host, known, examination)
    result = smoke_result(report)
    code = FINE if result.verdict == "pass" else BAD_ANSWER
    path = keep_report(report, out, code)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n"

    return Answer("smoke", result, code, text)
