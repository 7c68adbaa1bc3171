"""`gpu-setup data split`: training rows, and held-out rows that are unlike them."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from gpu_setup.commands.data_check import file_argument
from gpu_setup.commands.options import Number, Whole, json_option, options_into
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup data split mine.json                     a tenth held out: mine-train.json and mine-held-out.json
  gpu-setup data split mine.json --rows 12 --seed 7
  gpu-setup data split mine.json --out splits/

\b
Exit codes: 0 written; 1 too few rows; 2 file not found; 3 a result exists already.
"""


class SplitOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    share: float
    count: int | None
    seed: int
    out: Path | None
    replace: bool
    file: Path


@click.command("split", epilog=EPILOG)
@json_option
@click.option("--share", type=Number(0.001, 0.9), default=0.1, show_default=True, help="Share of the rows to hold out.")
@click.option("--rows", "count", type=Whole(min=1), metavar="N", help="Hold out N rows instead.")
@click.option("--seed", type=int, default=42, show_default=True, help="The same seed gives the same split.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write both files here. Default: beside FILE.",
)
@click.option("--replace", is_flag=True, help="Overwrite an earlier split.")
@file_argument
@options_into(SplitOptions)
def split_command(options: SplitOptions) -> Answer:
    """Split FILE into training rows and held-out rows. Rows that are alike stay together."""
    from gpu_setup.render.data import data_text
    from gpu_setup.render.progress import reporter
    from harness.dataset.check import CheckSettings, open_checked
    from harness.dataset.findings import DataReport, WrittenFile
    from harness.dataset.row_writer import refuse_to_overwrite
    from harness.dataset.split import choose_held_out, write_split
    from machine.errors import FINE, BadAnswer
    from machine.paths import make

    file, seed = options.file, options.seed
    folder = make(options.out) if options.out is not None else file.parent
    train, held_out = folder / f"{file.stem}-train.json", folder / f"{file.stem}-held-out.json"
    for target in (train, held_out):
        refuse_to_overwrite(target, file, options.replace)
    with reporter(options.as_json) as emit, open_checked(file, None, CheckSettings(names=False), emit) as checked:
        wanted = options.count if options.count is not None else max(1, round(options.share * checked.stats.whole))
        cut = choose_held_out(checked, wanted, seed)
        if not cut.held_out or len(cut.held_out) >= cut.usable:
            raise BadAnswer(
                "data.too-few",
                f"{file} cannot be split: of {cut.usable:,} usable rows, {len(cut.held_out):,} would be held out.",
                "Rows that are alike stay together, and both sides need rows.",
                "Use more rows, or a smaller --share.",
            )
        trained, kept = write_split(checked, cut, train, held_out)
        notes = [f"Seed {seed}. No held-out row is like a row to train on."]
        if cut.moved:
            notes.append(f"{cut.moved:,} more rows were held out, because they are like held-out ones.")
        if checked.own_rows > cut.usable:
            notes.append(f"{checked.own_rows - cut.usable:,} rows that cannot be used are in neither file.")
        report = DataReport(
            action="split",
            file=str(file),
            rows=checked.own_rows,
            written=(
                WrittenFile(str(train), trained, "rows to train on"),
                WrittenFile(str(held_out), kept, "held-out rows"),
            ),
            notes=tuple(notes),
        )
    return Answer("data", report, FINE, lambda: data_text(report))
