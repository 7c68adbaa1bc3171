"""The catalogue's cards: which row answers for a PCI id, and that every row can be used."""

import re
from datetime import date

import pytest

from checks.catalogue import Card, catalogue
from tests.subjects import for_each

GENERATIONS = {
    "volta", "turing", "ampere", "ada", "hopper", "blackwell",
    "vega", "rdna2", "rdna3", "rdna3.5", "rdna4", "cdna1", "cdna2", "cdna3", "cdna4",
}  # fmt: skip


def found(vendor: str, device: str, revision: str | None = None) -> str | None:
    card = catalogue().card(vendor, device, revision)
    return card.name if card else None


@pytest.mark.parametrize(
    ("vendor", "device", "revision", "name", "target", "memory"),
    [
        ("10de", "2203", "a1", "RTX 3090 Ti", "8.6", 24),
        ("10de", "26b1", "a1", "RTX 6000 Ada", "8.9", 48),
        ("1002", "744c", "cc", "Radeon RX 7900 XT", "gfx1100", 20),
        ("1002", "7448", "00", "Radeon PRO W7900", "gfx1100", 48),
    ],
)
def test_the_four_cards_of_the_article(
    vendor: str, device: str, revision: str, name: str, target: str, memory: float
) -> None:
    card = catalogue().card(vendor, device, revision)
    assert card is not None
    assert (card.name, card.target, card.vram_gb, card.supported) == (name, target, memory, True)


@pytest.mark.parametrize(
    ("device", "revision", "name"),
    [
        ("744c", "c8", "Radeon RX 7900 XTX"),
        ("744c", "cc", "Radeon RX 7900 XT"),
        ("744c", "ce", "Radeon RX 7900 GRE"),
        ("744c", "cf", "Radeon RX 7900M"),
        ("747e", "ff", "Radeon RX 7700 XT"),
        ("7480", "cf", "Radeon RX 7600"),
        ("7550", "c3", "Radeon RX 9070"),
        ("73bf", "c1", "Radeon RX 6800 XT"),
        ("73af", "c0", "Radeon RX 6900 XT"),
    ],
)
def test_amd_boards_that_share_an_id_differ_by_revision(device: str, revision: str, name: str) -> None:
    assert found("1002", device, revision) == name


@pytest.mark.parametrize("revision", ["99", "", None])
def test_an_unknown_revision_keeps_the_chip_and_claims_no_memory(revision: str | None) -> None:
    card = catalogue().card("1002", "744c", revision)
    assert card is not None
    assert (card.name, card.target, card.vram_gb) == ("Navi 31 (board not known)", "gfx1100", None)


def test_the_revision_of_an_nvidia_card_does_not_matter() -> None:
    assert {found("10de", "2204", revision) for revision in ("a1", "ff", None)} == {"RTX 3090"}


def test_an_id_of_another_vendor_is_not_found() -> None:
    assert found("1002", "2204") == "AMD GPU 1002:2204 (unknown to gpu-setup)"
    assert found("8086", "46d1") is None


def test_no_two_rows_match_the_same_board() -> None:
    keys = [
        (card.vendor, device, revision)
        for card in catalogue().cards
        for device in card.devices
        for revision in card.revisions or (None,)
    ]
    assert sorted(str(key) for key in keys) == sorted({str(key) for key in keys})


def test_no_name_is_given_twice() -> None:
    names = [card.name for card in catalogue().cards]
    assert len(names) == len(set(names))


@for_each("card", catalogue().cards, ids=lambda card: card.name)
def test_a_row_is_complete(card: Card) -> None:
    assert card.vendor in ("10de", "1002")
    assert card.devices
    assert all(re.fullmatch("[0-9a-f]{4}", device) for device in card.devices)
    assert all(re.fullmatch("[0-9a-f]{2}", revision) for revision in card.revisions)
    assert card.generation in GENERATIONS
    assert re.fullmatch(r"[0-9]+\.[0-9]" if card.vendor == "10de" else r"gfx[0-9a-f]{3,4}", card.target)
    assert card.source
    assert date.fromisoformat(card.date) <= date(2026, 12, 31)
    # a rate says what it is a rate of and how it is known
    assert (card.tflops is None) == (card.tflops_kind is None) == (card.tflops_basis is None)
    assert card.tflops_kind in (None, "bf16", "fp16")
    assert card.tflops_basis in (None, "table", "computed", "memory")
    # sizes are decimal GB, rates GB/s and TFLOPS: one in another unit would be far off
    assert card.vram_gb is None or 8 <= card.vram_gb <= 288
    assert card.bandwidth_gbs is None or 200 <= card.bandwidth_gbs <= 8000
    assert card.tflops is None or 20 <= card.tflops <= 2600
    assert card.power_w is None or 70 <= card.power_w <= 1400


@for_each("card", catalogue().cards, ids=lambda card: card.name)
def test_supported_means_that_a_stack_has_kernels_for_it(card: Card) -> None:
    in_a_stack = any(stack.runs(card.target) for stack in catalogue().stacks)
    if card.supported:
        assert catalogue().stacks_for(card)
    else:
        assert catalogue().stacks_for(card) == ()
        assert card.note, "a card that is not supported says why"
        assert not in_a_stack or "arm64" in card.note


def test_cards_without_bf16_rate_themselves_in_fp16() -> None:
    for card in catalogue().cards:
        if card.generation in ("volta", "turing", "rdna2", "vega") and card.tflops is not None:
            assert card.tflops_kind == "fp16", card.name
