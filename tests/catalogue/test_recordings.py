"""The recorded machines: small, made by the script beside them, and read as what they say they are."""

import json
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from machine.recording import RecordedMachine
from tests.machines.make import MACHINES, make

FOLDER = Path(__file__).parents[1] / "machines"


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file's bytes and every link's target, by path; expect.json is written by hand and left out."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != "expect.json"
    }


def test_the_script_makes_the_committed_folders_byte_for_byte(tmp_path: Path) -> None:
    make(tmp_path)
    for name in MACHINES:
        assert contents(tmp_path / name) == contents(FOLDER / name), f"{name}: run python -m tests.machines.make"


def test_making_them_again_leaves_what_is_expected_of_them(tmp_path: Path) -> None:
    make(tmp_path)
    expected = tmp_path / "no-gpu" / "expect.json"
    expected.write_text('{"doctor": {}}')
    (tmp_path / "no-gpu" / "sysroot" / "left-over").write_text("")
    make(tmp_path)
    assert expected.read_text() == '{"doctor": {}}'
    assert not (tmp_path / "no-gpu" / "sysroot" / "left-over").exists()


@pytest.mark.parametrize("name", MACHINES)
def test_a_recording_is_small_and_says_that_it_was_made_up(name: str) -> None:
    found = contents(FOLDER / name)
    assert len(found) < 130
    assert sum(len(content) for content in found.values()) < 40_000
    assert json.loads((FOLDER / name / "machine.json").read_text())["synthetic"][0] == "/"


@pytest.mark.parametrize(
    ("name", "cards"),
    [
        ("rtx3090ti-fresh", ["RTX 3090 Ti"]),
        ("rtx6000ada-fresh", ["RTX 6000 Ada"]),
        ("rx7900xt-fresh", ["Radeon RX 7900 XT", "Raphael graphics"]),
        ("w7900-fresh", ["Radeon PRO W7900"]),
        ("rtx3090-healthy", ["RTX 3090"]),
        ("rx7900xtx-healthy", ["Radeon RX 7900 XTX"]),
        ("no-gpu", []),
        ("two-vendors", ["RTX 3090", "Radeon RX 7900 XT"]),
        ("rtx5090-proprietary-module", ["RTX 5090"]),
        ("rx9070xt-old-kernel", ["Radeon RX 9070 XT"]),
    ],
)
def test_the_bus_of_a_recording_names_its_cards(name: str, cards: list[str]) -> None:
    machine = RecordedMachine(FOLDER / name, strict=True)

    def id_of(slot: str, part: str) -> str:
        try:
            return machine.read(f"/sys/bus/pci/devices/{slot}/{part}").decode().strip().removeprefix("0x")
        except Exception:
            return ""

    found = [
        catalogue().card(id_of(slot, "vendor"), id_of(slot, "device"), id_of(slot, "revision"))
        for slot in machine.list("/sys/bus/pci/devices")
    ]
    assert [card.name for card in found if card] == cards


@pytest.mark.parametrize(
    ("name", "allowed"), [("rx7900xt-fresh", False), ("rx7900xtx-healthy", True), ("two-vendors", False)]
)
def test_who_may_open_the_compute_node(name: str, allowed: bool) -> None:
    machine = RecordedMachine(FOLDER / name, strict=True)
    assert machine.access("/dev/kfd", 6) is allowed
    # udev gives whoever sits at the screen the render node, not the compute node
    assert machine.access("/dev/dri/renderD128", 6) is True
