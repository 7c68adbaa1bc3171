"""Which image a machine gets, or why it gets none."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checks.catalogue import Card, catalogue
from checks.facts.host import Host
from containers.model import Access, ImageSpec, ImageVendor
from containers.spec import image_spec
from machine.errors import BadUsage, Problem, Refused
from tests.containers.hosts import RX_6700_XT, host, rx_6700_xt, with_cards, with_driver, with_kernel
from tests.subjects import for_each

RTX_3090 = ("10de", "2204", None)
RTX_5090 = ("10de", "2b85", None)
V100 = ("10de", "1db1", None)
RX_7900_XTX = ("1002", "744c", "c8")


def spec(
    machine: Host, vendor: ImageVendor = ImageVendor.AUTO, base: str | None = None, python: str | None = None
) -> ImageSpec:
    return image_spec(machine, catalogue(), vendor, base, python)


def refused(machine: Host, vendor: ImageVendor = ImageVendor.AUTO) -> Problem:
    with pytest.raises(Refused) as caught:
        spec(machine, vendor)
    assert caught.value.what and caught.value.why and caught.value.next
    return caught.value


@pytest.mark.parametrize(
    ("driver", "stack"), [("595.84", "cu130"), ("580.65.06", "cu130"), ("575.64.03", "cu126"), ("525.60.13", "cu126")]
)
def test_the_driver_decides_which_cuda(driver: str, stack: str) -> None:
    made = spec(with_driver(host("rtx3090-healthy"), driver))
    assert made.stack == stack
    assert f"driver {driver}" in made.because


def test_a_slightly_old_driver_gets_a_stack_that_fits_and_a_note_about_the_better_one() -> None:
    made = spec(with_driver(host("rtx3090-healthy"), "560.35.03"))
    assert any("cu130 is preferred, but needs" in note and "--branch 580" in note for note in made.notes)


def test_a_driver_that_is_too_old_for_any_is_refused_with_the_step() -> None:
    problem = refused(with_driver(host("rtx3090-healthy"), "470.256.02"))
    assert problem.code == "image.driver-too-old"
    assert "525.60.13" in problem.what
    assert "gpu-setup plan --branch 525" in problem.next


def test_blackwell_has_no_older_cuda_to_fall_back_to() -> None:
    problem = refused(with_driver(host("rtx5090-healthy"), "570.86.16"))
    assert problem.code == "image.driver-too-old"
    assert "580.65.06" in problem.what and "--branch 580" in problem.next


def test_without_a_driver_the_image_says_which_one_it_needs() -> None:
    made = spec(host("rtx3090ti-fresh"))
    assert made.stack == "cu130"
    assert "580.65.06 or newer" in made.because


def test_volta_gets_cuda_12() -> None:
    assert spec(host("v100-server-healthy")).stack == "cu126"


def test_an_old_kernel_does_not_drive_rdna4() -> None:
    problem = refused(with_kernel(host("rx9070xt-healthy"), "6.8.0-60-generic"))
    assert problem.code == "image.kernel-too-old"
    assert "6.14" in problem.what


def test_amds_own_driver_needs_no_new_kernel() -> None:
    machine = with_kernel(host("rx9070xt-healthy"), "6.8.0-60-generic")
    assert spec(replace(machine, amd=replace(machine.amd, module_version="6.16.13"))).stack == "rocm7.2"


def test_a_card_that_only_rocm_10_supports_gets_its_extra() -> None:
    made = spec(rx_6700_xt())
    assert made.stack == "rocm10.0"
    assert made.torch_requirement == "torch[device-gfx1031]==2.13.0+rocm10.0.0"
    assert (made.cuda, made.hip) == (None, "7.15")


def test_cards_of_two_kinds_get_the_kernels_of_both() -> None:
    made = spec(with_cards(host("rx6900xt-healthy"), RX_6700_XT, RX_7900_XTX))
    assert made.stack == "rocm10.0"
    assert made.torch_requirement == "torch[device-gfx1031,device-gfx1100]==2.13.0+rocm10.0.0"


def test_two_vendors_need_a_choice() -> None:
    machine = host("two-vendors")
    assert refused(machine).code == "image.two-vendors"
    assert "--vendor" in refused(machine).next
    assert spec(machine, ImageVendor.NVIDIA).stack == "cu130"
    assert spec(machine, ImageVendor.AMD).stack == "rocm7.2"


def test_without_a_card_the_cpu_image_is_chosen() -> None:
    made = spec(host("no-gpu"))
    assert (made.stack, made.access, made.cuda, made.hip) == ("cpu", Access.NONE, None, None)


def test_the_cpu_image_can_be_requested_on_any_machine() -> None:
    assert spec(host("radeonvii"), ImageVendor.CPU).stack == "cpu"


@pytest.mark.parametrize(
    ("name", "code"),
    [("radeonvii", "image.no-stack"), ("vfio-host", "image.reserved")],
)
def test_a_card_that_no_image_can_be_for(name: str, code: str) -> None:
    problem = refused(host(name))
    assert problem.code == code
    assert "--vendor cpu" in problem.next


@pytest.mark.parametrize("vendor", ["10de", "1002"])
def test_a_card_that_nobody_knows_and_no_driver_reports_is_not_guessed(vendor: str) -> None:
    problem = refused(with_cards(host("rtx3090ti-fresh"), (vendor, "ffff", None)))
    assert problem.code == "image.unknown-card"
    assert f"{vendor}:ffff" in problem.what and "newer than gpu-setup's data" in problem.what


def test_a_missing_vendor_is_refused() -> None:
    assert refused(host("no-gpu"), ImageVendor.NVIDIA).code == "image.vendor-absent"


def test_cards_that_could_not_be_read() -> None:
    assert refused(replace(host("no-gpu"), cards=None)).code == "image.cards-unknown"


def test_nvml_gives_the_compute_capability_of_an_unknown_card() -> None:
    machine = with_cards(host("rtx5090-healthy"), ("10de", "ffff", None))
    assert machine.cards
    card = replace(machine.cards[0], reported_target="12.0", reported_name="NVIDIA Next")
    made = spec(replace(machine, cards=(card,)))
    assert (made.stack, made.targets, made.cards) == ("cu130", ("12.0",), ("Next",))


def test_several_cards_get_one_image_for_all_of_them() -> None:
    made = spec(with_cards(host("rtx5090-healthy"), RTX_3090, RTX_5090))
    assert made.targets == ("12.0", "8.6")
    assert made.stack == "cu130"


def test_cards_that_no_image_covers_together_are_named() -> None:
    made = spec(with_driver(with_cards(host("rtx5090-healthy"), V100, RTX_5090, RTX_5090), "580.95.05"))
    assert made.stack == "cu130"
    assert any("no kernels for" in note and "V100" in note for note in made.notes)


@for_each("card", catalogue().cards, ids=lambda card: card.name)
def test_every_card_of_the_catalogue_gets_an_image_or_a_reason(card: Card) -> None:
    """On a machine whose driver and kernel are new enough."""
    machine = host("rtx3090-healthy" if card.vendor == "10de" else "rx9070xt-healthy")
    machine = with_cards(machine, (card.vendor, card.devices[0], card.revisions[0] if card.revisions else None))
    if card.integrated and not card.supported:
        assert spec(machine).stack == "cpu"
    elif card.integrated:
        assert spec(machine).vendor in ("cpu", "amd")
    elif card.supported:
        assert card.target in spec(machine).targets
    else:
        assert refused(machine).code == "image.no-stack"


@pytest.mark.parametrize(
    ("base", "python", "reference"),
    [
        ("debian:bookworm", None, "3.11"),
        ("debian:trixie", None, "3.13"),
        ("registry.example:5000/team/base:7", "3.12", "3.12"),
        ("ubuntu:24.04@sha256:" + "0" * 64, None, "3.12"),
    ],
)
def test_another_base_brings_its_python(base: str, python: str | None, reference: str) -> None:
    made = spec(host("rtx3090-healthy"), base=base, python=python)
    assert made.base == base
    assert made.python == reference


@pytest.mark.parametrize(
    ("base", "python", "code"),
    [
        ("company/base:1", None, "image.base-python"),
        ("company/base:1", "3.9", "image.python"),
        ("debian:bookworm", "3.12", "image.python"),
        ("ubuntu:24.04\nRUN rm -rf /", None, "image.base"),
        ("$(reboot)", None, "image.base"),
        ("", None, "image.base"),
    ],
)
def test_a_base_that_cannot_be_used(base: str, python: str | None, code: str) -> None:
    with pytest.raises(BadUsage) as caught:
        spec(host("rtx3090-healthy"), base=base, python=python)
    assert caught.value.code == code


def test_what_nobody_has_built_says_so() -> None:
    for name, unproven in (("no-gpu", False), ("rtx3090-healthy", True), ("rx7900xtx-healthy", True)):
        made = spec(host(name))
        assert any(note.startswith("unverified: the stack") for note in made.notes) is unproven
        assert (made.verified == "unverified") is unproven
