"""`gpu-setup data import`: mail, chats and tables as Alpaca rows."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gpu_setup.commands.options import json_option, options_into
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup data import Sent.mbox --out mine.json               your answers, by thread; quotes and signatures removed
  gpu-setup data import Sent.mbox --received Inbox.mbox         also finds the answered mail in your inbox
  gpu-setup data import ~/.continue/dev_data/0.2.0/chatInteraction.jsonl
  gpu-setup data import chats.jsonl --turns all                 OpenAI chat or ShareGPT: every question and answer
  gpu-setup data import faq.csv --columns instruction=Frage,output=Antwort

\b
Exit codes: 0 written; 1 no row could be made; 2 file or column not found; 3 the result exists already.
"""


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    out: Path | None
    shape: str
    columns: str
    turns: str
    received: tuple[Path, ...]
    me: str
    instruction: str
    kind: str | None
    replace: bool
    files: tuple[Path, ...]


@click.command("import", epilog=EPILOG)
@json_option
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the rows here. Default: NAME-alpaca.json.",
)
@click.option(
    "--format", "shape", type=click.Choice(("auto", "mbox", "chat", "csv", "json")), default="auto",
    help="The files' format. Default: detected.",
)  # fmt: skip
@click.option(
    "--columns", metavar="FIELD=NAME,…", default="", help="The columns or keys for instruction, input, output."
)
@click.option(
    "--turns", type=click.Choice(("first", "all")), default="first", help="From a chat, take the first answer, or all."
)
@click.option(
    "--received", multiple=True, metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="A mailbox with the mail that you answered; repeatable.",
)  # fmt: skip
@click.option("--me", metavar="ADDRESS", default="", help="Your own mail address. Default: the most frequent sender.")
@click.option(
    "--instruction",
    metavar="TEXT",
    default="",
    help="Put the received mail into `input`, and this text into `instruction`.",
)
@click.option(
    "--kind",
    type=click.Choice(("organic", "semi-synthetic", "synthetic")),
    help="Mark the origin of rows that have no mark.",
)
@click.option("--replace", is_flag=True, help="Overwrite an earlier result.")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@options_into(ImportOptions)
def import_command(options: ImportOptions) -> Answer:
    """Convert mailboxes, chat logs, tables or other JSON to Alpaca JSON. Each row names its source."""
    import tempfile

    from gpu_setup.render.data import data_text
    from gpu_setup.render.progress import reporter
    from harness.dataset.imports.import_files import ImportSettings, import_files
    from harness.dataset.row_writer import refuse_to_overwrite
    from machine.errors import FINE

    if not options.files[0].name:
        raise click.UsageError("FILE needs a name.")
    target = options.out or options.files[0].with_name(f"{options.files[0].stem}-alpaca.json")
    for file in (*options.files, *options.received):
        refuse_to_overwrite(target, file, options.replace)
    how = ImportSettings(
        options.shape, _mapping(options.columns), options.turns == "all", options.received, options.me,
        options.instruction, options.kind or "",
    )  # fmt: skip
    with reporter(options.as_json) as emit, tempfile.TemporaryDirectory(prefix="gpu-setup-data-") as scratch:
        report = import_files(options.files, how, target, Path(scratch), emit)
    return Answer("data", report, FINE, lambda: data_text(report))


def _mapping(columns: str) -> dict[str, str]:
    """`instruction=Frage,output=Antwort` as a mapping; raises UsageError for anything else."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in columns.split(","))):
        field, sign, name = part.partition("=")
        if not sign or field.strip() not in ("instruction", "input", "output") or not name.strip():
            raise click.UsageError(
                f"--columns takes FIELD=NAME with the fields instruction, input, output; not '{part}'."
            )
        found[field.strip()] = name.strip()
    return found
