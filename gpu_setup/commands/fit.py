"""`gpu-setup fit`: does a training job fit on a card, part by part, and what is the largest that does."""

from __future__ import annotations

import click

from gpu_setup.commands.options import Number, Whole, json_option, machine_option, open_machine
from gpu_setup.commands.training_options import recipe_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup fit                                     the reference recipe on this machine's card
  gpu-setup fit --card "RX 7900 XT"                 on a card that you consider buying
  gpu-setup fit --card "RTX 3090" --seq 4096 --batch 4
  gpu-setup fit --method full --model Llama-3.1-8B  without a card: how much memory it needs
  gpu-setup fit --model ./my-model/config.json      a model by its own config

\b
Exit codes: 0 it fits (or there is no card to compare with); 1 it does not.
"""


def _complete_card(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from checks.catalogue import catalogue

    start, known = incomplete.lower(), catalogue()
    rows = [card.name for card in known.cards if card.vram_gb]
    return [name for name in (*rows, *(name for row in known.memory for name in row.names)) if start in name.lower()]


def _complete_model(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    from harness.recipe.shapes import known_models

    return [name for name in known_models() if incomplete.lower() in name.lower()]


@click.command(epilog=EPILOG)
@json_option
@machine_option
@click.option(
    "--card", metavar="NAME", shell_complete=_complete_card, help="Predict for this card. Default: this machine's."
)
@click.option("--vram", type=Number(1, 2048), metavar="GIB", help="The card's memory, where it is not known.")
@recipe_option
@click.option("--method", type=click.Choice(["full", "lora", "qlora"]), help="Training method. Default: the recipe's.")
@click.option("--seq", type=Whole(1, 2**20), metavar="N", help="Sequence length (tokens).")
@click.option("--batch", type=Whole(1, 4096), metavar="N", help="Micro-batch size.")
@click.option(
    "--model",
    metavar="NAME|CONFIG.json",
    shell_complete=_complete_model,
    help="Use this model instead of the recipe's: a name, or its config.json.",
)
@click.option("--rank", type=Whole(1, 4096), metavar="N", help="Rank of the adapter.")
@click.option("--optimizer", metavar="NAME", help="Optimizer, as Axolotl names it, such as adamw_bnb_8bit.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Precision.")
@click.option("--checkpointing/--no-checkpointing", default=None, help="Use gradient checkpointing.")
@click.option("--packing/--no-packing", default=None, help="Pack several samples into one sequence.")
def command(
    as_json: bool,
    recording: str | None,
    card: str | None,
    vram: float | None,
    recipe_name: str | None,
    **changes: object,
) -> Answer:
    """Predict whether a training job fits on a card: memory part by part, and the largest batch and sequence that fit.

    Calculated from the model's shapes; docs/concepts/fit.md compares it with published measurements.
    """
    import msgspec

    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from checks.rules.cards import name, training
    from harness.jobs.default_recipe import REFERENCE
    from harness.memory.available import available_memory, find_card
    from harness.memory.fit import FitOptions, predict_fit
    from harness.recipe.loader import load_recipe
    from machine.errors import BAD_ANSWER, FINE, BadUsage

    recipe = load_recipe(recipe_name or REFERENCE)
    if card is not None:
        find_card(card, catalogue(), vram)
    host = read_host(open_machine(recording))
    room = available_memory(card, host, catalogue(), vram)
    if room is None and (ours := training(host, catalogue())):
        raise BadUsage(
            "fit.memory",
            f"The memory size of {', '.join(name(each, catalogue()) for each in ours)} is not known.",
            "No driver reports it, and no table here has it.",
            "gpu-setup fit --vram GIB",
        )
    answer = predict_fit(recipe, msgspec.convert(changes, FitOptions), room)

    def text() -> str:
        from gpu_setup.render.fit import fit_text

        return fit_text(answer)

    return Answer("fit", answer, BAD_ANSWER if answer.fits is False else FINE, text)
