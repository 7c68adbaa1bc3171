"""What the training commands share: their options, the stack for this machine, and writing a report's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from gpu_setup.commands.options import Decorator

if TYPE_CHECKING:
    from checks.facts.host import Host
    from gpu_setup.envelope import Answer
    from harness.environment.build import Environment
    from harness.environment.stack_choice import Choice
    from harness.jobs.default_recipe import Chosen
    from harness.pipeline import Job
    from harness.recipe.loader import Recipe
    from harness.report.run_report import Report
    from machine.events import Emit
    from machine.local import Machine
    from machine.paths import Paths


def _complete_recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from harness.recipe.loader import names

    return [name for name in names() if name.startswith(incomplete)]


recipe_option: Decorator = click.option(
    "--recipe", "recipe_name", metavar="NAME", shell_complete=_complete_recipe,
    help="A shipped recipe, or a path to an Axolotl YAML. Default: the one that fits this machine.",
)  # fmt: skip
data_option: Decorator = click.option(
    "--data",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Your own Alpaca JSON in the recipe's place of data.",
)
out_option: Decorator = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write report.json and report.html here.",
)


def runtime_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--runtime, --image and --engine: where the training runs. They arrive as `runtime`, a `Runtime`."""
    from functools import wraps

    @wraps(function)
    def gathered(runtime: str, image_name: str | None, engine: str | None, **options: Any) -> Any:
        return function(runtime=Runtime(runtime, image_name, engine), **options)

    made: Callable[..., Any] = gathered
    for option in (
        click.option(
            "--engine", type=click.Choice(["docker", "podman"]), help="With --runtime image: which container engine."
        ),
        click.option(
            "--image", "image_name", metavar="NAME", help="With --runtime image: this one instead of the newest."
        ),
        click.option(
            "--runtime",
            type=click.Choice(["auto", "image", "venv"]),
            default="auto",
            help="Train in the image (gpu-setup image build) or in an environment of our own (auto, venv).",
        ),
    ):
        made = option(made)
    return made


class Runtime(NamedTuple):
    """Where a person wants the training to run: auto, image or venv; `image` and `engine` for an image."""

    kind: str = "auto"
    image: str | None = None
    engine: str | None = None

    def ready(
        self, job: Job, host: Host, machine: Machine, paths: Paths, emit: Emit, writable: tuple[Path, ...] = ()
    ) -> tuple[Job, Machine, Environment | None]:
        """The job, the machine to run it on, and the image's environment; None: `prepare` makes a venv.

        `writable`: a person's own folders that the training writes to, beside ours.
        """
        if self.kind != "image" and self.image is None:
            return job, machine, None
        from checks.catalogue import catalogue
        from containers.container_setup import Wanted
        from harness.jobs.image_runtime import image_runtime

        wanted = Wanted(image=self.image)
        return image_runtime(job, host, catalogue(), machine, paths, emit, os.environ, self.engine, wanted, writable)


def my_paths() -> Paths:
    from machine.paths import paths

    return paths(os.environ)


def usual_recipe(choice: Choice, models: Path, learns: bool, hub: Callable[[], bool] | None = None) -> Chosen:
    """The recipe for this machine when nobody names one. `hub`: does it answer? Only asked where it matters."""
    from harness.jobs.default_recipe import REFERENCE, at_hand, default_recipe, hub_reachable
    from harness.recipe.loader import load_recipe

    answers = hub or (lambda: hub_reachable(os.environ))
    model = choice.gpu and (at_hand(load_recipe(REFERENCE), models) or answers())
    return default_recipe(choice.gpu, choice.free, model, learns)


def choose_job(
    host: Host,
    recipe_name: str | None,
    data: Path | None,
    overrides: dict[str, Any] | None = None,
    learns: bool = False,
) -> tuple[Job, str]:
    """The job for this machine, and why its stack was chosen. A recipe that needs a GPU is refused without one.

    `learns`: the run is judged by what it learns. Without a name the recipe is the one for the card's free memory.
    """
    from checks.catalogue import catalogue
    from harness.environment.stack_choice import choose_stack
    from harness.pipeline import Job
    from harness.recipe.loader import load_recipe, suited_to

    choice = choose_stack(host, catalogue())
    recipe = load_recipe(recipe_name or usual_recipe(choice, my_paths().models, learns or data is not None).name)
    if recipe.traits.needs_gpu and not choice.gpu:
        raise needs_gpu(recipe, choice.because)
    own = data.absolute() if data else None
    changed = {**suited_to(recipe, choice.target), **(overrides or {})}
    return Job(recipe, choice.stack, own, changed, choice.device, choice.conditions), choice.because


def must_learn(recipe: Recipe) -> None:
    """Refuse a recipe of drawn weights where something is to be learnt."""
    from machine.errors import BadUsage

    if recipe.traits.throughput_only:
        raise BadUsage(
            "recipe.throughput-only",
            f"The recipe {recipe.name} learns nothing: its weights are drawn at random.",
            "It is there to measure how fast a card trains.",
            f"gpu-setup bench --recipe {recipe.name}",
        )


def needs_gpu(recipe: Recipe, because: str) -> Exception:
    from harness.jobs.default_recipe import SMALL
    from machine.errors import Refused

    return Refused(
        "recipe.needs-gpu",
        f"The recipe {recipe.name} needs a GPU, and none can be used here: {because}.",
        "A model of this size would train for weeks on a processor.",
        f"gpu-setup doctor says what keeps the card away; --recipe {SMALL} runs on any machine.",
    )


def check_out(out: Path | None) -> None:
    """Make the folder for the report's copies, so that a place that cannot be written is told before the training."""
    from machine.errors import OutsideFailed

    if out is None:
        return
    why = "The system says: Permission denied."
    try:
        out.mkdir(parents=True, exist_ok=True)
        if os.access(out, os.W_OK):
            return
    except OSError as error:
        why = f"The system says: {error.strerror or error}."
    raise OutsideFailed("paths.unwritable", f"The folder {out} cannot be written.", why, "Give another --out.")


def keep_report(report: Report, answer: Answer, out: Path | None) -> Path:
    """Write the run's report.json and report.html, and copies into `out`; returns the JSON's path."""
    import shutil

    from gpu_setup.envelope import encode
    from gpu_setup.render.page import report_page
    from gpu_setup.version import version
    from harness.atomic_files import disk_trouble
    from harness.measure.run_context import TELEMETRY
    from harness.measure.telemetry import read_telemetry
    from harness.process.worker_log import read_worker_log
    from harness.report.run_report import write_report

    folder, warmup = Path(report.folder), report.measurements.warmup_steps
    log = read_worker_log(folder / "worker.jsonl")
    dropped = report.recipe.warmup_steps if warmup is None else warmup
    page = report_page(report, log.steps if log else (), dropped, version(), read_telemetry(folder / TELEMETRY))
    path = write_report(report, encode(answer), page)
    if out is not None:
        with disk_trouble(out):
            for name in ("report.json", "report.html"):
                shutil.copyfile(path.with_name(name), out / name)
        path = out / "report.json"
    return path
