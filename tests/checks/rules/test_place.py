"""Advice fits where the card is: in a slot, in an enclosure, or in a host of which this is a guest."""

from __future__ import annotations

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host, Link, PciCard
from checks.model import Fix, FixKind, Status
from checks.registry import ALL
from checks.rules.gpu.place import external
from checks.runner import judge
from tests.checks.rules.cases_kernel_log import FAULT_31, PAST, REBOOT
from tests.checks.rules.hosts import amd_card, but, healthy_amd, healthy_nvidia, nvidia_card, port

CHECKS = {check.id: check for check in ALL}
N, A = healthy_nvidia(), healthy_amd()
SCREEN = PciCard(slot="0000:00:02.0", vendor="8086", device="7d55", connectors_connected=("eDP-1",))
# as in FrameworkComputer/SoftwareFirmwareIssueTracker#37: the port, and the two ports of the enclosure's switch
SWITCH = (port(slot="0000:41:01.0"), port(slot="0000:40:00.0"), port(slot="0000:00:07.2"))
SMALL = (16 << 20, 256 << 20, 0, 32 << 20)
GSP = "[ 9.1] NVRM: Xid (PCI:0000:01:00): 119, pid=5121, name=game.exe, Timeout after 6s of waiting for RPC response"
RESET = REBOOT.replace("0x2 (Node Reboot Required)", "0x1 (GPU Reset Required)")


def fixes(check: str, host: Host) -> list[Fix]:
    return [finding.fix for finding in judge(CHECKS[check], host, catalogue()).findings if finding.fix]


def outside(**facts: object) -> Host:
    """A laptop with its card in an enclosure."""
    return but(N, cards=(SCREEN, nvidia_card(bridges=SWITCH, bar_bytes=SMALL, **facts)))


@pytest.mark.parametrize(
    ("cards", "is_external"),
    [
        ((nvidia_card(external=True),), True),
        ((nvidia_card(external=False, bridges=SWITCH), SCREEN), False),
        ((nvidia_card(bridges=SWITCH), SCREEN), True),
        ((nvidia_card(bridges=SWITCH),), False),
        ((nvidia_card(), SCREEN), False),
        # a Radeon in a slot has two bridges of its own
        ((amd_card(bridges=SWITCH), SCREEN), False),
        ((amd_card(bridges=(*SWITCH, port(slot="0000:42:00.0"), port(slot="0000:43:00.0"))), SCREEN), True),
    ],
    ids=[
        "firmware says so",
        "firmware denies",
        "switch and laptop",
        "server",
        "laptop's own",
        "Radeon",
        "Radeon outside",
    ],
)
def test_an_external_card_is_recognised(cards: tuple[PciCard, ...], is_external: bool) -> None:
    assert external(cards[0], but(N, cards=cards)) is is_external


def test_no_bios_switch_of_a_slot_is_named_for_an_external_card() -> None:
    host = outside()
    (window,) = fixes("gpu.rebar", host)
    assert "external" in window.text and "hpmmioprefsize" in window.text and "BIOS" not in window.text
    (hung,) = fixes("gpu.xid", but(host, kernel={"log": (GSP, RESET)}))
    assert "Thunderbolt port" in hung.text and "hpmmioprefsize" in hung.text and "BIOS" not in hung.text
    (inside,) = fixes("gpu.rebar", but(N, cards=(nvidia_card(bar_bytes=SMALL),)))
    assert inside.kind is FixKind.FIRMWARE and "BIOS" in inside.text


def test_four_lanes_of_an_external_card_are_what_thunderbolt_carries() -> None:
    narrow = Link(speed=8.0, width=4, max_speed=16.0, max_width=16)
    (fix,) = fixes("gpu.link-width", outside(link=narrow))
    assert "Thunderbolt carries four lanes" in fix.text
    assert judge(CHECKS["gpu.link-width"], outside(link=narrow), catalogue()).status is Status.PASS


def test_a_hang_of_the_firmware_is_one_finding_and_no_programs_fault() -> None:
    (finding,) = judge(CHECKS["gpu.xid"], but(outside(), kernel={"log": (GSP, RESET)}), catalogue()).findings
    assert "GPU Reset Required (Xid 154), after Xid 119" in finding.summary
    assert "external" in finding.why and "256 MiB" in finding.why and "whatever ran" in finding.why


