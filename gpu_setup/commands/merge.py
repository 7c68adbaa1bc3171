"""`gpu-setup merge`: a run's adapter and its base in one plain model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from harness.jobs.merge import MergeDtype

EPILOG = """\b
Examples:
  gpu-setup merge RUN_DIR --out my-model                     bfloat16: what most programs want
  gpu-setup merge RUN_DIR --out my-model --dtype float32     twice as large; the adapter's answers, word for word

\b
Exit codes: 0 written; 2 not a finished run; 3 the folder exists already; 4 the training environment failed.
"""


@click.command(epilog=EPILOG)
@json_option
@click.argument("run", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, metavar="DIR", type=click.Path(path_type=Path), help="The new model folder.")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True,
    help="Data type of the written weights.",
)  # fmt: skip
@click.option("--check/--no-check", default=True, help="Compare the merged model's answers with the adapter's.")
def command(as_json: bool, run: Path, out: Path, dtype: MergeDtype, check: bool) -> Answer:
    """Merge the adapter of RUN_DIR into its base model.

    The adapter is added to the base as it was in training (for QLoRA through NF4), so that the merged model gives the
    adapter's answers. Both are asked the same questions to verify that.
    """
    from gpu_setup.commands.training_options import my_paths
    from gpu_setup.commands.try_ import environment_of, read_finished_run
    from gpu_setup.render.progress import reporter
    from gpu_setup.version import version
    from harness.environment.worker_process import WorkerContext
    from harness.jobs.merge import compare_merged, merge
    from harness.jobs.model_card import model_card_text, write_card
    from harness.jobs.train import SPEC, read_spec, training_result
    from harness.process.worker_log import read_worker_log
    from harness.recipe.loader import load_recipe
    from harness.report.run_report import FinishedRun
    from harness.training.examination import DOCUMENT, read_examination
    from harness.training.portable_adapter import find_base_model
    from machine.errors import FINE
    from machine.local import LocalMachine

    run, out, machine = run.absolute(), out.absolute(), LocalMachine()
    made = read_finished_run(run)
    with reporter(as_json) as emit:
        environment = environment_of(made, run, machine, my_paths(), emit)
        worker = WorkerContext(environment, machine, emit, made.device)
        merge(made, run, out, dtype, worker)
        result = compare_merged(made, run, out, dtype, worker, check)
    log = read_worker_log(run / "worker.jsonl")
    if (run / SPEC).is_file() and log is not None:
        asked = read_spec(run)
        recipe = load_recipe(asked.recipe)
        said = read_examination(run / DOCUMENT) if (run / DOCUMENT).is_file() else None
        finished = FinishedRun(recipe, made, log, run, said)
        base = find_base_model(recipe, made.base_model)
        write_card(out, model_card_text(finished, training_result(asked, finished), base, version(), merged=True))

    def text() -> str:
        from gpu_setup.render.train import merged_text

        return merged_text(result)

    return Answer("merge", result, FINE, text)
