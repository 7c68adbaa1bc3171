"""The recorded machines: small, made by the script beside them, and read as what they say they are."""

import json
import posixpath
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.facts.read import read_host
from checks.rules.cards import row_of
from tests.machines.make import MACHINES, make
from tests.recorded_machines import load, machine_path, tree
from tests.subjects import for_each


@pytest.mark.long
def test_the_script_makes_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    for name in MACHINES:
        (tmp_path / f"{name}.machine").write_bytes(Path(machine_path(name)).read_bytes())
    make(tmp_path)
    for name in MACHINES:
        made = (tmp_path / f"{name}.machine").read_bytes()
        assert made == Path(machine_path(name)).read_bytes(), f"{name}: run python -m tests.machines.make"


@pytest.mark.long
def test_making_them_again_keeps_what_is_expected_of_them_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "no-gpu.machine"
    changed = file.read_text().replace("=== document expect.json\n{}\n", '=== document expect.json\n{"doctor": {}}\n')
    file.write_text(changed.replace("=== end\n", "=== file /zzz\nextra\n=== end\n"))
    make(tmp_path)
    assert file.read_text() == changed


@for_each("name", MACHINES)
def test_no_link_leads_back_to_a_folder_above_it(name: str) -> None:
    # sysfs is full of such circles; unpacked, they would be walked to no end
    for place, target in tree(name).links.items():
        above = posixpath.dirname(place)
        root = "sysroot" if target.startswith("/") else above
        leads = posixpath.normpath(f"{root}/{target.lstrip('/')}")
        assert not f"{above}/".startswith(f"{leads}/"), place


@for_each("name", MACHINES)
def test_a_recording_is_small_and_says_that_it_was_made_up(name: str) -> None:
    found = tree(name)
    assert len(found.files) + len(found.links) < 140
    assert Path(machine_path(name)).stat().st_size < 60_000
    assert json.loads(found.files["machine.json"])["synthetic"][0] == "/"


@pytest.mark.parametrize(
    ("name", "cards"),
    [
        ("rtx3090ti-fresh", ["RTX 3090 Ti"]),
        ("rtx6000ada-fresh", ["RTX 6000 Ada"]),
        ("rx7900xt-fresh", ["Radeon RX 7900 XT", "Radeon 610M"]),
        ("w7900-fresh", ["Radeon PRO W7900"]),
        ("rtx3090-healthy", ["RTX 3090"]),
        ("rx7900xtx-healthy", ["Radeon RX 7900 XTX"]),
        ("no-gpu", []),
        ("two-vendors", ["RTX 3090", "Radeon RX 7900 XT"]),
        ("rtx5090-proprietary-module", ["RTX 5090"]),
        ("rx9070xt-old-kernel", ["Radeon RX 9070 XT"]),
    ],
)
def test_the_bus_of_a_recording_names_its_cards(name: str, cards: list[str]) -> None:
    rows = (row_of(card, catalogue()) for card in read_host(load(name)).cards or ())
    assert [row.name for row in rows if row] == cards


@pytest.mark.parametrize(
    ("name", "allowed"), [("rx7900xt-fresh", False), ("rx7900xtx-healthy", True), ("two-vendors", False)]
)
def test_who_may_open_the_compute_node(name: str, allowed: bool) -> None:
    machine = load(name)
    assert machine.access("/dev/kfd", 6) is allowed
    # udev gives whoever sits at the screen the render node, not the compute node
    assert machine.access("/dev/dri/renderD128", 6) is True


def host(name: str) -> Host:
    """Read strictly: a command that the recording does not hold fails the test."""
    return read_host(load(name))


# the machines that do not stand on the metal
VIRTUAL = {
    "kvm-guest-healthy": "kvm",
    "vgpu-guest": "vmware",
    "t4-cloud-healthy": "amazon",
    "wsl": "wsl",
    "wsl-linux-driver": "wsl",
    "container-rtx3090": "docker",
    "container-rx7900xtx": "docker",
}


@for_each("name", MACHINES)
def test_every_recording_can_be_read_whole(name: str) -> None:
    found = host(name)
    inside = name.startswith("container")
    assert [gap.source for gap in found.unread] == (["kernel log"] if inside else [])
    assert (found.os.id, found.os.codename, found.os.arch) == ("ubuntu", "noble", "x86_64")
    assert found.os.virtualisation == VIRTUAL.get(name, "none")
    assert (found.person.user, found.machine) == ("root" if inside else "alex", name)
    assert found.apt.packages
    assert found.cards


