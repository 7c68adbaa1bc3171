"""`gpu-setup compare`: reports of the same work beside each other, and beside what is published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from gpu_setup.commands.options import json_option, options_into
from gpu_setup.envelope import Answer

if TYPE_CHECKING:
    from harness.report.compare import Comparison
    from harness.report.run_report import Report

EPILOG = """\b
Examples:
  gpu-setup compare RUN_DIR RUN_DIR                    two runs: equal, or which one is faster and by how much
  gpu-setup compare mine.json theirs.json --html c.html
  gpu-setup compare mine.json --markdown -             a table for a forum, on stdout
  gpu-setup compare mine.json                          one report and what is published for its card
  gpu-setup compare --published --card "RTX 3090"      the published figures, and which of them are possible

\b
Exit codes: 0 compared; 2 no report, or one given twice; 3 the reports are of different work, or one does not
name its work; 4 a file could not be written.
"""


class CompareOptions(msgspec.Struct, frozen=True, kw_only=True):
    as_json: bool
    page: Path | None
    table: Path | None
    markdown: str | None
    published: bool
    card: str | None
    reports: tuple[Path, ...]


@click.command(epilog=EPILOG)
@json_option
@click.option("--html", "page", metavar="FILE", type=click.Path(path_type=Path), help="Write an HTML page with charts.")
@click.option(
    "--csv", "table", metavar="FILE", type=click.Path(path_type=Path), help="Write a CSV table, one line per run."
)
@click.option(
    "--markdown", metavar="FILE|-", help="Write a table for a forum; - writes it to stdout instead of the answer."
)
@click.option("--published", is_flag=True, help="Show the published figures only, and what each implies.")
@click.option("--card", metavar="NAME", help="With --published: only the figures of this card.")
@click.argument("reports", metavar="REPORT…", nargs=-1, type=click.Path(path_type=Path))
@options_into(CompareOptions)
def command(options: CompareOptions) -> Answer:
    """Compare reports of the same work: cards, drivers and settings may differ, the work may not.

    A REPORT is a run's folder or its report.json. The others are compared with the first.
    """
    from checks.catalogue import catalogue
    from harness.report.published_speeds import rate_speeds

    if options.published:
        return _show_published(options.card, options.reports)
    if options.card is not None:
        raise click.UsageError("--card works only with --published.")
    if not options.reports:
        raise click.UsageError("Name one or more reports.")
    if options.markdown == "-" and options.as_json:
        raise click.UsageError("--json and --markdown - both write to stdout: name a file for one of them.")
    files = _report_files(options.reports)
    forum = Path(options.markdown) if options.markdown not in (None, "-") else None
    places = [place for place in (options.page, options.table, forum) if place]
    _check_places(places, files)

    from harness.report.compare import compare, different_work_refusal, letter
    from harness.report.run_report import read_report

    read: list[Report] = [read_report(file) for file in files]
    comparison = compare(read, rate_speeds(catalogue()), [str(given) for given in options.reports])
    if not comparison.comparable:
        problem = different_work_refusal(comparison.differences, [letter(number) for number in range(len(read))])
        return Answer("comparison", comparison, problem.exit_code, lambda: _text(comparison), (problem,))
    if options.page is not None:
        from gpu_setup.extras import need

        need("charts")
        from gpu_setup.render.compare_page import comparison_page
        from gpu_setup.version import version

        _write(options.page, comparison_page(comparison, version()))
    if options.table is not None:
        from gpu_setup.render.compare_table import comparison_csv
        from gpu_setup.version import version

        _write(options.table, comparison_csv(comparison, version()))
    if options.markdown is None:
        return Answer("comparison", comparison, 0, lambda: _text(comparison))

    from gpu_setup.render.compare_table import comparison_markdown
    from gpu_setup.version import version

    words = comparison_markdown(comparison, version())
    if options.markdown == "-":
        return Answer("comparison", comparison, 0, lambda: words)
    _write(Path(options.markdown), words)
    return Answer("comparison", comparison, 0, lambda: _text(comparison))


def _text(comparison: Comparison) -> str:
    from gpu_setup.render.compare import comparison_text

    return comparison_text(comparison)


def _show_published(card: str | None, reports: Sequence[Path]) -> Answer:
    from checks.catalogue import catalogue
    from checks.devices import named_devices
    from harness.report.published_speeds import PublishedSpeeds, rate_speeds
    from machine.errors import BadUsage

    if reports:
        raise click.UsageError("--published shows the published figures only: name no report with it.")
    known = catalogue()
    every = (*(name for _, name in named_devices()), *(each.name for each in known.cards))
    names = {spelling: name for name in every for spelling in _spellings(name)}
    card = names.get(card.casefold(), card) if card is not None else None
    found = rate_speeds(known, card)
    if card is not None and not found and card not in names.values():
        from difflib import get_close_matches

        near = get_close_matches(card, list(names.values()), n=3, cutoff=0.4)
        raise BadUsage(
            "compare.unknown-card",
            f"No card is called “{card}”.",
            f"Did you mean {' or '.join(near)}?" if near else "",
            "Spell it as gpu-setup doctor does, for example: RTX 3090.",
        )

    def text() -> str:
        from gpu_setup.render.compare import records_text

        return records_text(found)

    return Answer("records", PublishedSpeeds(found), 0, text)


def _spellings(name: str) -> tuple[str, ...]:
    """The catalogue's name, and without the maker's family, as people write it: RX 7900 XTX."""
    whole = name.casefold()
    return (whole, whole.removeprefix("radeon "))


def _report_files(reports: Sequence[Path]) -> list[Path]:
    """Each report's file; BadUsage for one that does not exist or is named twice."""
    from harness.report.run_report import DOCUMENT
    from machine.errors import BadUsage

    files: list[Path] = []
    for given in reports:
        file = given / DOCUMENT if given.is_dir() else given
        if not file.exists():
            why = "That folder has no report.json." if given.is_dir() else ""
            raise BadUsage(
                "report.missing",
                f"{given}: no report found.",
                why,
                "Give a run's folder or its report.json; gpu-setup bench makes one.",
            )
        if any(os.path.samefile(file, other) for other in files):
            raise BadUsage(
                "compare.same-file",
                f"{given} is named twice.",
                "A report is always equal to itself.",
                "Name each report once.",
            )
        files.append(file)
    return files


def _check_places(places: Sequence[Path], files: Sequence[Path]) -> None:
    """Refuse a place that cannot be written, or that would be written over, before anything is."""
    from machine.errors import BadUsage

    for number, place in enumerate(places):
        if any(place.exists() and os.path.samefile(place, file) for file in files):
            raise BadUsage("compare.overwrites", f"{place} is one of the reports.", "", "Name another file.")
        if place in places[:number]:
            raise BadUsage("compare.same-place", f"{place} would be written twice.", "", "Name another file.")
        if place.is_dir():
            raise _unwritable(place, "It is a folder.")
        if not place.parent.is_dir():
            raise _unwritable(place, f"There is no folder {place.parent}.")
        if not os.access(place if place.exists() else place.parent, os.W_OK):
            raise _unwritable(place, "The system says: Permission denied.")


def _unwritable(place: Path, why: str) -> Exception:
    from machine.errors import OutsideFailed

    return OutsideFailed("paths.unwritable", f"{place} cannot be written.", why, "Name a file that you can write.")


def _write(place: Path, text: str) -> None:
    from machine.whole_file import write_whole

    try:
        write_whole(place, text)
    except OSError as error:
        raise _unwritable(place, f"The system says: {error.strerror or error}.") from error
