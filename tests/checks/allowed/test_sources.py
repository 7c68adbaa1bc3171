"""Each source is reduced to what its list allows; one without a list keeps nothing."""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path

import pytest

from checks.allowed import packages, sources
from checks.facts import login_environment
from checks.facts.docker import parse_daemon_json, parse_info
from checks.facts.firmware import parse_enrolled
from checks.facts.forms import answer_damage, damage
from checks.facts.kernel import module_name
from checks.facts.read import read_host
from machine import library_paths
from machine.identities import Identities
from machine.local import SMALL_FILE
from machine.recorder import RecordingMachine
from machine.scrub import must_stay
from tests.cpu_time import at_most
from tests.recorded_machines import FEW, load

WHO = Identities(users=("alice",), host="rechenknecht", homes=("/home/alice",), salt=b"salt")


def kept(path: str, text: str) -> str:
    return sources.file(path, text.encode(), WHO).decode()


class Asked(RecordingMachine):
    """Remembers every file that is asked for, whether or not it exists."""

    def __init__(self, name: str) -> None:
        super().__init__(load(name))
        self.asked: set[str] = set()

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        self.asked.add(path)
        return super().read(path, limit)


@pytest.mark.parametrize("name", FEW)
def test_everything_that_is_read_has_a_row(name: str) -> None:
    """A new source: add a row to FILES or OUTPUTS."""
    seen = Asked(name)
    read_host(seen)
    assert sorted(path for path in seen.asked if sources.reducer_of(path) is None and not must_stay(path)) == []
    assert {posixpath.basename(argv[0]) for argv in seen.outcomes} <= set(sources.OUTPUTS)


def test_a_source_without_a_row_keeps_nothing() -> None:
    assert kept("/etc/acme/license", "key of Alice") == "redacted\n"
    assert sources.output(("acme", "--list"), "everything\n", WHO) == "redacted\n"


@pytest.mark.parametrize(
    ("path", "text", "left"),
    [
        (
            "/proc/cmdline",
            "BOOT_IMAGE=/boot/vmlinuz-6.8.0-31-generic root=ZFS=anna/ROOT ro quiet amdgpu.dc=0 wpa.psk=geheim tanja\n",
            "BOOT_IMAGE=/boot/vmlinuz-6.8.0-31-generic root=redacted ro quiet amdgpu.dc=0 wpa.psk=redacted redacted\n",
        ),
        (
            "/proc/version",
            "Linux version 6.8.0-31-generic (anna@wolke) (gcc (GCC) 13.2.0) #31 SMP Thu Jun  5 18:30:46 UTC 2026\n",
            "Linux version 6.8.0-31-generic (gcc (GCC) 13.2.0) #31 SMP Thu Jun  5 18:30:46 UTC 2026\n",
        ),
        ("/etc/modprobe.d/x.conf", "# Anna\nblacklist nouveau\nblacklist pcspkr\n", "blacklist nouveau\n"),
        ("/etc/group", "video:x:44:alice,carol\nlab-anna:x:77:\n", "video:x:44:user,account\naccount77:x:77:\n"),
        (
            "/etc/passwd",
            "alice:x:1000:1000:Alice Smith,,,:/home/alice:/bin/zsh\n",
            "user:x:1000:1000::/home/user:/bin/zsh\n",
        ),
        ("/run/reboot-required.pkgs", "linux-image-6.8.0-31-generic\n", "linux-image-6.8.0-31-generic\n"),
        ("/proc/self/cgroup", "0::/\n", "0::/\n"),
        ("/home/alice/v/pyvenv.cfg", "home = /home/alice/py/bin\nuv = 0.9.2\nprompt = geheim\n", "uv = 0.9.2\n"),
    ],
)  # fmt: skip
def test_what_is_left(path: str, text: str, left: str) -> None:
    assert kept(path, text) == left


