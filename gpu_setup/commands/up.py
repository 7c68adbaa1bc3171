"""`gpu-setup up`: the main job in one command."""

from __future__ import annotations

from pathlib import Path

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import (
    Runtime,
    check_out,
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
  gpu-setup up                   inspect, plan, build the training environment, train, measure, report
  gpu-setup up --yes             the same without questions, for scripts
  gpu-setup up --out results/    also put report.json and report.html there
  gpu-setup up --fresh           train again although a finished run is there

\b
Stopped half-way (Ctrl-C, a lost network, a power cut)? Run it again: what is finished is not done again.
Exit codes: 0 done; 1 the training is wrong; 2 usage; 3 refused or answered "no"; 4 something outside failed;
5 the driver is installed and a restart comes next.
"""


@click.command(epilog=EPILOG)
@json_option
@click.option("--yes", is_flag=True, help="Answer every question with yes.")
@recipe_option
@data_option
@out_option
@runtime_options
@click.option("--fresh", is_flag=True, help="Train again although a finished run with the same inputs is there.")
def command(
    as_json: bool,
    yes: bool,
    recipe_name: str | None,
    data: Path | None,
    out: Path | None,
    fresh: bool,
    runtime: Runtime,
) -> Answer:
    """Do the main job: from this machine as it is to a measured fine-tune and a report.

    Without a supported GPU it changes nothing on the system and fine-tunes a small real model on the processor.
    """
    from checks.catalogue import catalogue
    from gpu_setup.render.progress import reporter
    from gpu_setup.up import choose, inspect, prove, to_install, with_versions
    from machine.errors import BAD_ANSWER, FINE
    from machine.local import LocalMachine

    check_out(out)
    machine, paths, known = LocalMachine(), my_paths(), catalogue()
    seen = inspect(machine, known)
    if to_install(seen):
        seen = with_versions(seen, machine, known)
    if not as_json:
        from gpu_setup.render.doctor import summary_text
        from gpu_setup.render.machine import machine_line
        from gpu_setup.render.plan import plan_text

        _say("Inspect", summary_text(seen.doctor, seen.host, known))
        _say("Plan", plan_text(seen.plan, machine_line(seen.host, known), verbose=False))
    if to_install(seen):
        from gpu_setup.commands.apply import before_training

        installed = before_training(machine, seen.host, seen.plan, yes=yes, as_json=as_json)
        if installed is not None and installed.exit_code:
            return installed
        if installed is not None:
            seen = inspect(machine, known)
    if not as_json:
        _say("Prove", f"on the stack {seen.choice.stack.name}: {seen.choice.because}\n")
    job = choose(
        seen,
        recipe_name,
        data.absolute() if data else None,
        lambda question: yes or _asked(question),
        paths.models,
        tell=lambda why: None if as_json else _say("Recipe", why),
    )
    with reporter(as_json) as emit:
        job, runner, environment = runtime.ready(job, seen.host, machine, paths, emit)
        report = prove(job, seen, known, runner, paths, fresh, emit, environment)
    code = BAD_ANSWER if report.verdict == "fail" else FINE
    path = keep_report(report, Answer("report", report, code, str), out)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n        {path.with_name('report.html')}\n"

    return Answer("report", report, code, text)


def _say(stage: str, text: str) -> None:
    click.secho(f"── {stage} ", err=True, bold=True)
    click.echo(text, err=True)


def _asked(question: str) -> bool:
    """Ask on the terminal; where nobody can answer, the answer is no and --yes is named."""
    import sys

    from machine.errors import Refused

    if not sys.stdin.isatty():
        raise Refused(
            "up.no-terminal", f"A question needs an answer: {question}", "There is no terminal.", "Use --yes."
        )
    return click.confirm(question, default=True, err=True)
