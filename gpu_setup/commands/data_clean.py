"""`gpu-setup data clean`: what would change, then a new file and a log from which the original comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpu_setup.commands.data_check import file_argument, languages_option, names_option
from gpu_setup.commands.options import json_option
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from harness.dataset.clean import Rules
    from harness.dataset.findings import DataReport

EPILOG = """\b
Examples:
  gpu-setup data clean mine.json                             shows what would change, asks, writes mine-clean.json
  gpu-setup data clean mine.json --dry-run                   only shows it
  gpu-setup data clean mine.json --yes --names-as Kundin     pseudonyms "Kundin 1", "Kundin 2" …
  gpu-setup data clean mine.json --keep name --drop label-conflict
  gpu-setup data clean mine-clean.json --undo mine-clean.log.jsonl --out back.json

\b
Exit codes: 0 written, shown, or nothing to do; 1 nothing usable in the file; 2 no such file; 3 not confirmed, or a file
is there already.
"""


@click.command("clean", epilog=EPILOG)
@json_option
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Default: NAME-clean.json."
)
@click.option("--log", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Default: beside it.")
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--replace", is_flag=True, help="Write over an earlier result (never over FILE).")
@click.option("--keep", metavar="KIND", multiple=True, help="Leave this kind of finding as it is. Repeatable.")
@click.option("--drop", metavar="KIND", multiple=True, help="Drop the rows of this kind. Repeatable.")
@click.option("--names-as", metavar="WORD", default="Customer", help="The word for people in pseudonyms.")
@click.option("--undo", metavar="LOG", type=click.Path(path_type=Path, dir_okay=False), help="FILE back as it was.")
@click.option("--held-out", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Drop what leaks.")
@languages_option
@names_option
@file_argument
def clean_command(
    as_json: bool,
    out: Path | None,
    log: Path | None,
    yes: bool,
    dry_run: bool,
    replace: bool,
    keep: tuple[str, ...],
    drop: tuple[str, ...],
    names_as: str,
    undo: Path | None,
    held_out: Path | None,
    languages: str,
    names: bool,
    file: Path,
) -> Answer:
    """Write a cleaned copy of FILE, after showing what changes. FILE itself is never touched.

    Copies, refusals and broken rows go, damaged text is mended, private data gets consistent pseudonyms. The log
    holds every changed row as it was: keep it as carefully as FILE.
    """
    from gpu_setup.render.progress import reporter
    from harness.dataset.check import Wanted, checking
    from harness.dataset.clean import Rules, summary, write_clean
    from harness.dataset.findings import DataReport, Written
    from harness.dataset.row_writer import refuse_to_overwrite
    from machine.errors import FINE

    if undo is not None:
        return _undone(file, undo, out, replace)
    rules = Rules(_kinds(keep), _kinds(drop), names_as, names)
    target = out or file.with_name(f"{file.stem}-clean.json")
    journal = log or target.with_name(f"{target.stem}.log.jsonl")
    if not dry_run:
        refuse_to_overwrite(target, file, replace)
        refuse_to_overwrite(journal, file, replace)
    wanted = Wanted(names=names, languages=tuple(code.strip() for code in languages.split(",") if code.strip()))
    with reporter(as_json) as emit, checking(file, held_out, wanted, emit) as checked:
        planned = summary(checked, rules)
        left = _left(rules, [finding.kind for finding in checked.findings])
        report = DataReport(
            action="clean",
            file=str(file),
            rows=checked.own_rows,
            changes=planned.changes,
            written=(
                Written(str(target), planned.kept, "rows", False),
                Written(str(journal), planned.touched, "changed rows as they were", False),
            ),
            notes=(f"{planned.gone:,} rows go, {planned.kept:,} stay.", *left),
        )
        if dry_run:
            return Answer("data", report, FINE, lambda: _text(report))
        if not yes:
            _ask(report, as_json)
        rows, entries = write_clean(checked, rules, target, journal)
    written = (Written(str(target), rows, "rows"), Written(str(journal), entries, "changed rows as they were"))
    import msgspec

    done = msgspec.structs.replace(report, written=written, changes=planned.changes if yes or as_json else ())
    return Answer("data", done, FINE, lambda: _text(done))


def _text(report: DataReport) -> str:
    from gpu_setup.render.data import data_text

    return data_text(report)


def _kinds(given: tuple[str, ...]) -> frozenset[str]:
    """The kinds that the person named; a name that is none is a mistake to be told."""
    from difflib import get_close_matches

    from harness.dataset.findings import kinds

    for name in given:
        if name not in kinds():
            near = get_close_matches(name, kinds(), n=1)
            hint = f" Did you mean {near[0]}?" if near else f" They are: {', '.join(kinds())}."
            raise click.UsageError(f"There is no kind of finding '{name}'.{hint}")
    return frozenset(given)


def _left(rules: Rules, found: list[str]) -> tuple[str, ...]:
    """What cleaning does not decide."""
    from harness.dataset.clean import doing
    from harness.dataset.findings import kinds

    left = [kind for kind in found if doing(kind, rules) == "leave" and kinds()[kind].severity != "info"]
    return (f"Left for you to look at: {', '.join(left)} (gpu-setup data check shows the rows).",) if left else ()


def _ask(report: DataReport, as_json: bool) -> None:
    from machine.errors import Refused

    if as_json or not sys.stdin.isatty():
        raise Refused(
            "data.not-confirmed",
            "Nothing was written: nobody was there to agree to the changes.",
            report.notes[0],
            "Look at them with --dry-run, then add --yes.",
        )
    click.echo(_text(report), err=True)
    click.confirm("Write these files?", abort=True, err=True)


def _undone(file: Path, log: Path, out: Path | None, replace: bool) -> Answer:
    import tempfile

    from harness.dataset.clean import undo
    from harness.dataset.findings import DataReport, Written
    from harness.dataset.row_writer import refuse_to_overwrite
    from machine.errors import FINE

    target = out or file.with_name(f"{file.stem}-undone.json")
    refuse_to_overwrite(target, file, replace)
    with tempfile.TemporaryDirectory(prefix="gpu-setup-data-") as scratch:
        rows = undo(file, log, target, Path(scratch))
    report = DataReport("clean", str(file), rows, written=(Written(str(target), rows, "rows as they were"),))
    return Answer("data", report, FINE, lambda: _text(report))