@pytest.mark.parametrize(
    ("name", "kernel", "secure_boot", "driver"),
    [
        ("rtx3090ti-fresh", "6.14.0-37-generic", True, "nouveau"),
        ("rtx6000ada-fresh", "7.0.0-31-generic", True, "nouveau"),
        ("rx7900xt-fresh", "6.17.0-35-generic", False, "amdgpu"),
        ("w7900-fresh", "6.8.0-134-generic", True, "amdgpu"),
    ],
)
def test_the_fresh_machines_hold_no_vendor_driver_and_nobody_in_render(
    name: str, kernel: str, secure_boot: bool, driver: str
) -> None:
    found = host(name)
    assert found.cards is not None
    assert (found.kernel.release, found.firmware.secure_boot, found.cards[0].driver) == (kernel, secure_boot, driver)
    assert found.os.graphical
    assert found.nvidia.nvml_problem == "absent"
    assert "render" not in (found.person.groups or ())
    assert found.docker.kind is None
    assert not [package for package in found.apt.packages or () if package.name.startswith("nvidia")]


def test_the_healthy_nvidia_machine_runs_signed_prebuilt_modules() -> None:
    found = host("rtx3090-healthy")
    assert (found.nvidia.module_version, found.nvidia.library_version, found.nvidia.open_module) == (
        "595.84",
        "595.84",
        True,
    )
    assert found.nvidia.nvml is not None
    assert [gpu.name for gpu in found.nvidia.nvml] == ["NVIDIA GeForce RTX 3090"]
    assert {file.origin for file in found.kernel.modules or () if file.name == "nvidia"} == {"prebuilt"}
    assert ("nouveau", "/usr/lib/modprobe.d/nvidia-graphics-drivers.conf") in (found.kernel.blacklisted or ())
    assert found.docker.answers
    assert "nvidia" in (found.docker.runtimes or ())
    assert found.nvidia.cdi_versions == (("/run/cdi/nvidia.yaml", "595.84"),)
    assert found.python.compiler == "/usr/bin/gcc"


def test_the_healthy_amd_machine_opens_the_compute_node() -> None:
    found = host("rx7900xtx-healthy")
    assert found.amd.kfd is not None
    assert found.amd.kfd.usable
    assert found.amd.module_version is None, "the in-tree driver has no version of its own"
    assert [(node.gfx, node.slot) for node in found.amd.nodes or ()] == [("gfx1100", "0000:03:00.0")]
    assert found.amd.gpus is not None
    assert found.amd.gpus[0].vram_visible == found.amd.gpus[0].vram_total == 24560 << 20


def test_each_broken_machine_shows_what_its_name_says() -> None:
    proprietary = host("rtx5090-proprietary-module")
    assert (proprietary.nvidia.open_module, proprietary.nvidia.nvml) == (False, ())
    assert any("requires use of the NVIDIA open kernel modules" in line for line in proprietary.kernel.log or ())

    rejected = host("rtx3090-secureboot-dkms-rejected")
    assert (rejected.firmware.mok_key_present, rejected.firmware.mok_key_enrolled) == (True, False)
    assert [build.state for build in rejected.kernel.dkms or ()] == ["installed"]
    assert any("unavailable key is rejected" in line for line in rejected.kernel.log or ())

    mismatch = host("rtx3090-library-mismatch")
    assert (mismatch.nvidia.module_version, mismatch.nvidia.library_version) == ("595.71.05", "595.84")
    assert (mismatch.nvidia.nvml_problem, mismatch.apt.reboot_required) == ("mismatch", True)

    lag = host("rtx3090-modules-lag")
    assert "nvidia" not in {file.name for file in lag.kernel.modules or () if file.kernel == lag.kernel.release}
    assert "linux-modules-nvidia-595-open-7.0.0-28-generic" in {package.name for package in lag.apt.packages or ()}

    old = host("rx9070xt-old-kernel")
    assert old.cards is not None
    assert (old.cards[0].driver, old.amd.loaded, old.amd.nodes) == (None, True, ())
