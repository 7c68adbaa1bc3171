"""`gpu-setup up`: the main job in one command."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gpu_setup.commands.options import json_option, options_into
from gpu_setup.commands.training_options import (
    data_option,
    my_paths,
    out_option,
    recipe_option,
    runtime_options,
    settle_unverified,
)
from gpu_setup.envelope import Answer
from gpu_setup.terminal import confirm, echo, style
from harness.environment.runtime import Runtime

EPILOG = """\b
Examples:
  gpu-setup up                   inspect, plan, build the training environment, train, measure, report
  gpu-setup up --yes             the same without questions, for scripts
  gpu-setup up --out results/    also write report.json and report.html there
  gpu-setup up --fresh           train again, even if a finished run exists

\b
Interrupted (Ctrl-C, a lost network, a power cut)? Run it again: finished stages are not repeated.
Exit codes: 0 done; 1 the training is wrong; 2 usage; 3 refused or answered "no"; 4 an outside command or service
failed; 5 the driver is installed and a reboot comes next.
"""


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    yes: bool
    recipe_name: str | None
    data: Path | None
    out: Path | None
    fresh: bool
    runtime: Runtime


@click.command(epilog=EPILOG)
@json_option
@click.option("--yes", is_flag=True, help="Answer every question with yes, except --accept-unverified.")
@recipe_option
@data_option
@out_option
@click.option("--fresh", is_flag=True, help="Train again, even if a finished run with the same inputs exists.")
@runtime_options
@options_into(UpOptions)
def command(options: UpOptions) -> Answer:
    """Do the main job: from this machine as it is to a measured fine-tune and a report.

    Without a supported GPU it changes nothing on the system and fine-tunes a small real model on the CPU.
    """
    from checks.catalogue import catalogue
    from gpu_setup.extras import need
    from gpu_setup.render.progress import reporter
    from gpu_setup.report_files import keep_report, make_out
    from gpu_setup.up import Person, choose, inspect_and_install, train_and_measure
    from harness.jobs.job_choice import JobRequest
    from harness.jobs.workplace import choose_workplace
    from harness.pipeline import Workplace
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    make_out(options.out)
    machine, paths, known = LocalMachine(), my_paths(), catalogue()
    person = Person(
        lambda question: options.yes or _ask(question),
        lambda stage, text: None if options.as_json else _show(stage, text),
        options.yes,
        options.as_json,
    )
    seen = inspect_and_install(machine, known, person)
    if isinstance(seen, Answer):
        return seen
    person.show("Train", f"on the stack {seen.choice.stack.name}: {seen.choice.because}\n")
    job = choose(seen, JobRequest(options.recipe_name, options.data), person, paths.models)
    settle_unverified(job.stack, options.runtime, machine, paths)
    # for the report's page; only now, since a machine may first need its driver, or the answer may be no
    need("charts")
    with reporter(options.as_json) as emit:
        here = Workplace(machine, paths, emit)
        job, place = choose_workplace(job, seen.host, known, options.runtime, here)
        report = train_and_measure(job, seen, known, place, options.fresh)
    code = BAD_ANSWER if report.verdict == "fail" else FINE
    path = keep_report(report, options.out, code)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n        {path.with_name('report.html')}\n"

    return Answer("report", report, code, text)


def _show(stage: str, text: str) -> None:
    echo(style(f"── {stage} ", bold=True), err=True)
    echo(text, err=True)


def _ask(question: str) -> bool:
    """Ask on the terminal; where nobody can answer, it is refused and --yes is named."""
    import sys

    from machine.errors import Refused

    if not sys.stdin.isatty():
        raise Refused(
            "up.no-terminal", f"A question needs an answer: {question}", "There is no terminal.", "Use --yes."
        )
    return confirm(question, default=True)
