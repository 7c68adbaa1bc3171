"""`gpu-setup smoke`: does this machine train rightly?"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import (
    Runtime,
    check_out,
    choose_job,
    data_option,
    keep_report,
    must_learn,
    my_paths,
    out_option,
    recipe_option,
    runtime_options,
)
from gpu_setup.envelope import Answer
from harness.measure.smoke_criteria import Smoke
from harness.training.examination import Answer as ModelAnswer

EPILOG = """\b
Examples:
  gpu-setup smoke                        with the recipe that fits this machine
  gpu-setup smoke --recipe tiny          a minute: a small random model
  gpu-setup smoke --data mine.json       on your own Alpaca data
  gpu-setup smoke --json > smoke.json

\b
Exit codes: 0 trains rightly; 1 it does not, or the data is bad; 2 recipe unknown or broken; 3 needs a GPU;
4 the training environment or process failed.
"""


class SmokeResult(msgspec.Struct, frozen=True):
    """`folder` holds the run: config, logs, adapter, report."""

    recipe: str
    verdict: str
    smoke: Smoke
    folder: str
    answers: tuple[ModelAnswer, ...] = ()


@click.command(epilog=EPILOG)
@json_option
@recipe_option
@data_option
@out_option
@runtime_options
def command(as_json: bool, recipe_name: str | None, data: Path | None, out: Path | None, runtime: Runtime) -> Answer:
    """Prove that this machine trains rightly.

    A short fine-tune: the loss must be finite, the loss on held-out answers must fall, the right answer must stay
    preferred, and the saved adapter must reload and generate.
    """
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.pipeline import examined, fresh_run, prepare, reported, with_held_out
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    check_out(out)
    machine, paths = LocalMachine(), my_paths()
    host = read_host(machine)
    job = with_held_out(choose_job(host, recipe_name, data, learns=True)[0])
    must_learn(job.recipe)
    with reporter(as_json) as emit:
        job, runner, environment = runtime.ready(job, host, machine, paths, emit)
        ready = prepare(job, runner, paths, emit, environment)
        folder = fresh_run(job, ready, runner, paths.runs, emit)
        examination = examined(job, ready, folder, runner, emit)
    report = reported(job, ready, folder, host, catalogue(), examination)
    assert report.smoke is not None
    code = FINE if report.smoke.passed else BAD_ANSWER
    path = keep_report(report, Answer("report", report, code, str), out)
    result = SmokeResult(
        report.recipe.name, "pass" if report.smoke.passed else "fail", report.smoke, report.folder, report.answers
    )

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n"

    return Answer("smoke", result, code, text)
