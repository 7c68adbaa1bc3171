"""How containers get the GPUs: from facts to what the engine is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from checks.facts.host import DeviceNode, Host, NvmlGpu
from containers.device_options import NO_DEVICES, Devices, device_access, device_options, has_amd_cdi
from containers.model import Access, ImageVendor
from machine.errors import Refused
from machine.local import LocalMachine
from tests.containers.hosts import host, with_docker, with_gpus

SLOTS = ("0000:01:00.0", "0000:41:00.0")


def two_gpus() -> Host:
    return with_gpus(
        host("rtx3090-healthy"),
        NvmlGpu(uuid="GPU-aaaa-1", slot="00000000:01:00.0", name="NVIDIA GeForce RTX 3090"),
        NvmlGpu(uuid="GPU-bbbb-2", slot="00000000:41:00.0", name="NVIDIA GeForce RTX 3090"),
    )


def two_radeons() -> Host:
    machine = host("rx7900xtx-healthy")
    render = (
        DeviceNode("/dev/dri/renderD128", group=992, slot="0000:01:00.0"),
        DeviceNode("/dev/dri/renderD129", group=992, slot="0000:41:00.0"),
        DeviceNode("/dev/dri/renderD130", group=992, slot="0000:00:02.0"),
    )
    return replace(machine, amd=replace(machine.amd, render=render, kfd=DeviceNode("/dev/kfd", group=991)))


@pytest.mark.parametrize(
    ("docker", "way"),
    [
        ({"cdi_dirs": ("/etc/cdi", "/var/run/cdi"), "runtimes": ("runc",)}, Access.CDI),
        ({"cdi_dirs": (), "runtimes": ("nvidia", "runc")}, Access.GPUS),
        ({"cdi_dirs": ("/srv/cdi",), "runtimes": ("nvidia", "runc")}, Access.GPUS),  # no description of ours there
        ({"cdi_dirs": (), "runtimes": ("runc",)}, None),
        ({"answers": False}, None),
        ({"kind": None}, None),
        ({"kind": "snap"}, None),
        ({"kind": "desktop"}, None),
    ],
)
def test_docker_info_decides_for_nvidia(docker: dict[str, object], way: Access | None) -> None:
    machine = host("rtx3090-healthy")
    machine = replace(machine, nvidia=replace(machine.nvidia, cdi_specs=("/run/cdi/nvidia.yaml",)))
    assert device_access(with_docker(machine, **docker), ImageVendor.NVIDIA) is way


@pytest.mark.parametrize(
    ("docker", "cdi", "way"),
    [
        ({"rootless": False}, False, Access.NODES),
        ({"rootless": False}, True, Access.CDI),
        ({"rootless": True}, False, None),
        ({"kind": "desktop"}, False, None),
    ],
)
def test_amd_needs_no_toolkit_but_the_systems_engine(docker: dict[str, object], cdi: bool, way: Access | None) -> None:
    assert device_access(with_docker(host("rx7900xtx-healthy"), **docker), ImageVendor.AMD, cdi) is way


def test_amds_description_is_looked_for_where_the_engine_looks(tmp_path: Path) -> None:
    assert not has_amd_cdi(LocalMachine(), (str(tmp_path), "/nonexistent"))
    (tmp_path / "amd.json").write_text("{}")
    assert has_amd_cdi(LocalMachine(), ("/nonexistent", str(tmp_path)))


def test_nvidia_cards_go_in_by_uuid() -> None:
    machine = two_gpus()
    cdi = device_options(machine, ImageVendor.NVIDIA, Access.CDI, SLOTS)
    assert cdi.body()["DeviceRequests"] == [
        {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-aaaa-1", "nvidia.com/gpu=GPU-bbbb-2"]}
    ]
    assert cdi.argv() == ["--device", "nvidia.com/gpu=GPU-aaaa-1", "--device", "nvidia.com/gpu=GPU-bbbb-2"]
    gpus = device_options(machine, ImageVendor.NVIDIA, Access.GPUS, SLOTS)
    assert gpus.body()["DeviceRequests"] == [
        {"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "DeviceIDs": ["GPU-aaaa-1", "GPU-bbbb-2"]}
    ]
    assert gpus.argv() == ["--gpus", '"device=GPU-aaaa-1,GPU-bbbb-2"']
    every = Devices(gpus=("all",))
    assert every.body()["DeviceRequests"] == [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, "Count": -1}]
    assert every.argv() == ["--gpus", "all"]


@pytest.mark.parametrize("word", ["GPU-bbbb", "0000:41:00.0", "00000000:41:00.0"])
def test_one_card_is_chosen_by_its_uuid_or_its_place(word: str) -> None:
    options = device_options(two_gpus(), ImageVendor.NVIDIA, Access.GPUS, SLOTS, (word,))
    assert options == Devices(gpus=("GPU-bbbb-2",))


@pytest.mark.parametrize("word", ["GPU-", "GPU-cccc", "0000:99:00.0", "1"])
def test_a_choice_that_is_no_card_or_two_is_refused(word: str) -> None:
    with pytest.raises(Refused) as caught:
        device_options(two_gpus(), ImageVendor.NVIDIA, Access.CDI, SLOTS, (word,))
    assert caught.value.code == "image.no-such-card"
    assert "GPU-aaaa-1" in caught.value.why


def test_amd_cards_go_in_by_their_nodes_and_the_numbers_of_their_groups() -> None:
    options = device_options(two_radeons(), ImageVendor.AMD, Access.NODES, SLOTS)
    assert options == Devices(
        nodes=("/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129"), groups=("991", "992")
    )  # fmt: skip
    assert options.argv()[-4:] == ["--group-add", "991", "--group-add", "992"]
    assert options.body()["GroupAdd"] == ["991", "992"]
    assert options.body()["Devices"][0] == {
        "PathOnHost": "/dev/kfd", "PathInContainer": "/dev/kfd", "CgroupPermissions": "rwm",
    }  # fmt: skip


def test_integrated_graphics_are_not_passed_in() -> None:
    options = device_options(two_radeons(), ImageVendor.AMD, Access.NODES, SLOTS, ("0000:41:00.0",))
    assert options.nodes == ("/dev/kfd", "/dev/dri/renderD129")


def test_amd_by_cdi() -> None:
    assert device_options(two_radeons(), ImageVendor.AMD, Access.CDI, SLOTS) == Devices(cdi=("amd.com/gpu=all",))


def test_the_cpu_needs_no_device() -> None:
    assert device_options(host("no-gpu"), ImageVendor.CPU, Access.NONE, ()) == NO_DEVICES


@pytest.mark.parametrize(
    ("vendor", "docker", "code"),
    [
        (ImageVendor.NVIDIA, {"kind": "snap"}, "image.snap"),
        (ImageVendor.NVIDIA, {"kind": "desktop"}, "image.desktop"),
        (ImageVendor.NVIDIA, {"kind": "docker.io"}, "image.no-device-access"),
        (ImageVendor.AMD, {"kind": "docker.io", "rootless": True}, "image.rootless-amd"),
    ],
)
def test_no_way_in_says_why_and_what_then(vendor: ImageVendor, docker: dict[str, object], code: str) -> None:
    with pytest.raises(Refused) as caught:
        device_options(with_docker(two_gpus(), **docker), vendor, None, SLOTS)
    assert caught.value.code == code
    assert caught.value.next
