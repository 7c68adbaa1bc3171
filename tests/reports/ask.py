"""What doctor and plan say of a reported machine: `python -m tests.reports.ask NAME` prints it and judges it."""

from __future__ import annotations

import re
import sys
from typing import Any
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
from tests.reports.table import HERE, Card, Report, reports


def machine(report: Report) -> Overlay:
    """The recording that the report starts from: its card and words swapped, and the report's edits on top."""
    own = HERE / "machines" / f"{report.machine}{SUFFIX}"
    place = str(own) if own.exists() else machine_path(report.machine)
    with open(place, encoding="utf-8") as file:  # noqa: PTH123
        text = file.read()
    for old, new in report.swap:
        assert old in text, f"{report.name}: {old!r} is not in {report.machine}"
        text = text.replace(old, new)
    if report.card is not None:
        text = _with_card(text, report.card)
    under = Remembered(RecordedMachine(machine_file.read(place, text.encode())))
    found = Overlay(under)
    host = read_host(found)
    if report.torch:
        apply(found, host, _with_torch(report.torch))
    apply(found, host, report.edit)
    return found


def _with_torch(version: str) -> dict[str, Any]:
    """An active environment with this PyTorch: `2.5.1+cu121`, `2.7.1+rocm6.3`, `2.6.0+cpu`."""
    cuda, rocm = re.search(r"\+cu(\d+)(\d)", version), re.search(r"\+rocm([\d.]+)", version)
    written = (
        f"__version__ = {version!r}\ndebug = False\n"
        f"cuda: Optional[str] = {f'{cuda[1]}.{cuda[2]}' if cuda else None!r}\n"
        f"hip: Optional[str] = {f'{rocm[1]}.0' if rocm else None!r}\n"
    )
    return {
        "environ": {"VIRTUAL_ENV": "{home}/venv"},
        "write": {"{home}/venv/lib/python3.12/site-packages/torch/version.py": written},
    }


def _with_card(text: str, card: Card) -> str:
    """The machine file with this card: on the bus, in the kernel log, for KFD, in NVML's answer."""
    size, number = card.memory << 20, int(card.device, 16)
    for was, now in (
        (f"0x{card.was}", f"0x{card.device}"),
        (f"0x{card.was.upper()}", f"0x{card.device.upper()}"),
        (f":{card.was}", f":{card.device}"),
        (f'"device": "{card.was}"', f'"device": "{card.device}"'),
        (f"device_id {int(card.was, 16)}\n", f"device_id {number}\n"),
    ):
        text = text.replace(was, now)
    for pattern, now in (
        (rf"(?<=gfx_target_version )\d+(?=\nvendor_id 4098\ndevice_id {number}\n)", card.target),
        (r"(?<=vram_total\n)\d+", f"{size}"),
        (r'(?<="memory_total": )\d+', f"{size}"),
        (r'(?<="compute_capability": ")[^"]+', card.target),
        (r'(?<="name": "NVIDIA )[^"]+', card.name),
    ):
        text = re.sub(pattern, now, text)
    place = re.search(rf"/([0-9a-f:.]+)/device\n0x{card.device}\n", text)
    # WSL's card is on no bus, only in NVML's answer
    assert place or f'"device": "{card.device}"' in text, f"{card.was} is not a card of the machine"
    return re.sub(rf"(?<={place[1]}/revision\n0x)..", card.revision, text) if place else text


def ask(report: Report) -> Said:
    """Doctor's default output and plan's, as a person gets them."""
    there = machine(report)
    with patch.object(open_recording, "open_recording", lambda _place: there):
        answers = [each.command.main(["--machine", "."], standalone_mode=False).text() for each in (doctor, plan)]
    # the name before the colon says what is wrong with the machine
    return Said(*(unstyle(answer).removeprefix(f"{there.name}:") for answer in answers))


def text(report: Report) -> str:
    """Both answers, and what the verdict on them is."""
    said = ask(report)
    line = "-" * 80
    why = "".join(f"  {each}\n" for each in failures(report.right, said))
    return f"{said.doctor}{line}\n{said.plan}{line}\n{report.name}: {verdict(report.right, said)}\n{why}"


if __name__ == "__main__":
    sys.stdout.writelines(text(report) for report in reports() if report.name in sys.argv)
