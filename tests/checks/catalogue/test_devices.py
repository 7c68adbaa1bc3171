"""Every GPU of the PCI id database has an answer, and real cards have the right one."""

import importlib.util
from types import ModuleType
from typing import Any, NamedTuple

import msgspec
import pytest

from checks.catalogue import NEWER, Card, catalogue
from checks.devices import find_device, named_devices
from checks.facts.host import Host, KfdNode, NvmlGpu, PciCard
from checks.facts.pci import as_reported
from checks.model import Status
from checks.registry import ALL
from checks.rules.cards import row_of
from checks.runner import judge
from containers.spec import image_spec
from harness.environment.stack_choice import choose_stack
from machine.errors import Refused
from provision.model import State
from provision.plan.planner import make_plan
from provision.target import PlanTarget
from tests.checks.rules.hosts import but, healthy_amd, healthy_nvidia, nvidia_card
from tests.subjects import for_each
from tests.tool import ROOT

CHECKS = {check.id: check for check in ALL}
DEVICES = ROOT / "checks" / "data" / "devices"


def card(device: str, revision: str | None = None, target: str | None = None, name: str | None = None) -> Card:
    vendor, _, device = device.partition(":")
    found = catalogue().card(vendor, device, revision, target, name)
    assert found
    return found


class Real(NamedTuple):
    """A real card: its ids and what it is; `stack`: the first one that has kernels for it, "" none."""

    ids: str
    name: str
    chip: str
    generation: str
    target: str
    stack: str


