"""A healthy machine of any vendor has no bad result; without a card the doctor exits 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host, PciCard
from checks.model import Status
from checks.registry import ALL
from checks.runner import exit_code, run
from tests.checks.rules.hosts import but, healthy_amd, healthy_nvidia, no_gpu, nvidia_card, raphael, two_vendors


@pytest.mark.parametrize("host", [healthy_nvidia, healthy_amd, two_vendors, no_gpu])
def test_a_healthy_machine_has_no_bad_result(host: Callable[[], Host]) -> None:
    report = run(host(), catalogue(), ALL)
    bad = {row.id: row.reason for row in report.results if row.status in (Status.FAIL, Status.WARN, Status.UNKNOWN)}
    assert bad == {}
    assert exit_code(report, strict=True) == 0


def test_without_a_card_the_reason_is_reported_and_the_doctor_exits_0() -> None:
    report = run(no_gpu(), catalogue(), ALL)
    (present,) = [row for row in report.results if row.id == "gpu.present"]
    assert present.status is Status.SKIP
    assert present.reason.startswith("No supported GPU: the PCI bus has no NVIDIA or AMD card")
    assert report.summary.skip > report.summary.passed
    assert exit_code(report) == 0


@pytest.mark.parametrize(
    "card", [raphael(), nvidia_card(driver="vfio-pci")], ids=["integrated graphics", "reserved for a virtual machine"]
)
def test_a_card_that_is_not_for_training_is_ignored(card: PciCard) -> None:
    report = run(but(no_gpu(), cards=(card,)), catalogue(), ALL)
    assert report.summary.fail == report.summary.warn == 0
    assert "No supported GPU" in next(row.reason for row in report.results if row.id == "gpu.present")


def test_a_card_that_is_not_known_is_named_by_its_id() -> None:
    host = but(healthy_nvidia(), cards=(nvidia_card(device="ffff"),))
    reasons = {row.id: row.reason for row in run(host, catalogue(), ALL).results}
    assert "10de:ffff (unknown to gpu-setup)" in reasons["gpu.present"]
    assert "10de:ffff (unknown to gpu-setup)" in reasons["gpu.supported"]


def test_two_cards_each_get_their_own_finding() -> None:
    second = nvidia_card(slot="0000:41:00.0", aer_correctable=900)
    host = but(healthy_nvidia(), cards=(nvidia_card(aer_correctable=500), second))
    (result,) = run(host, catalogue(), ALL, only=("gpu.aer",)).results
    assert [finding.subject for finding in result.findings] == ["0000:01:00.0 RTX 3090", "0000:41:00.0 RTX 3090"]
