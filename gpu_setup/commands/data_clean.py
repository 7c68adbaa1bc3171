"""`gpu-setup data clean`: show what would change, write a new file, and a log that restores the original."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.data_check import file_argument, language_codes, languages_option, names_option
from gpu_setup.commands.options import json_option, options_into
from gpu_setup.envelope import Answer
from gpu_setup.terminal import confirm, echo

if TYPE_CHECKING:
    from harness.dataset.clean import CleaningRules
    from harness.dataset.findings import DataReport

EPILOG = """\b
Examples:
  gpu-setup data clean mine.json                             shows what would change, asks, writes mine-clean.json
  gpu-setup data clean mine.json --dry-run                   shows it only
  gpu-setup data clean mine.json --yes --names-as Kundin     pseudonyms "Kundin 1", "Kundin 2" …
  gpu-setup data clean mine.json --keep name --drop label-conflict
  gpu-setup data clean mine-clean.json --undo mine-clean.log.jsonl --out back.json

\b
Exit codes: 0 written, shown, or nothing to do; 1 nothing usable in the file; 2 file not found; 3 not confirmed, or the
result exists already.
"""


class CleanOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    out: Path | None
    log: Path | None
    yes: bool
    dry_run: bool
    replace: bool
    keep: tuple[str, ...]
    drop: tuple[str, ...]
    names_as: str
    undo: Path | None
    held_out: Path | None
    languages: str
    names: bool
    file: Path


@click.command("clean", epilog=EPILOG)
@json_option
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result here. Default: NAME-clean.json.",
)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the changed rows here. Default: beside the result.",
)
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--replace", is_flag=True, help="Overwrite an earlier result (never FILE).")
@click.option(
    "--keep", metavar="KIND", multiple=True, help="Keep rows with this kind of finding unchanged; repeatable."
)
@click.option("--drop", metavar="KIND", multiple=True, help="Drop rows with this kind of finding; repeatable.")
@click.option("--names-as", metavar="WORD", default="Customer", help="The word for a person in pseudonyms.")
@click.option(
    "--undo", metavar="LOG", type=click.Path(path_type=Path, dir_okay=False), help="Restore the original from LOG."
)
@click.option(
    "--held-out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Drop rows that are also in this held-out file.",
)
@languages_option
@names_option
@file_argument
@options_into(CleanOptions)
def clean_command(options: CleanOptions) -> Answer:
    """Write a cleaned copy of FILE, after showing what changes. FILE itself is never changed.

    Duplicates, refusals and broken rows are dropped, damaged text is fixed, private data gets consistent pseudonyms.
    The log holds every changed row as it was: protect it like FILE.
    """
    from gpu_setup.render.progress import reporter
    from harness.dataset.check import CheckSettings, open_checked
    from harness.dataset.clean import CleaningRules, summarise_cleaning, write_clean
    from harness.dataset.findings import DataReport, WrittenFile
    from harness.dataset.row_writer import refuse_to_overwrite
    from machine.errors import FINE

    file, replace = options.file, options.replace
    if not file.name or (options.out is not None and not options.out.name):
        raise click.UsageError("FILE and --out need a name.")
    if options.undo is not None:
        return _undo(file, options.undo, options.out, replace)
    rules = CleaningRules(_kinds(options.keep), _kinds(options.drop), options.names_as, options.names)
    target = options.out or file.with_name(f"{file.stem}-clean.json")
    journal = options.log or target.with_name(f"{target.stem}.log.jsonl")
    if not options.dry_run:
        refuse_to_overwrite(target, file, replace)
        refuse_to_overwrite(journal, file, replace)
    wanted = CheckSettings(names=options.names, languages=language_codes(options.languages))
    with reporter(options.as_json) as emit, open_checked(file, options.held_out, wanted, emit) as checked:
        planned = summarise_cleaning(checked, rules)
        left = _review_note(rules, [finding.kind for finding in checked.findings])
        report = DataReport(
            action="clean",
            file=str(file),
            rows=checked.own_rows,
            changes=planned.changes,
            written=(
                WrittenFile(str(target), planned.kept, "rows", False),
                WrittenFile(str(journal), planned.touched, "changed rows as they were", False),
            ),
            notes=(f"{planned.gone:,} rows are dropped, {planned.kept:,} kept.", *left),
        )
        if options.dry_run:
            return Answer("data", report, FINE, lambda: _text(report))
        if not options.yes:
            _ask(report, options.as_json)
        rows, entries = write_clean(checked, rules, target, journal)
    written = (WrittenFile(str(target), rows, "rows"), WrittenFile(str(journal), entries, "changed rows as they were"))
    changes = planned.changes if options.yes or options.as_json else ()
    done = msgspec.structs.replace(report, written=written, changes=changes)
    return Answer("data", done, FINE, lambda: _text(done))


def _text(report: DataReport) -> str:
    from gpu_setup.render.data import data_text

    return data_text(report)


def _kinds(given: tuple[str, ...]) -> frozenset[str]:
    """The kinds that the person named; UsageError for a name that is none."""
    from difflib import get_close_matches

    from harness.dataset.findings import kinds

    for name in given:
        if name not in kinds():
            near = get_close_matches(name, kinds(), n=1)
            hint = f" Did you mean {near[0]}?" if near else f" They are: {', '.join(kinds())}."
            raise click.UsageError(f"There is no kind of finding '{name}'.{hint}")
    return frozenset(given)


def _review_note(rules: CleaningRules, found: list[str]) -> tuple[str, ...]:
    """What cleaning does not decide."""
    from harness.dataset.clean import cleaning_action
    from harness.dataset.findings import kinds

    left = [kind for kind in found if cleaning_action(kind, rules) == "leave" and kinds()[kind].severity != "info"]
    return (f"Not changed, review by hand: {', '.join(left)} (gpu-setup data check shows the rows).",) if left else ()


def _ask(report: DataReport, as_json: bool) -> None:
    from machine.errors import Refused

    if as_json or not sys.stdin.isatty():
        raise Refused(
            "data.not-confirmed",
            "Nothing was written: there is no terminal to confirm the changes.",
            report.notes[0],
            "Review them with --dry-run, then add --yes.",
        )
    echo(_text(report), err=True)
    confirm("Write these files?", abort=True)


def _undo(file: Path, log: Path, out: Path | None, replace: bool) -> Answer:
    import tempfile

    from harness.dataset.clean import undo
    from harness.dataset.findings import DataReport, WrittenFile
    from harness.dataset.row_writer import refuse_to_overwrite
    from machine.errors import FINE

    target = out or file.with_name(f"{file.stem}-undone.json")
    refuse_to_overwrite(target, file, replace)
    with tempfile.TemporaryDirectory(prefix="gpu-setup-data-") as scratch:
        rows = undo(file, log, target, Path(scratch))
    report = DataReport("clean", str(file), rows, written=(WrittenFile(str(target), rows, "rows as they were"),))
    return Answer("data", report, FINE, lambda: _text(report))
