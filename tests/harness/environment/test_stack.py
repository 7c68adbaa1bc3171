"""Which stack a machine trains on, and why not another: the recorded machines, and hosts with one thing changed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from harness.environment.stack_choice import choose_stack
from machine.recording import RecordedMachine
from tests.recorded_machines import names
from tests.subjects import for_each

# machine → stack, and a word of the reason
CHOSEN = {
    "no-gpu": ("cpu", "no supported GPU"),
    "rtx3090-healthy": ("cu130", "RTX 3090"),
    "rtx3090ti-fresh": ("cpu", "NVML does not answer"),
    "rtx6000ada-fresh": ("cpu", "NVML does not answer"),
    "rtx3090-library-mismatch": ("cpu", "NVML does not answer"),
    "rx7900xt-fresh": ("cpu", "/dev/kfd"),
    "w7900-fresh": ("cpu", "/dev/kfd"),
    "rx7900xtx-healthy": ("rocm7.2", "RX 7900 XTX"),
}


@pytest.mark.parametrize("name", sorted(CHOSEN))
def test_recorded_machines(machine: Callable[[str], RecordedMachine], name: str) -> None:
    choice = choose_stack(read_host(machine(name)), catalogue())
    stack, words = CHOSEN[name]
    assert choice.stack.name == stack
    assert words in choice.because
    assert choice.gpu is (stack != "cpu")


@for_each("name", names())
def test_every_recorded_machine_gets_a_stack_that_can_be_built(
    machine: Callable[[str], RecordedMachine], name: str
) -> None:
    choice = choose_stack(read_host(machine(name)), catalogue())
    assert choice.stack.lock
    assert choice.because


@pytest.fixture
def healthy(machine: Callable[[str], RecordedMachine]) -> Host:
    return read_host(machine("rtx3090-healthy"))


def test_a_driver_below_the_floor_is_named(healthy: Host) -> None:
    old = msgspec.structs.replace(
        healthy, nvidia=msgspec.structs.replace(healthy.nvidia, module_version="470.256.02", nvml_driver="470.256.02")
    )
    choice = choose_stack(old, catalogue())
    assert choice.stack.name == "cpu"
    assert "cu130 needs driver 580 or newer" in choice.because
    assert "cu126 needs driver 525 or newer" in choice.because


def test_a_driver_below_the_newest_floor_gets_the_older_cuda(healthy: Host) -> None:
    old = msgspec.structs.replace(
        healthy, nvidia=msgspec.structs.replace(healthy.nvidia, module_version="560.35.03", nvml_driver="560.35.03")
    )
    assert choose_stack(old, catalogue()).stack.name == "cu126"


def test_a_card_that_is_not_known_is_what_its_driver_says(healthy: Host) -> None:
    assert healthy.cards
    strange = tuple(msgspec.structs.replace(card, device="ffff", reported_name="NVIDIA Next") for card in healthy.cards)
    newer = tuple(msgspec.structs.replace(card, reported_target="13.0") for card in strange)
    silent = tuple(msgspec.structs.replace(card, reported_target=None) for card in strange)
    choice = {
        key: choose_stack(msgspec.structs.replace(healthy, cards=cards), catalogue())
        for key, cards in (("same", strange), ("newer", newer), ("silent", silent))
    }
    assert (choice["same"].stack.name, choice["same"].because) == ("cu130", "Next (8.6) with a working driver")
    assert (choice["newer"].gpu, choice["newer"].because) == (False, "Next: no stack has kernels for 13.0")
    assert (choice["silent"].gpu, choice["silent"].because) == (False, "Next: no stack has kernels for it")


def test_cards_that_could_not_be_read(healthy: Host) -> None:
    assert not choose_stack(msgspec.structs.replace(healthy, cards=None), catalogue()).gpu


def test_a_kfd_that_opens_makes_an_amd_card_usable(machine: Callable[[str], RecordedMachine]) -> None:
    host = read_host(machine("rx7900xtx-healthy"))
    assert host.amd.kfd is not None and host.amd.kfd.usable
    assert choose_stack(host, catalogue()).stack.name.startswith("rocm")
