"""An overlay shows its edits and, for everything else, the recording beneath."""

from __future__ import annotations

import os

import pytest

from machine.local import ABSENT, Unreadable
from tests.checks.faults.overlay import JOURNAL, Overlay, Remembered
from tests.recorded_machines import load


@pytest.fixture
def machine() -> Overlay:
    return Overlay(Remembered(load("rx7900xtx-healthy")))


def test_unedited_files_are_as_recorded(machine: Overlay) -> None:
    plain = load("rx7900xtx-healthy")
    assert machine.read("/etc/os-release") == plain.read("/etc/os-release")
    assert machine.list("/boot") == plain.list("/boot")
    assert machine.access("/dev/kfd", os.R_OK | os.W_OK) is True
    assert machine.space("/home/alex") == plain.space("/home/alex")
    with pytest.raises(AssertionError, match="not recorded"):
        machine.run(("rm", "-rf", "/"))


def test_an_added_file_is_read_listed_and_found(machine: Overlay) -> None:
    machine.write("/etc/modprobe.d/new.conf", "blacklist amdgpu\n")
    assert machine.read("/etc/modprobe.d/new.conf") == b"blacklist amdgpu\n"
    assert "new.conf" in machine.list("/etc/modprobe.d")
    assert machine.access("/etc/modprobe.d/new.conf", os.F_OK) is True


def test_a_removed_folder_is_absent_with_its_contents(machine: Overlay) -> None:
    machine.remove("/sys/class/kfd")
    for path in ("/sys/class/kfd", "/sys/class/kfd/kfd/topology/nodes/1/properties"):
        with pytest.raises(Unreadable) as error:
            machine.read(path)
        assert error.value.reason == ABSENT
    assert "kfd" not in machine.list("/sys/class")
    assert machine.access("/sys/class/kfd", os.F_OK) is None


def test_added_messages_are_at_the_end_of_the_log_with_all_their_lines(machine: Overlay) -> None:
    machine.log(["NVRM: one\nNVRM: two"])
    first, second = machine.run(JOURNAL).stdout.splitlines()[-2:]
    assert first.endswith("kernel: NVRM: one")
    assert second.startswith(" ")
    assert second.strip() == "NVRM: two"


def test_other_groups_change_the_access_to_a_node(machine: Overlay) -> None:
    machine.groups(1000)
    assert machine.access("/dev/kfd", os.R_OK | os.W_OK) is False


def test_an_overlay_does_not_change_the_recording() -> None:
    under = Remembered(load("rtx3090-healthy"))
    Overlay(under).answer("nvidia", gpus=[])
    assert Overlay(under).binding("nvidia") == load("rtx3090-healthy").binding("nvidia")