# ids and names: pci.ids and NVIDIA's list of supported GPU products; capabilities: developer.nvidia.com/cuda-gpus and
# cuda-legacy-gpus; AMD's boards: amdgpu.ids; gfx names: LLVM's AMDGPUUsage and AMD's GPU specifications
REAL = [
    Real("10de:05e2", "GTX 260", "GT200", "pre-fermi", "", ""),
    Real("10de:1080", "GTX 580", "GF110", "fermi", "2.0", ""),
    Real("10de:1187", "GTX 760", "GK104", "kepler", "3.0", ""),
    Real("10de:1004", "GTX 780", "GK110", "kepler", "3.5", ""),
    Real("10de:102d", "Tesla K80", "GK210", "kepler", "3.7", ""),
    Real("10de:1380", "GTX 750 Ti", "GM107", "maxwell", "5.0", ""),
    Real("10de:13c2", "GTX 970", "GM204", "maxwell", "5.2", ""),
    Real("10de:17fd", "Tesla M40", "GM200", "maxwell", "5.2", ""),
    Real("10de:15f8", "Tesla P100 PCIe 16GB", "GP100", "pascal", "6.0", "cu126"),
    Real("10de:1b06", "GTX 1080 Ti", "GP102", "pascal", "6.1", "cu126"),
    Real("10de:1b38", "Tesla P40", "GP102", "pascal", "6.1", "cu126"),
    Real("10de:1d01", "GeForce GT 1030", "GP108", "pascal", "6.1", "cu126"),
    Real("10de:1db4", "Tesla V100 PCIe 16GB", "GV100", "volta", "7.0", "cu126"),
    Real("10de:1d81", "TITAN V", "GV100", "volta", "7.0", "cu126"),
    Real("10de:1e84", "RTX 2070 SUPER", "TU104", "turing", "7.5", "cu130"),
    Real("10de:1f82", "GTX 1650", "TU117", "turing", "7.5", "cu130"),
    Real("10de:1f11", "RTX 2060 Mobile", "TU106", "turing", "7.5", "cu130"),
    Real("10de:2189", "CMP 30HX", "TU116", "turing", "7.5", "cu130"),
    Real("10de:20f1", "A100 PCIe 40GB", "GA100", "ampere", "8.0", "cu130"),
    Real("10de:2484", "RTX 3070", "GA104", "ampere", "8.6", "cu130"),
    Real("10de:2489", "RTX 3060 Ti", "GA104", "ampere", "8.6", "cu130"),
    Real("10de:24b0", "RTX A4000", "GA104", "ampere", "8.6", "cu130"),
    Real("10de:2520", "RTX 3060 Laptop GPU", "GA106", "ampere", "8.6", "cu130"),
    Real("10de:2786", "RTX 4070", "AD104", "ada", "8.9", "cu130"),
    Real("10de:2882", "RTX 4060", "AD107", "ada", "8.9", "cu130"),
    Real("10de:2820", "RTX 4070 Laptop GPU", "AD106", "ada", "8.9", "cu130"),
    Real("10de:2757", "RTX 4090 Laptop GPU", "AD103", "ada", "8.9", "cu130"),
    Real("10de:2331", "H100 PCIe", "GH100", "hopper", "9.0", "cu130"),
    Real("10de:2901", "B200", "GB100", "blackwell", "10.0", "cu130"),
    Real("10de:3182", "B300 SXM6 AC", "GB110", "blackwell", "10.3", "cu130"),
    Real("10de:2d05", "RTX 5060", "GB206", "blackwell", "12.0", "cu130"),
    Real("10de:2d19", "RTX 5060 Laptop GPU", "GB206", "blackwell", "12.0", "cu130"),
    Real("10de:2b00", "Jetson AGX Thor", "GB10B", "blackwell", "11.0", ""),
    Real("1002:68b8", "Radeon HD 5770", "Juniper XT", "pre-gcn", "", ""),
    Real("1002:6798", "Tahiti XT (board not known)", "Tahiti XT", "gcn1", "gfx600", ""),
    Real("1002:67b0:00", "Radeon R9 200 Series", "Hawaii XT", "gcn2", "gfx701", ""),
    Real("1002:6939:00", "Radeon R9 200 Series", "Tonga PRO", "gcn3", "gfx802", ""),
    Real("1002:67df:e7", "Radeon RX 580 Series", "Ellesmere", "gcn4", "gfx803", ""),
    Real("1002:687f:c1", "Radeon RX Vega", "Vega 10 XL/XT", "vega", "gfx900", ""),
    Real("1002:66a1:02", "Instinct MI60 / MI50", "Vega 20", "vega", "gfx906", ""),
    Real("1002:731f:c1", "Radeon RX 5700 XT", "Navi 10", "rdna1", "gfx1010", ""),
    Real("1002:13fe", "BC-250", "Cyan Skillfish", "rdna1", "gfx1013", ""),
    Real("1002:73df:c1", "Radeon RX 6700 XT", "Navi 22", "rdna2", "gfx1031", "rocm10.0"),
    Real("1002:73df:c0", "Radeon RX 6750 XT", "Navi 22", "rdna2", "gfx1031", "rocm10.0"),
    Real("1002:73ff:c7", "Radeon RX 6600", "Navi 23", "rdna2", "gfx1032", "rocm10.0"),
    Real("1002:73ef:c1", "Radeon RX 6650 XT", "Navi 23", "rdna2", "gfx1032", "rocm10.0"),
    Real("1002:743f:c1", "Radeon RX 6500 XT", "Navi 24", "rdna2", "gfx1034", "rocm10.0"),
    Real("1002:7480:c7", "Radeon RX 7600M XT", "Navi 33", "rdna3", "gfx1102", "rocm7.2"),
    Real("1002:7590:c1", "Radeon RX 9060 XT LP", "Navi 44", "rdna4", "gfx1200", "rocm7.2"),
    Real("1002:164e:d8", "Radeon 610M", "Raphael", "rdna2", "gfx1036", ""),
    Real("1002:1638:c8", "Radeon Vega Series / Radeon Vega Mobile Series", "Cezanne", "vega", "gfx90c", ""),
    Real("1002:15bf:c1", "Radeon 780M Graphics", "Phoenix1", "rdna3", "gfx1103", "rocm7.2"),
    Real("1002:150e:c1", "Radeon 890M Graphics", "Strix", "rdna3.5", "gfx1150", "rocm7.2"),
    Real("1002:1586:c1", "Radeon 8060S Graphics", "Strix Halo", "rdna3.5", "gfx1151", "rocm7.2"),
    Real("1002:740f", "Instinct MI210", "Aldebaran", "cdna2", "gfx90a", "rocm7.2"),
    Real("1002:74a2:00", "Instinct MI308X", "Aqua Vanjaram", "cdna3", "gfx942", "rocm7.2"),
    Real("1002:75a8", "Instinct MI350P", "Aqua Vanjaram", "cdna4", "gfx950", "rocm7.2"),
]


def real_card(real: Real) -> Card:
    device, revision = real.ids[:9], real.ids[10:]
    return card(device, revision or None)


