"""Which card is meant, and how much of it is free."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from checks.catalogue import catalogue
from checks.facts.read import read_host
from harness.memory.available import AvailableMemory, available_memory, find_card
from machine.errors import BadUsage
from machine.recording import RecordedMachine
from tests.recorded_machines import load

Load = Callable[[str], RecordedMachine]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("RX 7900 XT", "Radeon RX 7900 XT"),
        ("rx 7900 xtx", "Radeon RX 7900 XTX"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("3090", "RTX 3090"),
        ("W7900", "Radeon PRO W7900"),
        ("RTX 6000 Ada", "RTX 6000 Ada"),
        ("T4", "Tesla T4"),
        ("MI300X", "Instinct MI300X"),
        # cards without a row of their own
        ("RTX 4070", "RTX 4070"),
        ("rtx4070", "RTX 4070"),
        ("4070ti", "RTX 4070 Ti"),
        ("4090 laptop", "RTX 4090 Laptop GPU"),
        ("6700xt", "Radeon RX 6700 XT"),
        ("RTX A4000", "RTX A4000"),
        ("P40", "Tesla P40"),
    ],
)
def test_a_card_is_found_as_people_write_it(asked: str, name: str) -> None:
    assert find_card(asked, catalogue()).name == name


def test_every_card_is_found_by_its_own_name() -> None:
    for card in catalogue().cards:
        assert find_card(card.name, catalogue()).name == card.name


def test_an_unknown_card_has_neighbours() -> None:
    with pytest.raises(BadUsage) as told:
        find_card("RTX 3091", catalogue())
    assert "RTX 3090" in told.value.what
    assert told.value.next == "gpu-setup fit --card 'RTX 3090'"


def test_a_name_for_two_sizes_asks_which() -> None:
    with pytest.raises(BadUsage, match="4060 Ti 8GB, RTX 4060 Ti 16GB"):
        find_card("RTX 4060 Ti", catalogue())


def test_the_beginning_of_several_names_asks_which() -> None:
    with pytest.raises(BadUsage, match=r"H100 PCIe.*H100 SXM5 94GB"):
        find_card("H100", catalogue())


def test_a_size_that_no_table_has_can_be_given() -> None:
    with pytest.raises(BadUsage, match="RTX 5060 Ti") as refused:
        room("RTX 5060 Ti", "no-gpu")
    assert refused.value.next == "gpu-setup fit --card 'RTX 5060 Ti' --vram GIB"
    found = available_memory("RTX 5060 Ti", read_host(load("no-gpu")), catalogue(), 16)
    assert found and (found.card, found.bytes, found.here) == ("RTX 5060 Ti", 16 * 2**30 - 500_000_000, False)


def test_shared_memory_is_not_guessed() -> None:
    with pytest.raises(BadUsage, match="not known"):
        room("Radeon 8060S Graphics", "no-gpu")


def room(name: str | None, recorded: str) -> AvailableMemory | None:
    return available_memory(name, read_host(load(recorded)), catalogue())


def test_another_card_is_the_catalogues() -> None:
    found = room("RX 7900 XT", "no-gpu")
    assert found == AvailableMemory(
        "Radeon RX 7900 XT", 20 * 2**30 - 500_000_000, "20 GiB in the catalogue, minus 0.5 GiB kept free", False
    )


@pytest.mark.parametrize("recorded", ["rtx3090-healthy", "rx7900xt-healthy"])
def test_this_machines_card_is_what_is_free_now(recorded: str) -> None:
    found = room(None, recorded)
    assert found and found.here
    assert "free now" in found.source
    assert room(found.card, recorded) == found


def test_two_cards_give_the_roomier_one() -> None:
    found = room(None, "two-vendors")
    assert found
    both = [room(name, "two-vendors") for name in ("RTX 3090", "RX 7900 XTX")]
    assert found.bytes == max(each.bytes for each in both if each and each.here)


def test_a_machine_without_a_card_has_no_room() -> None:
    assert room(None, "no-gpu") is None
