"""A card in D3cold is read through sysfs and not woken: neither NVML nor AMD's library is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from checks.model import Status
from checks.registry import ALL
from checks.runner import run
from machine.local import Outcome
from machine.recording import RecordedMachine
from tests.recorded_machines import load, unpack


class Watched(RecordedMachine):
    """A recorded machine that notes which libraries and programs were asked."""

    asked: tuple[str, ...] = ()

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        self.asked += (vendor,)
        return super().binding(vendor, timeout)


def with_power(name: str, folder: Path, **states: str) -> Watched:
    """The recording with these power states, by PCI address with `_` for `:` and `.`."""
    unpack(name, folder)
    for slot, state in states.items():
        domain, bus, device, function = slot[1:].split("_")
        place = folder / f"sysroot/sys/bus/pci/devices/{domain}:{bus}:{device}.{function}"
        (place / "power_state").write_text(f"{state}\n")
    return Watched(folder)


def test_nvml_is_not_called_while_the_card_sleeps_and_the_doctor_says_so(tmp_path: Path) -> None:
    machine = with_power("rtx3090-healthy", tmp_path / "m", s0000_01_00_0="D3cold")
    report = run(read_host(machine), catalogue(), ALL)
    assert "nvidia" not in machine.asked
    (answer,) = [row for row in report.results if row.id == "driver.nvml"]
    assert (answer.status, "is asleep (D3cold)" in answer.reason) == (Status.UNKNOWN, True)
    assert report.summary.fail == report.summary.warn == 0


def test_amd_smi_is_not_called_either(tmp_path: Path) -> None:
    machine = with_power("rx7900xtx-healthy", tmp_path / "m", s0000_03_00_0="D3cold")
    slots = [card.slot for card in read_host(load("rx7900xtx-healthy")).cards or ()]
    host = read_host(machine)
    if slots == ["0000:03:00.0"]:
        assert "amd" not in machine.asked and host.amd.amdsmi_problem == "asleep"
    assert run(host, catalogue(), ALL).summary.fail == 0


@pytest.mark.parametrize("state", ["D0", "D3hot", "unknown"])
def test_in_every_other_state_it_is_asked(tmp_path: Path, state: str) -> None:
    machine = with_power("rtx3090-healthy", tmp_path / "m", s0000_01_00_0=state)
    read_host(machine)
    assert "nvidia" in machine.asked


def test_the_other_vendors_sleep_does_not_count(tmp_path: Path) -> None:
    slots = {card.vendor: card.slot for card in read_host(load("two-vendors")).cards or ()}
    amd = "s" + slots["1002"].replace(":", "_").replace(".", "_")
    machine = with_power("two-vendors", tmp_path / "m", **{amd: "D3cold"})
    read_host(machine)
    assert "nvidia" in machine.asked