def test_of_the_installed_packages_only_torchs_own_are_kept() -> None:
    site = "/home/alice/v/lib/python3.12/site-packages"
    torch = ["torchvision-0.19.1+cu121.dist-info", "amd_torch_device_gfx1031-2.11.0+rocm7.13.0a20260505.dist-info"]
    others = ["alices_secret-1.0.dist-info", "torch-2.1+alice.dist-info", "numpy"]
    assert [sources.name(site, name, WHO) for name in (*torch, *others)] == [*torch, None, None, None]
    library = f"{site}/torch/lib/rocblas/library"
    assert sources.name(library, "Kernels.so-000-gfx1030.hsaco", WHO) == "Kernels.so-000-gfx1030.hsaco"
    assert sources.name(library, "alice.dat", WHO) is None
    for place in (library, "/srv/v/pyvenv.cfg", "/srv/pdm.lock", "/srv/conda-meta", "/srv/.local/share/pipx/venvs"):
        assert sources.path(place, WHO) == place.replace("/alice/", "/user/")


def test_one_name_is_the_same_in_every_path_and_another_in_the_next_recording() -> None:
    one = sources.path("/srv/anna/cuda-12.8", WHO)
    assert one.startswith("/srv/name") and one.endswith("/cuda-12.8")
    assert sources.path("/data/anna", WHO).rpartition("/")[2] == one.split("/")[2]
    assert sources.path("/srv/anna/cuda-12.8", WHO._replace(salt=b"other")) != one
    assert sources.path(one, WHO) == one


def test_a_repositorys_address_and_its_list_have_the_same_name() -> None:
    uri = "https://me:geheim@apt.anna.example:8443/ubuntu/"
    source = sources.file("/etc/apt/sources.list", f"deb {uri} noble main # Anna\n".encode(), WHO).decode()
    name = sources.name("/var/lib/apt/lists", "apt.anna.example:8443_ubuntu_dists_noble_InRelease", WHO)
    place = source.split()[1].removeprefix("https://").rstrip("/").replace("/", "_")
    assert name is not None and name.startswith(place) and "anna" not in source + name


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("https://me:geheim@apt.example/ubuntu", "https://apt.example/ubuntu"),
        ("https://dl.example/aB3dE5gH7jK9mN1p/deb?key=x", "https://dl.example/redacted/deb"),
        ("http://archive.ubuntu.com/ubuntu/", "http://archive.ubuntu.com/ubuntu/"),
        ("file:/var/cuda-repo", "file:/var/cuda-repo"),
    ],
)
def test_facts_hold_no_credentials_of_a_repository(uri: str, plain: str) -> None:
    assert packages.without_credentials(uri) == plain


def test_docker_info_has_only_what_is_read() -> None:
    answer = {
        "ServerVersion": "28.5.1",
        "Name": "wolke",
        "Runtimes": {"runc": {"path": "runc"}, "anna": {}},
        "CgroupDriver": "systemd",
    }
    info = parse_info(sources.output(("docker", "info"), json.dumps(answer), WHO))
    assert info is not None and info.runtimes is not None
    assert (info.server_version, info.cgroup_driver) == ("28.5.1", "systemd")
    assert "runc" in info.runtimes and "anna" not in info.runtimes and len(info.runtimes) == 2


def test_a_daemon_json_that_does_not_parse_has_its_fault_at_the_same_place() -> None:
    broken = '{"runtimes": {"nvidia": {"path": "/srv/anna/run"}}, "log-opts": {"token": "geheim"} "debug": tru}'
    left = kept("/etc/docker/daemon.json", broken)
    assert parse_daemon_json(left.encode()) == parse_daemon_json(broken.encode())
    assert "anna" not in left and "geheim" not in left