@for_each("real", REAL, ids=lambda real: real.ids)
def test_a_real_card_is_what_it_is(real: Real) -> None:
    found = real_card(real)
    assert (found.name, found.chip, found.generation, found.target) == real[1:5]
    assert "".join(stack.name for stack in catalogue().stacks_for(found)[:1]) == real.stack
    assert found.note or real.stack, "what has no stack says why"


def on_the_bus(real: Real, driver: str | None) -> PciCard:
    vendor, device = real.ids[:4], real.ids[5:9]
    return nvidia_card(vendor=vendor, device=device, revision=real.ids[10:] or None, driver=driver)


@for_each("real", REAL, ids=lambda real: real.ids)
def test_every_user_of_a_card_decides_alike(real: Real) -> None:
    """With and without a driver: what doctor, plan, image and training say of the same card."""
    found, vendor = real_card(real), "nvidia" if real.ids.startswith("10de") else "amd"
    healthy = healthy_nvidia() if vendor == "nvidia" else healthy_amd()
    bound = but(healthy, cards=(on_the_bus(real, "nvidia" if vendor == "nvidia" else "amdgpu"),))
    fresh = but(
        healthy, cards=(on_the_bus(real, None),), nvidia={"nvml": None, "module_version": None}, apt={"packages": ()}
    )
    judged = judge(CHECKS["gpu.supported"], bound, catalogue())
    plans = [make_plan(host, catalogue(), PlanTarget()) for host in (bound, fresh)]
    if real.stack and not found.integrated:
        assert judged.status is Status.PASS
        assert real.target in (judged.findings[0].summary if judged.findings else judged.reason)
        assert [plan.vendor for plan in plans] == [vendor, vendor]
        assert not any("No supported GPU" in note for plan in plans for note in plan.notes)
        assert image_spec(fresh, catalogue()).targets == (real.target,)
        if vendor == "nvidia":
            title = next(step.title for step in plans[1].steps if step.id == "nvidia-driver")
            wanted = ("580", "proprietary") if real.generation in ("pascal", "volta") else ("595", "open")
            assert all(word in title for word in wanted), title
    elif found.integrated:
        assert judged.status is Status.SKIP
    else:
        assert judged.status is Status.WARN
        assert real.name in judged.findings[0].summary and judged.findings[0].why
        assert all(any(real.name in note and found.note in note for note in plan.notes) for plan in plans)
        with pytest.raises(Refused, match="No training stack"):
            image_spec(bound, catalogue())
        assert real.name in choose_stack(bound, catalogue()).because


@pytest.mark.parametrize(
    ("target", "stacks"),
    [
        ("13.0", ()), ("12.0", ("cu130",)), ("8.7", ("cu130", "cu126")), ("6.1", ("cu126",)),
        ("5.2", ()), ("3.5", ()),
    ],
)  # fmt: skip
def test_an_nvidia_card_newer_than_the_tables_is_what_its_driver_says(target: str, stacks: tuple[str, ...]) -> None:
    found = card("10de:ffff", None, target, "NVIDIA GeForce RTX 6090")
    assert (found.name, found.target, found.unknown) == ("GeForce RTX 6090", target, False)
    assert tuple(stack.name for stack in catalogue().stacks_for(found)) == stacks


def test_an_amd_card_newer_than_the_tables_is_what_kfd_says() -> None:
    found = card("1002:ffff", None, "gfx1201")
    assert (found.generation, found.integrated, found.supported) == ("rdna4", False, True)
    assert card("1002:ffff", None, "gfx1151").integrated, "this architecture is in CPUs only"
    newest = card("1002:ffff", None, "gfx1250")
    assert (newest.generation, newest.supported) == (NEWER, False)


def test_the_driver_has_the_last_word_over_the_tables() -> None:
    assert card("10de:2786", None, "8.6").target == "8.6"
    assert card("1002:73df", "c1", "gfx1030").supported


def unknown_machine(vendor: str, **more: Any) -> Host:
    healthy = healthy_nvidia() if vendor == "10de" else healthy_amd()
    bare = {"nvml": None, "module_version": None, "nvml_driver": None}
    return but(healthy, cards=(nvidia_card(vendor=vendor, device="ffff", **more),), nvidia=bare, apt={"packages": ()})


