"""What the training commands share: their options, the stack for this machine, and writing a report's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpu_setup.commands.options import Decorator

if TYPE_CHECKING:
    from checks.facts.host import Host
    from gpu_setup.envelope import Answer
    from harness.prove import Job
    from harness.recipe import Recipe
    from harness.report import Report
    from machine.paths import Paths

DEFAULT_RECIPE = "smollm2-135m-qlora"
REFERENCE_RECIPE = "mistral-7b-qlora"


def _complete_recipe(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from harness.recipe import names

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


def my_paths() -> Paths:
    from machine.paths import paths

    return paths(os.environ)


def choose_job(
    host: Host, recipe_name: str | None, data: Path | None, overrides: dict[str, Any] | None = None
) -> tuple[Job, str]:
    """The job for this machine, and why its stack was chosen. A recipe that needs a GPU is refused without one."""
    from checks.catalogue import catalogue
    from harness.prove import Job
    from harness.recipe import load_recipe
    from harness.stack import choose_stack

    choice = choose_stack(host, catalogue())
    recipe = load_recipe(recipe_name or (REFERENCE_RECIPE if choice.gpu else DEFAULT_RECIPE))
    if recipe.traits.needs_gpu and not choice.gpu:
        raise needs_gpu(recipe, choice.because)
    return Job(recipe, choice.stack, data.absolute() if data else None, overrides or {}), choice.because


def needs_gpu(recipe: Recipe, because: str) -> Exception:
    from machine.errors import Refused

    return Refused(
        "recipe.needs-gpu",
        f"The recipe {recipe.name} needs a GPU, and none can be used here: {because}.",
        "A model of this size would train for weeks on a processor.",
        f"gpu-setup doctor says what keeps the card away; --recipe {DEFAULT_RECIPE} runs on any machine.",
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
    from harness.document import disk_trouble
    from harness.report import write_report
    from harness.worker_log import read_worker_log

    log = read_worker_log(Path(report.folder) / "worker.jsonl")
    page = report_page(report, log.steps if log else (), report.recipe.warmup_steps, version())
    path = write_report(report, encode(answer), page)
    if out is not None:
        with disk_trouble(out):
            for name in ("report.json", "report.html"):
                shutil.copyfile(path.with_name(name), out / name)
        path = out / "report.json"
    return path
