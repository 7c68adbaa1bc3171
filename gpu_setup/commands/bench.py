"""`gpu-setup bench`: how fast does this machine train?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import (
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

if TYPE_CHECKING:
    from harness.environment.build import Environment
    from harness.report.run_report import Report

EPILOG = """\b
Examples:
  gpu-setup bench                                 with the recipe that fits this machine, 90 s of steps
  gpu-setup bench --quick                         documents of one exact length, 5 minutes at most, not soaked
  gpu-setup bench --record                        soaked, three launches with a seed each: a figure to publish
  gpu-setup bench --recipe smollm2-135m-qlora --out results/
  gpu-setup bench --steps 20 --json > report.json
  gpu-setup bench --baseline last-week.json       end with 1 when it has become slower than noise explains
  gpu-setup bench --tune 30                       the fastest recipe that computes the same thing, within 30 minutes

\b
Exit codes: 0 measured, or inconclusive; 1 the training or its 4-bit products are wrong, slower than the baseline, or
the data is bad (--strict: or inconclusive); 2 recipe unknown or broken; 3 needs a GPU, or another program computes on
it; 4 the training environment or process failed.
"""


@click.command(epilog=EPILOG)
@json_option
@recipe_option
@data_option
@out_option
@runtime_options
@click.option("--quick", is_flag=True, help="Reference workload, one launch, 5 minutes at most; labelled “not soaked”.")
@click.option("--record", is_flag=True, help="Reference workload, heat settled first, 3 launches with a seed each.")
@click.option(
    "--workload",
    type=click.Choice(["exact", "packed", "recipe"]),
    help="Documents of one exact length, the recipe's data packed, or as the recipe has it.",
)
@click.option("--launches", type=click.IntRange(1, 99), metavar="N", help="Process launches; --record: 3 at least.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Train N steps, whatever the time.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Another seed than the recipe's.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A report to compare with: end with 1 when this one is slower by more than the noise.",
)
@click.option(
    "--tune",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=20.0,
    default=None,
    metavar="[MINUTES]",
    help="Try what may make the recipe faster with the same result, for so long (20); goes on where it was stopped.",
)
@click.option("--strict", is_flag=True, help="End with 1 when the result is inconclusive.")
def command(
    as_json: bool,
    recipe_name: str | None,
    data: Path | None,
    out: Path | None,
    quick: bool,
    record: bool,
    workload: str | None,
    launches: int | None,
    steps: int | None,
    seed: int | None,
    baseline: Path | None,
    tune: float | None,
    strict: bool,
    runtime: Runtime,
) -> Answer:
    """Measure how fast this machine trains.

    Tokens a second in three counts with their interval, the share of the card's peak and of its measured ceiling,
    memory, energy, heat.
    """
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.jobs.bench import bench, settings
    from harness.pipeline import prepare, reported
    from harness.report.compare import keyed
    from harness.report.run_report import combined, read_report
    from machine.errors import BAD_ANSWER, FINE, Refused
    from machine.local import LocalMachine

    if quick and record:
        raise click.UsageError("--quick and --record exclude each other.")
    if data is not None and (workload or ("exact" if quick or record else "recipe")) == "exact":
        raise click.UsageError("--data is not read with exact documents; add --workload recipe.")
    if tune is not None and (quick or record or workload or launches or steps or baseline):
        raise click.UsageError(
            "--tune measures in its own way: only --recipe, --data, --seed, --out and --runtime go with it."
        )
    check_out(out)
    if tune is not None:
        return _tuned(as_json, recipe_name, data, out, seed, tune, runtime)
    earlier = read_report(baseline) if baseline is not None else None
    if earlier is not None:
        keyed(earlier, "The baseline")
    machine, paths = LocalMachine(), my_paths()
    host = read_host(machine)
    overrides = {key: value for key, value in {"max_steps": steps, "seed": seed}.items() if value is not None}
    job, _ = choose_job(host, recipe_name, data, overrides)
    mode = "record" if record else "quick" if quick else "bench"
    chosen = settings(mode, job.stack.vendor != "cpu", workload, steps, launches or 0)
    with reporter(as_json) as emit:
        job, runner, environment = runtime.ready(job, host, machine, paths, emit)
        ready = prepare(job, runner, paths, emit, environment)
        done = bench(job, ready, chosen, host, runner, paths, emit)
    report = combined(tuple(reported(each.job, each.ready, each.folder, host, catalogue(), None) for each in done))
    if earlier is not None:
        # kept before it is held against anything: a baseline of other work must not cost the measurement
        kept = keep_report(report, Answer("report", report, FINE, str), out)
        try:
            report = beside(report, earlier)
        except Refused as problem:
            problem.next = f"{problem.next} The new report is kept: {kept}"
            raise
    code = BAD_ANSWER if is_bad(report, strict) else FINE
    path = keep_report(report, Answer("report", report, code, str), out)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n"

    return Answer("report", report, code, text)


def _tuned(
    as_json: bool,
    recipe_name: str | None,
    data: Path | None,
    out: Path | None,
    seed: int | None,
    minutes: float,
    runtime: Runtime,
) -> Answer:
    """`--tune`: tries within the time, and the tuned recipe; a copy of it and of the document in `out`."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.envelope import encode
    from gpu_setup.render.progress import reporter
    from harness.atomic_files import write_whole
    from harness.jobs.tune_run import room_of, tune
    from harness.memory.available import room_for
    from harness.pipeline import prepare
    from machine.errors import FINE
    from machine.local import LocalMachine

    machine, paths = LocalMachine(), my_paths()
    host = read_host(machine)
    job, _ = choose_job(host, recipe_name, data, {"seed": seed} if seed is not None else {})
    gpu = job.stack.vendor != "cpu"
    card = room_for(None, host, catalogue()) if gpu else None
    with reporter(as_json) as emit:
        job, runner, environment = runtime.ready(job, host, machine, paths, emit)
        ready = prepare(job, runner, paths, emit, environment)
        where = card.card if card else "the processor"
        room = room_of(host, card.bytes if card else None) if card or not gpu else None
        found = tune(job, ready, minutes, room, packages_beside(ready.environment), where, runner, paths, emit)
    answer = Answer("tune", found, FINE, str)
    if out is not None:
        write_whole(out / "tune.json", encode(answer))
        if found.recipe is not None:
            write_whole(out / Path(found.recipe).name, Path(found.recipe).read_text(encoding="utf-8"))

    def text() -> str:
        from gpu_setup.render.tune import tune_text

        return tune_text(found)

    return Answer("tune", found, FINE, text)


def packages_beside(environment: Environment) -> frozenset[str]:
    """What may serve beside Axolotl's own requirements: attention and loss kernels."""
    wanted = ("cut_cross_entropy", "flash_attn", "liger_kernel")
    return frozenset(name for name in wanted if any(Path(environment.folder).glob(f"lib/python*/site-packages/{name}")))


def beside(report: Report, earlier: Report) -> Report:
    """The report with what became of its speed since an earlier one."""
    import msgspec

    from harness.report.baseline import against_baseline
    from harness.report.run_report import AgainstBaseline

    found = against_baseline(report, earlier)
    told = AgainstBaseline(found.verdict, found.share, found.sentence, found.started_at)
    return msgspec.structs.replace(report, baseline=told)


def is_bad(report: Report, strict: bool) -> bool:
    against = report.baseline.verdict if report.baseline else "same"
    return (
        report.verdict == "fail" or against == "regression" or (strict and "inconclusive" in (report.verdict, against))
    )