def test_without_a_driver_an_unknown_nvidia_card_gets_the_newest_branch_with_open_modules() -> None:
    host = unknown_machine("10de", driver=None)
    plan = make_plan(host, catalogue(), PlanTarget())
    (driver,) = [step for step in plan.steps if step.id == "nvidia-driver"]
    assert "595" in driver.title and "open" in driver.title
    assert "cards newer than gpu-setup's data" in driver.because
    for check in ("gpu.present", "gpu.supported"):
        said = judge(CHECKS[check], host, catalogue()).reason
        assert "10de:ffff" in said and "supported GPU" not in said


def test_a_driver_that_does_not_report_an_unknown_card_is_older_than_it() -> None:
    host = but(
        healthy_nvidia(), cards=(nvidia_card(device="ffff"),), nvidia={"module_version": "580.95.05", "nvml": ()}
    )
    assert judge(CHECKS["driver.dropped"], host, catalogue()).status is Status.FAIL
    (driver,) = [step for step in make_plan(host, catalogue(), PlanTarget()).steps if step.id == "nvidia-driver"]
    assert driver.state is State.TODO and "595" in driver.title


def test_an_unknown_card_and_an_old_one_have_no_driver_in_common() -> None:
    cards = (nvidia_card(device="ffff", driver=None), nvidia_card(slot="0000:41:00.0", device="1b06", driver=None))
    bare = {"nvml": None, "module_version": None, "nvml_driver": None}
    plan = make_plan(but(healthy_nvidia(), cards=cards, nvidia=bare, apt={"packages": ()}), catalogue(), PlanTarget())
    assert [refusal.code for refusal in plan.refusals] == ["plan.no-branch"]


def test_without_a_driver_an_unknown_amd_card_is_said_to_be_unknown() -> None:
    host = unknown_machine("1002", driver=None)
    plan = make_plan(host, catalogue(), PlanTarget())
    assert not any("No supported GPU" in note for note in plan.notes)
    assert any("1002:ffff" in note and "newer than gpu-setup's data" in note for note in plan.notes)
    assert judge(CHECKS["gpu.present"], host, catalogue()).status is Status.UNKNOWN


def test_two_different_cards_are_each_what_they_are() -> None:
    cards = (nvidia_card(device="2786"), nvidia_card(slot="0000:41:00.0", device="13c2"))
    host = but(healthy_nvidia(), cards=cards)
    result = judge(CHECKS["gpu.supported"], host, catalogue())
    assert [finding.subject for finding in result.findings] == ["0000:41:00.0 GTX 970"]
    plan = make_plan(host, catalogue(), PlanTarget())
    assert any("GTX 970 has no training stack" in note for note in plan.notes)
    assert image_spec(host, catalogue()).cards == ("RTX 4070",)


def test_what_the_drivers_report_is_part_of_the_card() -> None:
    cards = (nvidia_card(), nvidia_card(slot="0000:03:00.0", vendor="1002"), nvidia_card(slot="0000:41:00.0"))
    gpu = NvmlGpu(slot="00000000:01:00.0", name="NVIDIA Next", compute_capability="13.0")
    found = as_reported(cards, (gpu,), (KfdNode(1, "gfx1201", "0000:03:00.0"),))
    assert [(one.reported_target, one.reported_name) for one in found or ()] == [
        ("13.0", "NVIDIA Next"), ("gfx1201", None), (None, None)
    ]  # fmt: skip


@pytest.mark.parametrize("said", ["8", "8.6.0", "0.0", "-1.0", "86", "x", ""])
def test_a_damaged_capability_is_left_out(said: str) -> None:
    gpu = NvmlGpu(slot="0000:01:00.0", name="x", compute_capability=said)
    (found,) = as_reported((nvidia_card(),), (gpu,), (KfdNode(1, "gfx", "0000:09:00.0"),)) or ()
    assert found.reported_target is None


def test_an_unheard_of_target_of_a_known_card_is_damage() -> None:
    assert card("10de:2786", None, "3.9").target == "8.9"
    assert card("1002:744c", "c8", "gfx1999").target == "gfx1100"


def test_unknown_graphics_beside_a_card_that_trains_are_no_alarm() -> None:
    host = but(healthy_nvidia(), cards=(nvidia_card(), nvidia_card(slot="0000:0e:00.0", vendor="1002", device="ffff")))
    assert judge(CHECKS["gpu.supported"], host, catalogue()).status is Status.PASS
    assert make_plan(host, catalogue(), PlanTarget()).vendor == "nvidia"


