"""`gpu-setup data check`: everything that is wrong with a data file, worst first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import Decorator, json_option, options_into, refuse_inputs
from gpu_setup.commands.training_options import recipe_option
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from harness.dataset.findings import DataReport, TokenCounts
    from machine.events import Emit

EPILOG = """\b
Examples:
  gpu-setup data check mine.json                                 worst first, with row numbers
  gpu-setup data check mine.json --recipe smollm2-135m-qlora     also the token counts of the recipe's tokenizer
  gpu-setup data check train.json --held-out test.json           also rows that are in both files
  gpu-setup data check mine.json --html mine.html                a page with length histograms
  gpu-setup data check mine.json --sarif > data.sarif            for a code host's review page

\b
Exit codes: 0 no errors; 1 errors (with --strict also warnings); 2 file not found.
"""

languages_option: Decorator = click.option(
    "--language", "languages", metavar="CODES", default="",
    help="Expected languages, such as de,en. Default: those of at least 5 % of the answers.",
)  # fmt: skip
names_option: Decorator = click.option("--names/--no-names", default=True, help="Also search for personal names.")
file_argument: Decorator = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    as_sarif: bool
    page: Path | None
    table: Path | None
    held_out: Path | None
    recipe_name: str | None
    languages: str
    names: bool
    strict: bool
    file: Path


@click.command("check", epilog=EPILOG)
@json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0 on stdout, nothing else.")
@click.option(
    "--html", "page", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML page."
)
@click.option(
    "--csv",
    "table",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all rows that were found as a CSV table.",
)
@click.option(
    "--held-out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Report overlap (leakage) with this held-out file.",
)
@recipe_option
@languages_option
@names_option
@click.option("--strict", is_flag=True, help="Exit with status 1 on warnings too.")
@file_argument
@options_into(CheckOptions)
def check_command(options: CheckOptions) -> Answer:
    """Check FILE (Alpaca JSON or JSON Lines) and list what is wrong, worst first. Changes nothing."""
    from gpu_setup.render.progress import reporter
    from harness.dataset.check import CheckSettings, build_data_report, open_checked

    refuse_inputs([options.page, options.table], [options.file, options.held_out])
    wanted = CheckSettings(names=options.names, languages=language_codes(options.languages))
    quiet = options.as_json or options.as_sarif
    with reporter(quiet) as emit, open_checked(options.file, options.held_out, wanted, emit) as checked:
        result = build_data_report(checked)
        if options.recipe_name is not None:
            result = _with_tokens(result, checked, options.recipe_name, emit)
    if options.page is not None:
        from gpu_setup.render.data_page import data_page
        from gpu_setup.version import version

        _write(options.page, data_page(result, version()))
    if options.table is not None:
        from gpu_setup.render.data_table import data_table

        _write(options.table, data_table(result))
    return data_answer(result, options.strict, options.as_sarif)


def language_codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip() for code in text.split(",") if code.strip())


def data_answer(result: DataReport, strict: bool = False, as_sarif: bool = False) -> Answer:
    """The report as the command's answer: 1 when there are errors."""
    from machine.errors import BAD_ANSWER, FINE

    bad = {"error", "warning"} if strict else {"error"}
    code = BAD_ANSWER if any(finding.severity in bad for finding in result.findings) else FINE

    def text() -> str:
        if as_sarif:
            from gpu_setup.render.data_sarif import sarif

            return sarif(result)
        from gpu_setup.render.data import data_text

        return data_text(result)

    return Answer("data", result, code, text)


def _with_tokens(result: DataReport, checked: object, recipe_name: str, emit: Emit) -> DataReport:
    from checks.catalogue import catalogue
    from checks.facts.read import read_host
    from gpu_setup.commands.training_options import my_paths
    from harness.dataset.check import CheckedFile
    from harness.dataset.token_lengths import TokenizerPlace, count_tokens, token_findings
    from harness.environment.stack_choice import choose_stack
    from harness.recipe.loader import load_recipe, require_model
    from machine.local import LocalMachine

    assert isinstance(checked, CheckedFile)
    recipe = load_recipe(recipe_name)
    require_model(recipe)
    machine = LocalMachine()
    stack = choose_stack(read_host(machine), catalogue()).stack
    tokens: TokenCounts
    tokens, rows = count_tokens(checked, recipe, TokenizerPlace(stack, machine, my_paths()), emit)
    return token_findings(result, tokens, rows, checked)


def _write(place: Path, text: str) -> None:
    from machine.errors import OutsideFailed
    from machine.whole_file import write_whole

    try:
        write_whole(place, text)
    except OSError as error:
        raise OutsideFailed(
            "data.unwritable",
            f"{place} could not be written.",
            f"The system says: {error.strerror or error}.",
            "Name a file in a folder that you can write.",
        ) from error
