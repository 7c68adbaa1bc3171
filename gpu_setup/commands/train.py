"""`gpu-setup train`: the same recipe on your own data; nothing is lost when it is interrupted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import Number, Whole, json_option, options_into
from gpu_setup.commands.training_options import my_paths, recipe_option, runtime_options, settle_unverified
from gpu_setup.envelope import Answer
from harness.environment.runtime import Runtime

if TYPE_CHECKING:
    from checks.facts.host import Host
    from harness.jobs.train import TrainingResult, TrainingSpec
    from harness.pipeline import Job, Workplace

EPILOG = """\b
Examples:
  gpu-setup train mine.json                         with the recipe that fits this machine
  gpu-setup train mine.json --recipe smollm2-135m-qlora --out my-model
  gpu-setup train mine.json --epochs 3 --merge      and write a plain model folder at the end
  gpu-setup train mine.json --background            continues after logout, prevents suspend
  gpu-setup train --resume my-model                 resume an interrupted run; so does the first command, run again

\b
Ctrl-C finishes the step, makes a checkpoint and stops; a second Ctrl-C stops at once.
Exit codes: 0 trained; 1 bad data, does not fit, or the loss was not finite; 2 recipe unknown or broken; 3 refused;
4 training failed (the message names what was saved); 130 stopped by you.
"""


class TrainOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    data: Path | None
    recipe_name: str | None
    out: Path | None
    resume: Path | None
    fresh: bool
    epochs: float | None
    steps: int | None
    seed: int | None
    patience: int
    save_steps: int | None
    save_minutes: float
    hung_after: float | None
    accept_data: bool
    accept_memory: bool
    examine: bool
    merge: bool
    background: bool
    awake: bool | None
    runtime: Runtime


@click.command(epilog=EPILOG)
@json_option
@click.argument("data", metavar="DATA", required=False, type=click.Path(path_type=Path))
@recipe_option
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="The run's folder: new, or that of the same training. Default: a new one in the state folder.",
)  # fmt: skip
@click.option(
    "--resume", metavar="RUN_DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Resume this training with its own DATA, recipe and options.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Start again instead of resuming an interrupted run of the same training.")
@click.option("--epochs", type=Number(min=0, min_open=True), metavar="N", help="Passes over the data.")
@click.option("--steps", type=Whole(min=1), metavar="N", help="Steps, instead of passes.")
@click.option("--seed", type=Whole(min=0), metavar="N", help="Use this seed instead of the recipe's.")
@click.option(
    "--patience", type=Whole(min=0), default=3, metavar="N",
    help="Stop after N evaluations without a lower held-out loss, and keep the best weights (3; 0: train to the end "
    "and keep the last).",
)  # fmt: skip
@click.option(
    "--save-steps", type=Whole(min=1), metavar="N",
    help="Evaluate and make a checkpoint every N steps. Default: five times a pass, at most ten times.",
)  # fmt: skip
@click.option(
    "--save-minutes", type=Number(min=0, min_open=True), default=10.0, metavar="N",
    help="Make a checkpoint at least every N minutes (10).",
)  # fmt: skip
@click.option(
    "--hung-after", type=Number(min=1), metavar="SECONDS",
    help="Abort if a step takes longer than SECONDS. Default: 60 times the median step, at least 15 minutes.",
)  # fmt: skip
@click.option("--accept-data", is_flag=True, help="Train although the data check finds errors.")
@click.option("--accept-memory", is_flag=True, help="Train although the card's memory is predicted to be too small.")
@click.option(
    "--examine/--no-examine", default=True, help="At the end, ask the base model and the trained model the same."
)
@click.option("--merge", is_flag=True, help="Also write a plain model folder: RUN_DIR/merged.")
@click.option("--background", is_flag=True, help="Run as a systemd service, and return at once.")
@click.option(
    "--awake/--no-awake", default=None,
    help="Prevent suspend during the training. Default: with --background.",
)  # fmt: skip
@runtime_options
@options_into(TrainOptions)
def command(options: TrainOptions) -> Answer:
    """Train a recipe on your own Alpaca DATA.

    The data are checked first, a tenth of them is held out, and checkpoints are made on the way. Run the same command
    again to resume an interrupted run: the result is the same as without the interruption.
    """
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.jobs.own_data import TrainRequest, plan_training
    from harness.jobs.train import TrainingSettings, refuse_taken
    from harness.pipeline import Workplace
    from harness.training.background import keep_awake
    from machine.local import LocalMachine

    if (options.data is None) == (options.resume is None):
        raise click.UsageError("Give DATA, or --resume RUN_DIR.")
    if options.out is not None and options.resume is None:
        refuse_taken(Path(os.path.realpath(options.out)), options.fresh)
    machine, paths = LocalMachine(), my_paths()
    settings = TrainingSettings(
        options.epochs, options.steps, options.seed, options.save_steps, options.patience, 60 * options.save_minutes,
        options.hung_after,
    )  # fmt: skip
    request = TrainRequest(
        options.data, options.resume, options.recipe_name, settings, options.accept_data, options.accept_memory
    )
    host = read_host(machine)
    with reporter(options.as_json) as emit:
        spec, job = plan_training(request, host, catalogue(), paths.models, emit)
    settle_unverified(job.stack, options.runtime, machine, paths)
    with reporter(options.as_json) as emit:
        here = Workplace(machine, paths, emit)
        if options.background:
            return _start_in_background(options, spec, job, here)
        with keep_awake(bool(options.awake), machine, emit):
            return _train(options, spec, job, host, here)


def _train(options: TrainOptions, spec: TrainingSpec, job: Job, host: Host, here: Workplace) -> Answer:
    from checks.catalogue import catalogue
    from gpu_setup.report_files import keep_report
    from gpu_setup.version import version
    from harness.jobs.own_data import with_merged, write_adapter_card
    from harness.jobs.train import choose_run_folder, run_training, training_result, with_work_digest
    from harness.jobs.workplace import choose_workplace
    from harness.pipeline import examine_run, prepare, report_run

    chosen = options.resume or options.out
    out = Path(os.path.realpath(chosen)) if chosen is not None else None
    job, place = choose_workplace(job, host, catalogue(), options.runtime, here, (out,) if out else ())
    ready = prepare(job, *place)
    spec = with_work_digest(spec, ready)
    folder = choose_run_folder(spec, job, out, options.fresh, place.paths.runs, place.paths.owner)
    run = run_training(spec, job, ready, folder, place.machine, place.emit)
    examination = examine_run(job, ready, folder, place.machine, place.emit) if options.examine else None
    run = run._replace(examination=examination)
    result = training_result(spec, run)
    write_adapter_card(result, run, ready, version())
    if options.merge:
        result = with_merged(result, run, ready, place, version())
    if examination is not None:
        keep_report(report_run(job, ready, folder, host, catalogue(), examination), None)
    return _answer(result)


def _start_in_background(options: TrainOptions, spec: TrainingSpec, job: Job, here: Workplace) -> Answer:
    """Start the same command without --background as a unit, in a folder that is known beforehand."""
    from harness.jobs.train import TrainingResult
    from harness.training.background import start_unit
    from harness.training.launch import new_run_folder

    given = [
        word for word in sys.argv[sys.argv.index("train") + 1 :] if word not in ("--background", "--json", "--awake")
    ]
    chosen = options.resume or options.out
    folder = Path(os.path.realpath(chosen)) if chosen is not None else new_run_folder(here.paths.runs, job.recipe)
    if chosen is None:
        # only its name is needed here: the service makes it, for the user that the training runs as
        folder.rmdir()
        given += ["--out", str(folder)]
    main = Path(__file__).resolve().parent.parent / "__main__.py"
    name = f"gpu-setup-train-{folder.name}-{os.getpid()}"
    words = [sys.executable, "-I", str(main), "train", *given, "--no-awake"]
    unit, notes = start_unit(name, words, str(folder), here.machine, options.awake is not False, here.paths.state)
    base_model = str(job.recipe.config["base_model"])
    return _answer(
        TrainingResult(
            job.recipe.name, base_model, "started", str(folder), spec.data_digest, spec.rows, background=unit,
            notes=notes,
        )
    )  # fmt: skip


def _answer(result: TrainingResult) -> Answer:
    from machine.errors import FINE

    def text() -> str:
        from gpu_setup.render.train import trained_text

        return trained_text(result)

    return Answer("train", result, FINE, text)