def test_what_is_damaged_stays_damaged() -> None:
    for path, content in (
        ("/proc/meminfo", b"MemTotal:       16 kB\nMemFr"),
        ("/etc/apt/apt.conf.d/50unattended-upgrades", b'Unattended-Upgrade::Package-Blacklist { "nvidia'),
        ("/etc/os-release", b'ID=ubuntu\nPRETTY_NAME="Ubu'),
        ("/run/cdi/nvidia.json", b'{"kind": "nvidia.com/gpu"'),
    ):
        assert damage(path, content), path
        assert damage(path, sources.file(path, content, WHO)), path
    for argv, said in ((("mokutil", "--list-enrolled"), "[key 1]\nSHA1"), (("docker", "info"), '{"ServerVersion"')):
        kept_output = sources.output(argv, said, WHO)
        assert answer_damage(kept_output) or (parse_info(kept_output) is None and kept_output.startswith("{"))


def test_keys_by_their_public_names() -> None:
    listed = (
        "[key 1]\nSHA1 Fingerprint: 76:a0\n"
        "        Subject: C=GB, O=Canonical Ltd., CN=Canonical Ltd. Master Certificate Authority\n"
        "[key 2]\n        Subject: CN=wolke Secure Boot Module Signature key\n[key 3]\n        Subject: CN=Anna\n"
    )
    left = sources.output(("mokutil", "--list-enrolled"), listed, WHO)
    assert parse_enrolled(left) == (
        "CN=Canonical Ltd. Master Certificate Authority",
        "CN=redacted Secure Boot Module Signature key",
        "CN=redacted",
    )
    assert "76:a0" not in left


def test_a_librarys_document_keeps_what_is_read() -> None:
    gpu = {
        "slot": "0000:01:00.0",
        "serial": "123",
        "memory_used": 7,
        "processes": [[9, "/home/alice/anna/bin/python3"]],
    }
    left = sources.document({"vendor": "nvidia", "driver": "580.95.05", "gpus": [gpu], "host": "wolke"}, WHO)
    assert set(left) == {"vendor", "driver", "gpus"}
    (found,) = left["gpus"]
    assert set(found) == {"slot", "memory_used", "processes"}
    assert found["processes"][0][1].startswith("/home/user/name") and found["processes"][0][1].endswith("/bin/python3")


def _paths_of_readers() -> list[str]:
    """Paths and names of files in the code of the readers; what is below /sys only the kernel names."""
    path = re.compile(
        r"/(?:etc|usr|var|run|boot|lib|lib64|opt|dev|proc|sys|\.\w+)/[\w/.+-]+|[\w-]+\.(?:so|so\.1|service)"
    )
    found = set()
    for file in [*Path(login_environment.__file__).parent.glob("*.py"), Path(library_paths.__file__)]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.fullmatch(node.value):
                found.add(node.value)
    return sorted(found)


def test_every_path_that_a_reader_asks_for_is_public() -> None:
    """A recording must have it under the name that the reader asks for: add its words to allowed.toml."""
    paths = _paths_of_readers()
    assert len(paths) > 60 and "/proc/cmdline" in paths
    assert [path for path in paths if sources.path(path, WHO) != path] == []


@pytest.mark.parametrize(
    "name",
    ["nvidia-uvm.ko.zst", "nvidia-peermem.ko.xz", "amddrm_ttm_helper.ko", "amdxcp.ko.zst", "nova-core.ko", "xe.ko"],
)
def test_gpu_modules_keep_their_names(name: str) -> None:
    assert module_name(name) is not None
    assert sources.name("/lib/modules/6.8.0-31-generic/updates/dkms", name, WHO) == name


@pytest.mark.parametrize(
    "piece", [" ", "a=", "/", "\n", "deb [", "name=", "Linux version ", " #1", "{", "'", "-", "[ 1.1] "]
)
def test_no_text_takes_for_ever(piece: str) -> None:
    text = f"Linux version 6.8.0{piece * (60_000 // len(piece))}".encode()
    paths = (
        "/proc/version",
        "/proc/cmdline",
        "/etc/os-release",
        "/etc/apt/sources.list",
        "/etc/passwd",
        "/x/daemon.json",
    )
    with at_most(3):
        for path in paths:
            sources.file(path, text, WHO)
        sources.output(("journalctl",), text.decode(), WHO)
