"""Who else uses the card: foreign compute refuses, a desktop is marked, silence is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from checks.facts.read import read_host
from harness.measure.gpu_processes import (
    CardUse,
    Program,
    card_use,
    desktop_note,
    desktop_programs,
    read_card_use,
    refuse_foreign,
)
from harness.measure.verdict import card_notes
from machine.errors import REFUSED, Refused
from machine.recording import RecordedMachine

Machine = Callable[[str], RecordedMachine]
UUID = "GPU-8d3c7f52-1b0a-4e69-9c1d-5a2f60b7e401"


def use(*processes: tuple[int, str], compute: list[int] | None = None, **more: Any) -> CardUse:
    return card_use({"processes": list(processes), "compute_pids": compute, "memory_used": 400 << 20, **more})


def test_another_training_is_refused() -> None:
    found = use((99, "python3"), (7, "Xorg"), compute=[99])
    assert (found.foreign, found.desktop) == ((Program(99, "python3"),), (Program(7, "Xorg"),))
    with pytest.raises(Refused) as caught:
        refuse_foreign(found)
    assert (caught.value.exit_code, caught.value.code) == (REFUSED, "bench.card-in-use")
    assert "python3 (pid 99)" in caught.value.what and caught.value.next


def test_a_program_that_only_draws_is_not_foreign() -> None:
    found = use((5, "my-compositor"), (6, "firefox"), compute=[])
    assert found.foreign == ()
    assert [each.name for each in found.desktop] == ["my-compositor", "firefox"]
    refuse_foreign(found)


def test_a_desktop_that_also_computes_is_still_a_desktop() -> None:
    """gnome-shell and Xwayland are listed as C+G by some drivers."""
    assert use((5, "gnome-shell"), compute=[5]).foreign == ()


def test_an_older_document_does_not_list_compute_processes() -> None:
    found = use((5, "Xorg"), (6, "ollama"))
    assert [each.name for each in found.foreign] == ["ollama"]


def test_a_driver_that_lists_no_processes_gives_a_note() -> None:
    found = card_use({"processes": None})
    assert not found.asked and found.foreign == ()
    (note,) = card_notes(found, gpu=True)
    assert "does not list the programs on the GPU" in note
    assert card_notes(found, gpu=False) == card_notes(use(compute=[]), gpu=True) == []


def test_a_recorded_desktop(machine: Machine) -> None:
    recorded = machine("rtx3090-healthy")
    found = read_card_use("nvidia", UUID, recorded)
    assert [each.name for each in found.desktop] == ["Xorg", "gnome-shell"]
    assert found.memory_used == 432013312
    refuse_foreign(found)
    note = desktop_note(found, read_host(recorded))
    assert note and "Xorg, gnome-shell" in note


def test_without_a_gpu_no_driver_is_asked(machine: Machine) -> None:
    assert read_card_use("cpu", None, machine("no-gpu")) == CardUse(asked=False)


def test_names_are_no_longer_than_the_kernel_gives_them() -> None:
    assert all(len(name) <= 15 for name in desktop_programs())
