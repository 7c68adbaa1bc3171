"""`gpu-setup data split`: rows to train on, and a held-out set that has nothing like them."""

from __future__ import annotations

from pathlib import Path

import click

from gpu_setup.commands.data_check import file_argument
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

EPILOG = """\b
Examples:
  gpu-setup data split mine.json                     a tenth held out: mine-train.json and mine-held-out.json
  gpu-setup data split mine.json --rows 12 --seed 7
  gpu-setup data split mine.json --out splits/

\b
Exit codes: 0 written; 1 too few rows; 2 no such file; 3 a file is there already.
"""


@click.command("split", epilog=EPILOG)
@json_option
@click.option(
    "--share", type=click.FloatRange(0.001, 0.9), default=0.1, show_default=True, help="How much to hold out."
)
@click.option("--rows", "count", type=click.IntRange(min=1), metavar="N", help="Hold out so many rows instead.")
@click.option("--seed", type=int, default=42, show_default=True, help="The same seed gives the same split.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Default: beside FILE.")
@click.option("--replace", is_flag=True, help="Write over an earlier split.")
@file_argument
def split_command(
    as_json: bool, share: float, count: int | None, seed: int, out: Path | None, replace: bool, file: Path
) -> Answer:
    """Part FILE into rows to train on and held-out rows. Near-copies and rows that ask the same stay on one side."""
    from gpu_setup.render.data import data_text
    from gpu_setup.render.progress import reporter
    from harness.dataset.check import Wanted, checking
    from harness.dataset.findings import DataReport, Written
    from harness.dataset.row_writer import refuse_to_overwrite
    from harness.dataset.split import choose, write_split
    from machine.errors import FINE, BadAnswer
    from machine.paths import make

    folder = make(out) if out is not None else file.parent
    train, held_out = folder / f"{file.stem}-train.json", folder / f"{file.stem}-held-out.json"
    for target in (train, held_out):
        refuse_to_overwrite(target, file, replace)
    with reporter(as_json) as emit, checking(file, None, Wanted(names=False), emit) as checked:
        wanted = count if count is not None else max(1, round(share * checked.tally.whole))
        cut = choose(checked, wanted, seed)
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
            notes.append(f"{cut.moved:,} rows were held out besides, because they are like held-out ones.")
        if checked.own_rows > cut.usable:
            notes.append(f"{checked.own_rows - cut.usable:,} rows that cannot be used are in neither file.")
        report = DataReport(
            action="split",
            file=str(file),
            rows=checked.own_rows,
            written=(Written(str(train), trained, "rows to train on"), Written(str(held_out), kept, "held-out rows")),
            notes=tuple(notes),
        )
    return Answer("data", report, FINE, lambda: data_text(report))
