"""The plan as a whole: machines that are refused, one vendor at a time, and the digest."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.catalogue import catalogue
from checks.facts.host import AptSource, Host, NvmlGpu, Os
from provision.model import Plan, seal
from provision.plan.planner import make_plan
from provision.target import DriverSource, PlanTarget, PlanVendor, Rocm
from tests.provision.plan.answers import planned, states
from tests.provision.plan.machines import (
    RAPHAEL,
    RTX_3090_TI,
    RX_7900_XT,
    amd_at_work,
    card,
    healthy_3090,
    packages,
    ubuntu,
)


def codes(found: Plan) -> list[str]:
    return [refusal.code for refusal in found.refusals]


def on(host: Host, **facts: object) -> Host:
    return msgspec.structs.replace(host, os=msgspec.structs.replace(host.os, **facts))


def test_without_a_card_there_is_nothing_to_install() -> None:
    found = planned(ubuntu())
    assert (found.steps, found.refusals, found.vendor) == ((), (), None)
    assert found.notes[0] == "No supported GPU: nothing to install."


def test_a_machine_without_a_card_is_never_refused_for_its_system() -> None:
    assert codes(planned(on(ubuntu(), id="debian", version_id="12", virtualisation="docker"))) == []


def test_an_unknown_card_of_nvidias_gets_a_driver_and_one_of_amds_is_named() -> None:
    newer = planned(ubuntu(card("10de", "ffff")))
    assert (newer.vendor, newer.refusals) == ("nvidia", ())
    found = planned(ubuntu(card("1002", "ffff")))
    assert found.steps == ()
    assert found.notes[0] == "No GPU that gpu-setup knows yet: nothing to install."
    assert "1002:ffff" in found.notes[1]


def test_two_vendors_are_a_choice_of_the_person() -> None:
    host = ubuntu(RTX_3090_TI, RX_7900_XT, amd=amd_at_work("gfx1100"))
    found = planned(host)
    assert codes(found) == ["plan.two-vendors"]
    assert found.steps == ()
    assert "--vendor nvidia" in found.refusals[0].next
    nvidia, amd = planned(host, vendor="nvidia"), planned(host, vendor="amd")
    assert "nvidia-driver" in states(nvidia)
    assert "groups" not in states(nvidia)
    assert "groups" in states(amd)
    assert "nvidia-driver" not in states(amd)
    assert any("RTX 3090 Ti" in note and "is not changed" in note for note in amd.notes)


def test_an_integrated_gpu_does_not_make_two_vendors() -> None:
    assert planned(ubuntu(RTX_3090_TI, RAPHAEL)).vendor == "nvidia"


def test_a_missing_vendor_is_refused_with_the_one_present() -> None:
    assert codes(planned(ubuntu(RTX_3090_TI), vendor="amd")) == ["plan.vendor-absent"]


@pytest.mark.parametrize("cards", [(), (RTX_3090_TI,)])
def test_wsl_never_gets_a_linux_driver(cards: tuple[object, ...]) -> None:
    found = planned(on(ubuntu(*cards), virtualisation="wsl"))  # type: ignore[arg-type]
    assert codes(found) == ["plan.wsl"]
    assert "Windows" in found.refusals[0].next


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"virtualisation": "docker"}, "plan.container"),
        ({"virtualisation": "lxc"}, "plan.container"),
        ({"version_id": "22.04"}, "plan.os"),
        ({"id": "debian", "version_id": "12"}, "plan.os"),
        ({"arch": "aarch64"}, "plan.os"),
        ({"id": None}, "plan.os-unknown"),
    ],
)
def test_machines_on_which_nothing_is_changed(facts: dict[str, object], code: str) -> None:
    found = planned(on(ubuntu(RTX_3090_TI), **facts))
    assert codes(found) == [code]
    assert found.steps == ()
    assert all(refusal.what and refusal.why and refusal.next for refusal in found.refusals)


def test_a_card_for_a_virtual_machine_is_left_to_it() -> None:
    reserved = msgspec.structs.replace(RTX_3090_TI, driver="vfio-pci")
    assert codes(planned(ubuntu(reserved))) == ["plan.reserved"]
    # beside a free card it is only left out, also where it is the other vendor's
    found = planned(ubuntu(reserved, RX_7900_XT, amd=amd_at_work("gfx1100")))
    assert found.vendor == "amd"
    assert any("reserved for a virtual machine" in note for note in found.notes)


def test_a_vgpu_needs_its_hosts_driver() -> None:
    host = healthy_3090()
    slice_ = msgspec.structs.replace(host.nvidia, nvml=(NvmlGpu(name="NVIDIA A40-48Q"),))
    assert codes(planned(msgspec.structs.replace(host, nvidia=slice_))) == ["plan.vgpu"]
    assert codes(planned(ubuntu(RTX_3090_TI, installed=packages("nvidia-linux-grid-535")))) == ["plan.vgpu"]


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3090", "NVIDIA A100-SXM4-40GB", "NVIDIA RTX 6000 Ada Generation"])
def test_whole_cards_are_not_taken_for_slices(name: str) -> None:
    host = healthy_3090()
    whole = msgspec.structs.replace(host.nvidia, nvml=(NvmlGpu(name=name),))
    assert codes(planned(msgspec.structs.replace(host, nvidia=whole))) == []


def test_a_card_passed_through_whole_is_planned_for_with_a_word_of_warning() -> None:
    found = planned(on(ubuntu(RTX_3090_TI), virtualisation="kvm"))
    assert codes(found) == []
    assert any("virtual machine (kvm)" in note for note in found.notes)


def test_an_ubuntu_with_tpm_encryption_is_refused() -> None:
    host = ubuntu(RTX_3090_TI)
    kernel = msgspec.structs.replace(host.kernel, cmdline=("snapd_recovery_mode=run", "quiet"))
    assert codes(planned(msgspec.structs.replace(host, kernel=kernel))) == ["plan.tpm-encryption"]


def test_unreadable_pci_is_not_taken_for_no_card() -> None:
    assert codes(planned(msgspec.structs.replace(ubuntu(), cards=None))) == ["plan.cards-unknown"]


def test_sizes_and_versions_are_not_made_up() -> None:
    found = planned(ubuntu(RTX_3090_TI))
    assert found.download_bytes is None
    assert "apt" in found.download_note
    document = msgspec.to_builtins(found)
    driver = next(step for step in document["steps"] if step["id"] == "nvidia-driver")
    assert driver["action"]["kind"] == "apt-install"
    assert {package["version"] for package in driver["action"]["packages"]} == {None}


def test_the_same_facts_give_the_same_plan() -> None:
    one, two = planned(ubuntu(RTX_3090_TI)), planned(ubuntu(RTX_3090_TI))
    assert msgspec.json.encode(one) == msgspec.json.encode(two)
    assert len(one.digest) == 64


def test_the_digest_covers_the_whole_plan() -> None:
    found = planned(ubuntu(RTX_3090_TI))
    assert seal(found) == found
    tampered = msgspec.structs.replace(found, steps=found.steps[:-1])
    assert seal(tampered).digest != found.digest
    assert planned(ubuntu(RTX_3090_TI), source="nvidia").digest != found.digest


def test_the_host_digest_changes_with_what_the_plan_rests_on_and_not_with_the_weather() -> None:
    host = healthy_3090()
    warm = msgspec.structs.replace(
        host,
        nvidia=msgspec.structs.replace(
            host.nvidia, nvml=tuple(msgspec.structs.replace(gpu, temperature=83) for gpu in host.nvidia.nvml or ())
        ),
        taken_at="2027-01-01T00:00:00Z",
    )
    assert planned(warm).host_digest == planned(host).host_digest
    assert planned(on(host, graphical=False)).host_digest != planned(host).host_digest


def test_a_plan_survives_the_journey_through_json() -> None:
    found = planned(ubuntu(RTX_3090_TI), source="nvidia")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Plan) == found


def test_every_open_step_says_why_and_how_it_is_undone() -> None:
    for found in (
        planned(ubuntu(RTX_3090_TI), source="nvidia", toolkit=True),
        planned(ubuntu(RX_7900_XT), rocm="host"),
    ):
        for step in found.open_steps():
            assert step.because.endswith((".", ":")), step.id
            assert step.undo, step.id
            assert "None" not in step.because, step.id
        assert len({step.id for step in found.steps}) == len(found.steps)


SOURCE = AptSource(file="a", uri="https://developer.download.nvidia.com/compute/cuda/repos/x", owner="nvidia")
MACHINES = (
    healthy_3090(),
    ubuntu(RTX_3090_TI, installed=packages("nvidia-driver-610-open", "nvidia-dkms-610-open")),
    ubuntu(RX_7900_XT, amd=amd_at_work("gfx1100"), installed=packages("rocm", "amdgpu-dkms")),
    ubuntu(RTX_3090_TI, RX_7900_XT),
)


def forgotten(host: Host, gaps: set[str]) -> Host:
    """The host with these facts (`part.field`, or a whole `cards`) not known."""
    for gap in sorted(gaps):
        part, _, field = gap.partition(".")
        if not field:
            host = msgspec.structs.replace(host, **{part: None})
        else:
            host = msgspec.structs.replace(
                host, **{part: msgspec.structs.replace(getattr(host, part), **{field: None})}
            )
    return host


GAPS = sorted(
    {"cards"}
    | {
        f"{part}.{field.name}"
        for part in ("os", "kernel", "firmware", "nvidia", "amd", "apt", "docker", "python", "person")
        for field in msgspec.structs.fields(type(getattr(MACHINES[0], part)))
        if not field.required and field.default is None
    }
)


@settings(max_examples=80, deadline=None)
@given(
    host=st.sampled_from(MACHINES),
    gaps=st.sets(st.sampled_from(GAPS), max_size=len(GAPS)),
    vendor=st.sampled_from(PlanVendor),
    source=st.sampled_from(DriverSource),
    rocm=st.sampled_from(Rocm),
    toolkit=st.booleans(),
)
def test_whatever_could_not_be_read_there_is_a_plan_or_a_refusal(
    host: Host, gaps: set[str], vendor: PlanVendor, source: DriverSource, rocm: Rocm, toolkit: bool
) -> None:
    target = PlanTarget(vendor=vendor, source=source, rocm=rocm, toolkit=toolkit)
    found = make_plan(forgotten(host, gaps), catalogue(), target)
    assert bool(found.refusals) != bool(found.steps)
    assert all(step.because for step in found.steps)
    assert found.reboots in (0, 1)


def test_os_facts_stand_for_themselves() -> None:
    blank = Os()
    assert codes(planned(msgspec.structs.replace(ubuntu(RTX_3090_TI), os=blank))) == ["plan.os-unknown"]
