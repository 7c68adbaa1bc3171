"""`gpu-setup try`: the answers of the base model and of the trained one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_setup.commands.options import Whole, json_option
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from harness.environment.build import Environment
    from harness.training.launch import RunRecord
    from machine.events import Emit
    from machine.local import Machine
    from machine.paths import Paths

EPILOG = """\b
Examples:
  gpu-setup try RUN_DIR                              the recipe's held-out questions
  gpu-setup try RUN_DIR --prompt "How do I oil a chain?"

\b
Exit codes: 0 answered; 2 not a finished run; 4 the training environment failed.
"""


@click.command(epilog=EPILOG)
@json_option
@click.argument("run", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option(
    "--prompt", "prompts", multiple=True, metavar="TEXT", help="Ask this instead of the recipe's questions; repeatable."
)
@click.option(
    "--tokens",
    type=Whole(min=1, max=2048),
    default=96,
    metavar="N",
    help="Maximum length of an answer in tokens (96).",
)
def command(as_json: bool, run: Path, prompts: tuple[str, ...], tokens: int) -> Answer:
    """Ask the base model and the trained model the same questions, side by side. RUN_DIR is the folder of a run."""
    from gpu_setup.commands.training_options import my_paths
    from gpu_setup.render.progress import reporter
    from harness.environment.worker_process import WorkerContext
    from harness.training.examination import ExaminationSettings, examine, held_out_file
    from machine.errors import FINE
    from machine.local import LocalMachine

    run = run.absolute()
    made, machine = read_finished_run(run), LocalMachine()
    with reporter(as_json) as emit:
        environment = environment_of(made, run, machine, my_paths(), emit)
        held_out = None if prompts else held_out_file(made.traits, run, own_data=made.data is not None)
        wanted = ExaminationSettings(held_out, prompts, tokens, offline=made.traits.model != "hub")
        worker = WorkerContext(environment, machine, emit, made.device)
        said = examine(made.base_model, run, wanted, worker, run / "try.json")

    def text() -> str:
        from gpu_setup.render.train import tried_text

        return tried_text(said)

    return Answer("try", said, FINE, text)


def read_finished_run(run: Path) -> RunRecord:
    """The run in this folder; raises BadUsage where it has no finished adapter."""
    from harness.training.launch import read_run
    from machine.errors import BadUsage

    made = read_run(run)
    if made.status == "done":
        return made
    again = (
        f"gpu-setup train --resume {run}" if (run / "train.json").is_file() else f"gpu-setup up --recipe {made.recipe}"
    )
    raise BadUsage(
        "run.unfinished",
        f"The run {run} is {made.status}, so it has no finished adapter to ask.",
        "",
        f"Finish it: {again}; or show the newest finished run: gpu-setup report",
    )


def environment_of(made: RunRecord, run: Path, machine: Machine, paths: Paths, emit: Emit) -> Environment:
    """The environment of the stack that the run was made on; raises BadUsage where the catalogue does not have it."""
    from checks.catalogue import catalogue
    from harness.environment.build import ensure_environment
    from machine.errors import BadUsage

    stack = next((stack for stack in catalogue().stacks if stack.name == made.stack), None)
    if stack is None:
        raise BadUsage(
            "run.stack",
            f"The run {run} was made on the stack {made.stack}, which this gpu-setup does not know.",
            "",
            "Use the version of gpu-setup that made it.",
        )
    return ensure_environment(stack, machine, paths, emit)