@pytest.mark.long
def test_no_gpu_of_the_database_is_silent() -> None:
    """Each id is known with a reason or a stack, or is said to be newer; none of it is an exception."""
    seen = 0
    lines = [line for line in (DEVICES / "devices.txt").read_text("utf-8").splitlines() if not line.startswith("#")]
    for line in lines:
        vendor, device, *revision = line.split("\t")[0].split(":")
        found = catalogue().card(vendor, device, revision[0] if revision else None)
        assert found and found.name.strip(), line
        assert found.unknown or found.supported or found.note or found.integrated, line
        assert found.unknown or find_device(vendor, device, None), line
        seen += 1
    assert seen > 3000


def test_the_rows_of_cards_agree_with_the_database() -> None:
    """A row only adds: its chip and architecture are those of its PCI ids."""
    for row in catalogue().cards:
        for device in row.devices:
            known = find_device(row.vendor, device, None)
            assert known, (row.name, device)
            chip = catalogue().chip(row.vendor, device, known.chip)
            assert chip and (chip.target, chip.generation) == (row.target, row.generation), row.name
            assert chip.integrated == row.integrated, row.name


def test_each_size_is_of_a_name_that_exists() -> None:
    names = {name for _, name in named_devices()}
    for row in catalogue().memory:
        assert set(row.names) <= names
    assert card("10de:2786").vram_gb == 12
    assert card("10de:1ff0").vram_gb == 8, "T1000 8GB"
    assert card("10de:2901").vram_gb is None


@pytest.fixture
def refresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("devices_refresh", DEVICES / "refresh.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


PCI_IDS = """#\tVersion: 2026.10.24
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t73df  Navi 22 [Radeon RX 6700/6700 XT/6750 XT / 6800M/6850M XT]
\t\t1043 16c2  Radeon RX 6800M
\tab28  Navi 21/23 HDMI/DP Audio Controller
10de  NVIDIA Corporation
\t1af1  GA100 [A100 NVSwitch]
\t20b5  GA100 [A100 PCIe 80GB]
\t2488  GA104 [GeForce RTX 3070 Lite Hash Rate]
\t2c58  GB203M / GN22-X11 [GeForce RTX 5090 Max-Q / Mobile]
\t22bd  AD106M High Definition Audio Controller
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
"""


def test_only_gpus_are_taken_and_named_as_people_do(refresh: ModuleType) -> None:
    assert list(refresh.gpus(PCI_IDS)) == [
        ("1002:73df", "Navi 22", "Radeon RX 6700/6700 XT/6750 XT / 6800M/6850M XT"),
        ("10de:20b5", "GA100", "A100 PCIe 80GB"),
        ("10de:2488", "GA104", "RTX 3070"),
        ("10de:2c58", "GB203", "RTX 5090 Laptop GPU"),
    ]
    assert list(refresh.boards("1.0.0\n73DF,\tC1,\tAMD Radeon RX 6700 XT\n# no board\n")) == [
        ("1002:73df:c1", "Radeon RX 6700 XT")
    ]


def test_another_file_is_refused(refresh: ModuleType) -> None:
    with pytest.raises(ValueError, match="not these files"):
        refresh.devices(PCI_IDS, "73DF,\tC1,\tAMD Radeon RX 6700 XT\n")


def test_chips_without_a_row_are_those_that_only_a_driver_can_explain(refresh: ModuleType) -> None:
    rows = refresh.unknown_chips((DEVICES / "devices.txt").read_text("utf-8"))
    assert {row.split()[1][:3] for row in rows} <= {"GR1", "GB1", "GB6"}


def test_a_row_of_an_unread_field_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"targets": ["gfx1031"], "runs_as": "gfx1030", "colour": "red"}, type(catalogue().overrides[0]))


def test_what_an_architecture_needs_to_run_anothers_kernels() -> None:
    known = catalogue().override("gfx1031")
    assert known and (known.runs_as, known.value) == ("gfx1030", "10.3.0")
    assert catalogue().override("gfx1030") is None
    row = row_of(nvidia_card(vendor="1002", device="73df", revision="c1", reported_target="gfx1031"), catalogue())
    assert row and row.name == "Radeon RX 6700 XT"
