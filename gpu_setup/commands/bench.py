"""`gpu-setup bench`: how fast does this machine train?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import Number, Whole, json_option, options_into
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

if TYPE_CHECKING:
    from harness.measure.run_context import Mode
    from harness.measure.workload import WorkloadKind

EPILOG = """\b
Examples:
  gpu-setup bench                                 with the recipe that fits this machine, 90 s of steps
  gpu-setup bench --quick                         documents of one exact length, 5 minutes at most, not soaked
  gpu-setup bench --record                        soaked, three launches with a seed each: a figure to publish
  gpu-setup bench --recipe smollm2-135m-qlora --out results/
  gpu-setup bench --steps 20 --json > report.json
  gpu-setup bench --baseline last-week.json       exit status 1 if it is slower than noise explains
  gpu-setup bench --tune 30                       the fastest recipe that computes the same thing, within 30 minutes

\b
Exit codes: 0 measured, or inconclusive; 1 the training or its 4-bit products are wrong, slower than the baseline, or
the data is bad (--strict: or inconclusive); 2 recipe unknown or broken; 3 needs a GPU, or another program computes on
it; 4 the training environment or process failed.
"""


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    recipe_name: str | None
    data: Path | None
    out: Path | None
    quick: bool
    record: bool
    workload: WorkloadKind | None
    launches: int | None
    steps: int | None
    seed: int | None
    baseline: Path | None
    tune: float | None
    strict: bool
    runtime: Runtime


@click.command(epilog=EPILOG)
@json_option
@recipe_option
@data_option
@out_option
@click.option("--quick", is_flag=True, help="Reference workload, one launch, 5 minutes at most; labelled “not soaked”.")
@click.option("--record", is_flag=True, help="Reference workload, heat settled first, 3 launches with a seed each.")
@click.option(
    "--workload",
    type=click.Choice(["exact", "packed", "recipe"]),
    help="Documents of one exact length; the recipe's data, packed; or the recipe's data as it is.",
)
@click.option("--launches", type=Whole(1, 99), metavar="N", help="Process launches; --record: at least 3.")
@click.option("--steps", type=Whole(min=1), metavar="N", help="Train N steps, without a time limit.")
@click.option("--seed", type=Whole(min=0), metavar="N", help="Use this seed instead of the recipe's.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with this report; exit with status 1 if this run is slower by more than the noise.",
)
@click.option(
    "--tune",
    type=Number(min=1),
    is_flag=False,
    flag_value=20.0,
    default=None,
    metavar="[MINUTES]",
    help="Search for a faster recipe with the same result, for MINUTES (20); continues where it was stopped.",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if the result is inconclusive.")
@runtime_options
@options_into(BenchOptions)
def command(options: BenchOptions) -> Answer:
    """Measure how fast this machine trains.

    Tokens/s in three counts with their interval, the share of the card's peak and of its measured ceiling, memory,
    energy, temperature.
    """
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from gpu_setup.report_files import keep_report, make_out
    from harness.jobs.bench import bench, bench_settings
    from harness.jobs.job_choice import JobRequest, choose_job
    from harness.jobs.workplace import choose_workplace
    from harness.pipeline import Workplace, prepare, report_run
    from harness.report.baseline import is_bad, with_baseline
    from harness.report.compare import work_and_conditions
    from harness.report.run_report import combine_launches, read_report
    from machine.errors import BAD_ANSWER, FINE, Refused
    from machine.local import LocalMachine

    _refuse_contradictions(options)
    make_out(options.out)
    if options.tune is not None:
        return _tune(options, options.tune)
    earlier = read_report(options.baseline) if options.baseline is not None else None
    if earlier is not None:
        work_and_conditions(earlier, "The baseline")
    machine, paths, known = LocalMachine(), my_paths(), catalogue()
    host = read_host(machine)
    changes = {"max_steps": options.steps, "seed": options.seed}
    overrides = {key: value for key, value in changes.items() if value is not None}
    job = choose_job(host, known, JobRequest(options.recipe_name, options.data, overrides), paths.models)
    mode: Mode = "record" if options.record else "quick" if options.quick else "bench"
    chosen = bench_settings(mode, job.stack.vendor != "cpu", options.workload, options.steps, options.launches or 0)
    settle_unverified(job.stack, options.runtime, machine, paths)
    with reporter(options.as_json) as emit:
        job, place = choose_workplace(job, host, known, options.runtime, Workplace(machine, paths, emit))
        ready = prepare(job, *place)
        done = bench(job, ready, chosen, host, place)
    report = combine_launches(tuple(report_run(each.job, each.setup, each.folder, host, known, None) for each in done))
    if earlier is not None:
        # kept before it is compared with anything: a baseline of other work must not cost the measurement
        kept = keep_report(report, options.out)
        try:
            report = with_baseline(report, earlier)
        except Refused as problem:
            problem.next = f"{problem.next} The new report is kept: {kept}"
            raise
    code = BAD_ANSWER if is_bad(report, options.strict) else FINE
    path = keep_report(report, options.out, code)

    def text() -> str:
        from gpu_setup.render.report import report_text

        return f"{report_text(report)}\nReport: {path}\n"

    return Answer("report", report, code, text)


def _refuse_contradictions(options: BenchOptions) -> None:
    exact = options.quick or options.record
    if options.quick and options.record:
        raise click.UsageError("--quick and --record exclude each other.")
    if options.data is not None and (options.workload or ("exact" if exact else "recipe")) == "exact":
        raise click.UsageError("--data is not read with exact documents; add --workload recipe.")
    others = (exact, options.workload, options.launches, options.steps, options.baseline)
    if options.tune is not None and any(others):
        raise click.UsageError(
            "--tune measures in its own way: only --recipe, --data, --seed, --out and --runtime work with it."
        )


def _tune(options: BenchOptions, minutes: float) -> Answer:
    """Tries within the time, and the tuned recipe; a copy of it and of the document in --out."""
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.envelope import encode
    from gpu_setup.portable import portable
    from gpu_setup.render.progress import reporter
    from harness.atomic_files import write_atomic
    from harness.jobs.job_choice import JobRequest, choose_job
    from harness.jobs.tune_run import tune, tune_settings
    from harness.jobs.workplace import choose_workplace
    from harness.pipeline import Workplace, prepare
    from machine.errors import FINE
    from machine.local import LocalMachine

    machine, paths, known = LocalMachine(), my_paths(), catalogue()
    host = read_host(machine)
    seed = {"seed": options.seed} if options.seed is not None else {}
    job = choose_job(host, known, JobRequest(options.recipe_name, options.data, seed), paths.models)
    settle_unverified(job.stack, options.runtime, machine, paths)
    with reporter(options.as_json) as emit:
        job, place = choose_workplace(job, host, known, options.runtime, Workplace(machine, paths, emit))
        ready = prepare(job, *place)
        found = tune(job, ready, tune_settings(job, ready, host, known, minutes), place.machine, place.paths, emit)

    def text() -> str:
        from gpu_setup.render.tune import tune_text

        return tune_text(found)

    answer = Answer("tune", found, FINE, text)
    if options.out is not None:
        write_atomic(options.out / "tune.json", encode(answer._replace(data=portable(found))))
        if found.recipe is not None:
            write_atomic(options.out / Path(found.recipe).name, Path(found.recipe).read_text(encoding="utf-8"))
    return answer
