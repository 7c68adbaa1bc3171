"""What doctor and plan say of a reported machine: `python -m tests.reports.ask NAME` prints it and judges it."""

from __future__ import annotations

import sys
from unittest.mock import patch

from click import unstyle

from checks.facts.read import read_host
from gpu_setup.commands import doctor, plan
from machine import machine_file, open_recording
from machine.recording import RecordedMachine
from tests.checks.faults.edits import apply
from tests.checks.faults.overlay import Overlay, Remembered
from tests.recorded_machines import SUFFIX, machine_path
from tests.reports.judge import Said, failures, verdict
from tests.reports.table import HERE, Report, reports


def machine(report: Report) -> Overlay:
    """The recording that the report starts from, its words swapped, and the report's edits on top."""
    own = HERE / "machines" / f"{report.machine}{SUFFIX}"
    place = str(own) if own.exists() else machine_path(report.machine)
    with open(place, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    for old, new in report.swap:
        assert old in text, f"{report.name}: {old!r} is not in {report.machine}"
        text = text.replace(old, new)
    under = Remembered(RecordedMachine(machine_file.read(place, text.encode())))
    found = Overlay(under)
    apply(found, read_host(found), report.edit)
    return found


def ask(report: Report) -> Said:
    """Doctor's default output and plan's, as a person gets them."""
    there = machine(report)
    with patch.object(open_recording, "open_recording", lambda _place: there):
        answers = [each.command.main(["--machine", "."], standalone_mode=False).text() for each in (doctor, plan)]
    # the machine's name says what is wrong with it
    return Said(*(unstyle(answer).replace(there.name, "machine") for answer in answers))


def text(report: Report) -> str:
    """Both answers, and what the verdict on them is."""
    said = ask(report)
    line = "-" * 80
    why = "".join(f"  {each}\n" for each in failures(report.right, said))
    return f"{said.doctor}{line}\n{said.plan}{line}\n{report.name}: {verdict(report.right, said)}\n{why}"


if __name__ == "__main__":
    sys.stdout.writelines(text(report) for report in reports() if report.name in sys.argv)