def test_a_mapping_past_the_window_ends_in_resizable_bar_only_where_it_is_off() -> None:
    log = (*PAST, FAULT_31.format("chromium"), REBOOT)
    off, on = (but(N, cards=(card,), kernel={"log": log}) for card in (nvidia_card(bar_bytes=SMALL), nvidia_card()))
    assert "Resizable BAR" in fixes("gpu.xid", off)[0].text
    assert "Resizable BAR" not in fixes("gpu.xid", on)[0].text


@pytest.mark.parametrize(
    ("check", "line"),
    [
        ("gpu.fell-off-bus", "[ 9.1] NVRM: GPU 0000:01:00.0: GPU has fallen off the bus."),
        ("gpu.nvidia-errors", "[ 9.1] NVRM: GPU 0000:01:00.0: GPU does not have the necessary power cables connected."),
        ("gpu.xid", "[ 9.1] NVRM: Xid (PCI:0000:01:00): 48, pid=4711, name=python3, DBE (double bit error) ECC Error"),
    ],
)
def test_in_a_guest_the_host_must_act(check: str, line: str) -> None:
    (metal,) = fixes(check, but(N, kernel={"log": (line,)}))
    (guest,) = fixes(check, but(N, kernel={"log": (line,)}, os={"virtualisation": "kvm"}))
    assert metal.kind is FixKind.HARDWARE and guest.kind is FixKind.DOCS
    assert guest.text.startswith("This is a virtual machine. On its host: ")


@pytest.mark.parametrize("host", [N, A], ids=["NVIDIA", "AMD"])
def test_a_card_that_does_not_wake_gets_its_own_vendors_option(host: Host) -> None:
    (card,) = host.cards or ()
    line = f"[ 9.1] {card.driver} {card.slot}: Unable to change power state from D3hot to D0, device inaccessible"
    (fix,) = fixes("gpu.power-state", but(host, kernel={"log": (line,)}))
    assert ("amdgpu.runpm=0" in fix.text) is (card.vendor == "1002")
    assert ("NVreg_" in fix.text) is (card.vendor == "10de")
    assert f"{card.slot}/power/control" in fix.text


def test_the_first_error_of_a_start_is_quoted_and_the_explained_one() -> None:
    log = (
        "[ 4.1] amdgpu 0000:03:00.0: amdgpu: initializing kernel modesetting (ALDEBARAN 0x1002:0x740F)",
        "[ 4.2] amdgpu 0000:03:00.0: amdgpu: sw_init of IP block <gmc_v9_0> failed -12",
        "[ 4.3] amdgpu 0000:03:00.0: amdgpu: amdgpu_device_ip_init failed",
        "[ 4.4] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init",
        "[ 4.5] amdgpu: probe of 0000:03:00.0 failed with error -12",
    )
    host = but(A, cards=(amd_card(driver=None),), kernel={"log": log})
    (finding,) = judge(CHECKS["driver.bound"], host, catalogue()).findings
    quoted = [row.value for row in finding.evidence]
    assert log[1] in quoted and quoted.index(log[1]) == 1
    assert finding.fix and "-12" in finding.fix.text and "Above 4G Decoding" in finding.fix.text


def test_what_failed_in_this_boot_is_not_advised_again() -> None:
    log = ("[ 4.5] nvidia: probe of 0000:01:00.0 failed with error -1",)
    host = but(N, cards=(nvidia_card(driver=None),), kernel={"log": log, "loaded": ()})
    (finding,) = judge(CHECKS["driver.bound"], host, catalogue()).findings
    assert finding.fix and not finding.fix.argv and "modprobe" not in finding.fix.text


# ROCm/amdgpu#26, ROCm/legacy-rocm-build#6520
@pytest.mark.parametrize(
    "line", ["kfd kfd: skipped device 1002:744c, PCI rejects atomics", "amdgpu: PCIE atomic ops is not supported"]
)
def test_atomics_are_passed_by_the_host_of_a_guest(line: str) -> None:
    guest = but(A, os={"virtualisation": "kvm"}, kernel={"log": (f"[    7.0] {line}",)})
    (fix,) = fixes("kernel.pcie-atomics", guest)
    assert "On its host: pass the card alone" in fix.text
    assert fix.kind is FixKind.DOCS
