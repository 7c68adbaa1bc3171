"""`gpu-setup train`: the same recipe on your own data, kept so that nothing is lost."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import json_option
from gpu_setup.commands.training_options import (
    Runtime,
    choose_job,
    keep_report,
    my_paths,
    recipe_option,
    runtime_options,
)
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from checks.facts.host import Host
    from harness.jobs.train import Asked, Trained, Wish
    from harness.pipeline import Job, Ready
    from machine.events import Emit
    from machine.local import Machine
    from machine.paths import Paths

EPILOG = """\b
Examples:
  gpu-setup train mine.json                         with the recipe that fits this machine
  gpu-setup train mine.json --recipe smollm2-135m-qlora --out my-model
  gpu-setup train mine.json --epochs 3 --merge      and a plain model folder at the end
  gpu-setup train mine.json --background            lives on after logout, keeps the machine awake
  gpu-setup train --resume my-model                 go on after a break; so does the first command, run again

\b
Ctrl-C finishes the step, makes a checkpoint and stops; Ctrl-C once more stops at once.
Exit codes: 0 trained; 1 bad data, does not fit, or the loss was not finite; 2 recipe unknown or broken; 3 refused;
4 the training failed: what is kept is said; 130 stopped by you.
"""


@click.command(epilog=EPILOG)
@json_option
@click.argument("data", metavar="DATA", required=False, type=click.Path(path_type=Path))
@recipe_option
@click.option(
    "--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="The run's folder, new or of the same training. Default: one of its own in the state folder.",
)  # fmt: skip
@click.option(
    "--resume", metavar="RUN_DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Go on with this training as it was asked for; DATA and recipe are known.",
)  # fmt: skip
@click.option("--fresh", is_flag=True, help="Start anew where the same training was cut off.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Passes over the data.")
@click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps, instead of passes.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Another seed than the recipe's.")
@click.option(
    "--patience", type=click.IntRange(min=0), default=3, metavar="N",
    help="Stop after N evaluations without a lower held-out loss, and keep the best weights (3; 0: train to the end "
    "and keep the last).",
)  # fmt: skip
@click.option(
    "--save-steps", type=click.IntRange(min=1), metavar="N",
    help="Evaluate and make a checkpoint every N steps. Default: five times a pass, ten times at most.",
)  # fmt: skip
@click.option(
    "--save-minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, metavar="N",
    help="A checkpoint at least every N minutes (10).",
)  # fmt: skip
@click.option(
    "--hung-after", type=click.FloatRange(min=1), metavar="SECONDS",
    help="End a step that takes longer. Default: 60 times the others, at least 15 minutes.",
)  # fmt: skip
@click.option("--accept-data", is_flag=True, help="Train although the data check finds errors.")
@click.option("--accept-memory", is_flag=True, help="Train although the card's memory is predicted to be too small.")
@click.option("--examine/--no-examine", default=True, help="Ask the model before and after at the end.")
@click.option("--merge", "with_merge", is_flag=True, help="Also write a plain model folder: RUN_DIR/merged.")
@click.option("--background", is_flag=True, help="Train as a unit of systemd's, and return at once.")
@click.option(
    "--awake/--no-awake", default=None,
    help="Keep the machine from suspending meanwhile. Default: with --background.",
)  # fmt: skip
@runtime_options
def command(
    as_json: bool,
    data: Path | None,
    recipe_name: str | None,
    out: Path | None,
    resume: Path | None,
    fresh: bool,
    epochs: float | None,
    steps: int | None,
    seed: int | None,
    patience: int,
    save_steps: int | None,
    save_minutes: float,
    hung_after: float | None,
    accept_data: bool,
    accept_memory: bool,
    examine: bool,
    with_merge: bool,
    background: bool,
    awake: bool | None,
    runtime: Runtime,
) -> Answer:
    """Train on your own Alpaca DATA with a recipe.

    The data are checked first, a tenth of them is held out, checkpoints are made on the way, and a run that was cut
    off is gone on with by the same command: with the same result as if it had not been cut.
    """
    from checks.facts.read import read_host
    from gpu_setup.render.progress import reporter
    from harness.jobs.train import Wish
    from harness.training.background import kept_awake
    from machine.local import LocalMachine

    if (data is None) == (resume is None):
        raise click.UsageError("Give DATA, or --resume RUN_DIR.")
    machine, paths = LocalMachine(), my_paths()
    wish = Wish(epochs, steps, seed, save_steps, patience, 60 * save_minutes, hung_after)
    host = read_host(machine)
    with reporter(as_json) as emit:
        asked, job = _asked(host, data, recipe_name, resume, wish, accept_data, emit)
        _check_room(asked, job, host, accept_memory, emit)
        if background:
            return _in_background(asked, job, resume or out, awake is not False, paths, machine)
        with kept_awake(bool(awake), machine, emit):
            return _train(asked, job, host, resume or out, fresh, examine, with_merge, runtime, machine, paths, emit)


def _asked(
    host: Host,
    data: Path | None,
    recipe_name: str | None,
    resume: Path | None,
    wish: Wish,
    accept_data: bool,
    emit: Emit,
) -> tuple[Asked, Job]:
    """What is to be trained: from the options, or from the run that is gone on with."""
    from harness.jobs.default_recipe import SMALL
    from harness.jobs.train import asked_for, checked_data, read_asked
    from machine.errors import BadUsage, Refused

    if resume is not None:
        before = read_asked(resume)
        job, _ = choose_job(host, before.recipe, Path(before.data))
        digest, _ = checked_data(Path(before.data), True, emit)
        if digest != before.data_digest:
            raise BadUsage(
                "train.data-changed",
                f"{before.data} was changed since the training in {resume} began.",
                "Half of it would be trained on the old rows, half on the new.",
                f"Bring the old file back, or start anew: gpu-setup train {before.data}",
            )
        return before, job
    assert data is not None
    job, _ = choose_job(host, recipe_name, data)
    if job.recipe.traits.throughput_only:
        raise Refused(
            "train.throughput-only",
            f"The recipe {job.recipe.name} has drawn weights: it measures speed, and learns nothing.",
            "",
            f"Take the recipe with the real weights, for example --recipe {SMALL}.",
        )
    digest, rows = checked_data(data, accept_data, emit)
    return asked_for(job, wish, recipe_name or job.recipe.name, digest, rows), job


def _check_room(asked: Asked, job: Job, host: Host, accept: bool, emit: Emit) -> None:
    """On a card, whether the job fits into what is free there."""
    if job.stack.vendor == "cpu":
        return
    from checks.catalogue import catalogue
    from harness.jobs.train import refuse_too_large
    from harness.memory.available import room_for

    refuse_too_large(job.recipe, asked.overrides, room_for(None, host, catalogue()), accept, emit)


def _train(
    asked: Asked,
    job: Job,
    host: Host,
    out: Path | None,
    fresh: bool,
    examine: bool,
    with_merge: bool,
    runtime: Runtime,
    machine: Machine,
    paths: Paths,
    emit: Emit,
) -> Answer:
    from harness.jobs.train import place_for, run_training, trained, with_work
    from harness.pipeline import examined, prepare
    from machine.errors import FINE

    out = out.absolute() if out is not None else None
    job, runner, environment = runtime.ready(job, host, machine, paths, emit, writable=(out,) if out else ())
    ready = prepare(job, runner, paths, emit, environment)
    asked = with_work(asked, ready)
    folder = place_for(asked, job, out, fresh, paths.runs)
    run, log = run_training(asked, job, ready, folder, runner, emit)
    examination = examined(job, ready, folder, runner, emit) if examine else None
    result = trained(asked, run, log, str(job.recipe.config["base_model"]), folder, examination)
    result = _finish(result, job, ready, host, folder, with_merge, runner, emit)
    if examination is not None:
        from checks.catalogue import catalogue
        from harness.pipeline import reported

        report = reported(job, ready, folder, host, catalogue(), examination)
        keep_report(report, Answer("report", report, FINE, str), None)

    def text() -> str:
        from gpu_setup.render.train import trained_text

        return trained_text(result)

    return Answer("train", result, FINE, text)


def _finish(
    result: Trained, job: Job, ready: Ready, host: Host, folder: Path, with_merge: bool, machine: Machine, emit: Emit
) -> Trained:
    """The model's card, and the merged model where it is wanted."""
    from gpu_setup.version import version
    from harness.jobs.merge import merge
    from harness.jobs.model_card import base_of, card, name_base, write_card
    from harness.process.worker_log import read_worker_log
    from harness.training.launch import read_run

    run, log = read_run(folder), read_worker_log(folder / "worker.jsonl")
    assert log is not None
    base = base_of(job.recipe, ready.base_model)
    with suppress(FileNotFoundError):
        # Axolotl's own log names folders of this machine, and the adapter is made to be passed on
        os.replace(folder / "adapter" / "debug.log", folder / "axolotl-debug.log")
    if (folder / "adapter" / "adapter_config.json").exists():
        name_base(folder / "adapter", base, job.recipe)
    write_card(folder / "adapter", card(job.recipe, run, log, result, base, version(), merged=False))
    target = folder / "merged"
    if not with_merge:
        return result
    if not target.exists():
        merge(run, folder, target, "bfloat16", ready.environment, machine, emit)
        write_card(target, card(job.recipe, run, log, result, base, version(), merged=True))
    return msgspec.structs.replace(result, merged=str(target))


def _in_background(asked: Asked, job: Job, out: Path | None, awake: bool, paths: Paths, machine: Machine) -> Answer:
    """Start the same command without --background as a unit. Its folder is known beforehand."""
    from harness.jobs.train import Trained
    from harness.training.background import start
    from harness.training.launch import new_folder
    from machine.errors import FINE

    given = [
        word for word in sys.argv[sys.argv.index("train") + 1 :] if word not in ("--background", "--json", "--awake")
    ]
    folder = out.absolute() if out is not None else new_folder(paths.runs, job.recipe)
    if out is None:
        given += ["--out", str(folder)]
    main = Path(__file__).resolve().parent.parent / "__main__.py"
    name = f"gpu-setup-train-{folder.name}-{os.getpid()}"
    words = [sys.executable, "-I", str(main), "train", *given, "--no-awake"]
    unit, notes = start(name, words, str(folder), machine, os.geteuid(), awake, os.environ)
    base_model = str(job.recipe.config["base_model"])
    result = Trained(
        job.recipe.name, base_model, "started", str(folder), asked.data_digest, asked.rows, background=unit, notes=notes
    )

    def text() -> str:
        from gpu_setup.render.train import trained_text

        return trained_text(result)

    return Answer("train", result, FINE, text)
