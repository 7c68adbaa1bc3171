"""Start files, environments, Hugging Face, the login screen, bridges, keys and lists: real texts in, facts out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from checks.allowed import sources as allowed
from checks.facts import apt as packages
from checks.facts import environments, hub, kernel, login_environment, login_screen, nvidia, pci
from checks.facts.gaps import Gaps
from checks.facts.host import AptSource, Bridge, Link, TrainingEnvironment
from checks.facts.read import read_host
from machine import recorder
from machine.recording import RecordedMachine
from tests.subjects import for_each

HOME = {"HOME": "/home/alex", "PATH": "/usr/bin"}
CARD = {
    "/sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    "/sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "/sys/bus/pci/devices/0000:01:00.0/device": "0x2204\n",
}
# torch 2.13.0 for CUDA 13.0; older ones write `cuda: Optional[str]`
TORCH = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cu130'
debug = False
cuda: Optional[str] = '13.0'
git_version = 'a1b2c3d4'
hip: Optional[str] = None
rocm: Optional[str] = None
xpu: Optional[str] = None
"""


def machine(
    place: Path,
    files: dict[str, str],
    environ: dict[str, str] | None = None,
    names: dict[str, list[str]] | None = None,
    stat: dict[str, dict[str, object]] | None = None,
    uid: int = 1000,
) -> RecordedMachine:
    for path, content in files.items():
        target = place / "sysroot" / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    (place / "sysroot").mkdir(parents=True, exist_ok=True)
    session = {"uid": uid, "user": "alex" if uid else "root", "gids": [uid], "environ": HOME | (environ or {})}
    (place / "session.json").write_text(json.dumps(session), encoding="utf-8")
    (place / "paths.json").write_text(json.dumps({"names": names or {}, "stat": stat or {}}), encoding="utf-8")
    return RecordedMachine(place)


def file_of(mode: int) -> dict[str, object]:
    return {"kind": "file", "mode": mode, "uid": 1000, "gid": 1000, "size": 37}


def folder_of(mode: int) -> dict[str, object]:
    return {"kind": "folder", "mode": mode, "uid": 1000, "gid": 1000, "size": 4096}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("export CUDA_VISIBLE_DEVICES=1", (("CUDA_VISIBLE_DEVICES", "1"),)),
        ('HIP_VISIBLE_DEVICES=""   # while the other card was away', (("HIP_VISIBLE_DEVICES", ""),)),
        ('Environment="ROCR_VISIBLE_DEVICES=GPU-1234"', (("ROCR_VISIBLE_DEVICES", "GPU-1234"),)),
        ("declare -x HSA_OVERRIDE_GFX_VERSION=11.0.0", (("HSA_OVERRIDE_GFX_VERSION", "11.0.0"),)),
        (
            "export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH",
            (("LD_LIBRARY_PATH", "/usr/local/cuda/lib64:$LD_LIBRARY_PATH"),),
        ),
        # computed, commented out, in a function or a condition, another name
        ("export CUDA_VISIBLE_DEVICES=$(nvidia-smi -L | wc -l)", ()),
        ("# export CUDA_VISIBLE_DEVICES=1", ()),
        ("    export CUDA_VISIBLE_DEVICES=1", ()),
        ("export MY_CUDA_VISIBLE_DEVICES=1", ()),
    ],
)
def test_start_up_files_report_only_certain_values(line: str, found: tuple[tuple[str, str], ...]) -> None:
    assert login_environment.parse_start_file(f"# ~/.bashrc\n{line}\nalias ll='ls -l'\n") == found


def test_start_up_files_are_read_only_with_a_card_and_recorded_in_part(tmp_path: Path) -> None:
    files = {
        "/home/alex/.bashrc": "export HF_TOKEN=hf_secret\nexport CUDA_VISIBLE_DEVICES=1\n",
        "/etc/environment": 'PATH="/usr/bin"\n',
    }
    assert read_host(machine(tmp_path / "none", files)).person.start_files is None
    seen = recorder.RecordingMachine(machine(tmp_path / "card", files | CARD))
    found = read_host(seen)
    assert found.person.start_files == (("/home/alex/.bashrc", "CUDA_VISIBLE_DEVICES", "1"),)
    recorder.write(seen, tmp_path / "written", recorder.identities_of(seen), {"name": "x"}, allowed)
    written = b"".join(path.read_bytes() for path in (tmp_path / "written").rglob("*") if path.is_file())
    assert b"CUDA_VISIBLE_DEVICES=1" in written
    assert b"hf_secret" not in written
    assert read_host(RecordedMachine(tmp_path / "written", strict=True)).person.start_files is not None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (TORCH, {"__version__": "2.13.0+cu130", "cuda": "13.0"}),
        (
            TORCH.replace("+cu130", "+rocm7.2")
            .replace("'13.0'", "None")
            .replace("hip: Optional[str] = None", "hip = '7.2.53211'"),
            {"__version__": "2.13.0+rocm7.2", "hip": "7.2.53211"},
        ),
        (TORCH.replace("+cu130", "+cpu").replace("'13.0'", "None"), {"__version__": "2.13.0+cpu"}),
        ("", {}),
    ],
)
def test_the_build_of_torch_is_read_from_its_version_file(content: str, found: dict[str, str]) -> None:
    assert environments.parse_torch(content) == found


def test_active_and_own_environments_are_read_without_running_anything(tmp_path: Path) -> None:
    site = "lib/python3.12/site-packages"
    own = "/home/alex/.local/share/gpu-setup/env/cu130-1f2e3d4c5b6a-py3.12"
    files = {
        f"/home/alex/venv/{site}/torch/version.py": TORCH,
        f"/home/alex/venv/{site}/bitsandbytes/__init__.py": '__version__ = "0.50.2"\n',
        f"{own}/{site}/torch/version.py": TORCH,
        f"/home/alex/.local/share/gpu-setup/env/cu130-1f2e3d4c5b6a-py3.12.lock/{site}/torch/version.py": TORCH,
    }
    listed = {f"/home/alex/venv/{site}/bitsandbytes": ["libbitsandbytes_cpu.so", "libbitsandbytes_cuda130.so"]}
    found = environments.read_environments(
        machine(tmp_path, files, {"VIRTUAL_ENV": "/home/alex/venv", "CONDA_PREFIX": "/opt/gone"}, listed), Gaps()
    )
    assert found == (
        TrainingEnvironment(
            path="/home/alex/venv",
            owner="active",
            python="3.12",
            torch="2.13.0+cu130",
            torch_cuda="13.0",
            bitsandbytes="0.50.2",
            bitsandbytes_libraries=("cpu", "cuda130"),
        ),
        TrainingEnvironment(
            path=own, owner="gpu-setup", stack="cu130", python="3.12", torch="2.13.0+cu130", torch_cuda="13.0"
        ),
    )


SITE = ("torch", "torch-2.4.1+cu121.dist-info", "torchvision-0.19.1+cu121.dist-info", "numpy-1.26.4.dist-info")


@for_each(
    ("names", "found"),
    [
        (SITE, (("torchvision", "0.19.1+cu121"),)),
        (("torch-2.9.1.dist-info", "flash_attn-2.8.3.dist-info"), (("flash_attn", "2.8.3"),)),
        # a listing without torch's own row says nothing of the others
        (("torch", "bitsandbytes"), None),
        ((), None),
    ],
)
def test_what_belongs_to_a_build_of_torch_is_read_from_names(names: tuple[str, ...], found: object) -> None:
    assert environments.parse_companions(names) == found


@for_each(
    ("site", "rocblas", "found"),
    [
        # AMD's wheels of one family, and of single GPUs (ROCm/TheRock RELEASES.md)
        (("rocm_sdk_libraries_gfx110X_all-7.10.0a20251015.dist-info",), (), ("gfx110X",)),
        (("rocm_sdk_libraries_gfx94X_dcgpu-7.9.0rc1.dist-info",), (), ("gfx94X",)),
        (("rocm_sdk_libraries_gfx120x_all-7.11.0.dist-info",), (), ("gfx120X",)),
        (
            ("amd_torch_device_gfx1031-2.11.0+rocm7.13.0a20260505.dist-info", "rocm_sdk_core-7.13.0.dist-info"),
            (),
            ("gfx1031",),
        ),
        # PyTorch's wheels carry rocBLAS
        (
            SITE,
            (
                "Kernels.so-000-gfx1030.hsaco",
                "Kernels.so-000-gfx90a-xnack+.hsaco",
                "TensileLibrary_lazy_gfx1100.dat",
                "TensileLibrary_Type_HH_Contraction_l_Ailk_Bjlk_Cijk_Dijk_gfx803.co",
            ),
            ("gfx1030", "gfx1100", "gfx90a"),
        ),
        (SITE, (), None),
    ],
)
def test_the_gpus_of_rocm_libraries_are_read_from_names(
    site: tuple[str, ...], rocblas: tuple[str, ...], found: object
) -> None:
    assert environments.parse_rocm_targets(site, rocblas) == found


@for_each(
    ("files", "kind"),
    [
        ({"pyvenv.cfg": "home = /usr/bin\nuv = 0.9.2\nversion_info = 3.11.11\n"}, "uv"),
        # uv venv --seed
        ({"pyvenv.cfg": "uv = 0.9.2\n", "lib/python3.12/site-packages/pip/__init__.py": ""}, "venv"),
        ({"pyvenv.cfg": "home = /usr/bin\nversion = 3.12.3\n"}, "venv"),
        ({"conda-meta/history": "# update specs: []\n"}, "conda"),
        ({}, "venv"),
    ],
)
def test_what_made_an_environment_is_read_from_its_files(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], kind: str
) -> None:
    torch = {"/srv/e/lib/python3.12/site-packages/torch/version.py": TORCH}
    held = torch | {f"/srv/e/{name}": content for name, content in files.items()}
    place = tmp_path_factory.mktemp("environment")
    (found,) = environments.read_environments(machine(place, held, {"CONDA_PREFIX": "/srv/e"}), Gaps())
    assert found.kind == kind


def test_a_recording_of_an_environment_says_the_same(tmp_path: Path) -> None:
    site = "/home/alex/p/.venv/lib/python3.12/site-packages"
    hip = TORCH.replace("'13.0'", "None").replace("hip: Optional[str] = None", "hip: Optional[str] = '7.1.25424'")
    files = {
        "/home/alex/p/uv.lock": "version = 1\n",
        "/home/alex/p/.venv/pyvenv.cfg": "home = /usr/bin\nuv = 0.9.2\nprompt = geheim\n",
        f"{site}/torch/version.py": hip,
        f"{site}/torch/lib/rocblas/library/Kernels.so-000-gfx1030.hsaco": "",
        f"{site}/torch/lib/rocblas/library/geheim": "",
    }
    listed = {site: [*SITE, "amd_torch_device_gfx1031-2.11.0+rocm7.13.0.dist-info", "geheim"]}
    seen = recorder.RecordingMachine(machine(tmp_path, files, {"VIRTUAL_ENV": "/home/alex/p/.venv"}, listed))
    (found,) = environments.read_environments(seen, Gaps())
    assert (found.kind, found.rocm_targets) == ("uv", ("gfx1030", "gfx1031"))
    copy = recorder.tree(seen, "copy", recorder.identities_of(seen.machine), {"name": "copy"}, allowed)
    (again,) = environments.read_environments(RecordedMachine(copy, strict=True), Gaps())
    assert again == msgspec.structs.replace(found, path=again.path, project_lock=again.project_lock)
    assert again.project_lock == f"{again.path.rpartition('/')[0]}/uv.lock"
    assert "geheim" not in repr(copy.files)


def test_the_lock_file_of_a_project_is_noticed(tmp_path: Path) -> None:
    files = {"/srv/p/.venv/lib/python3.12/site-packages/torch/version.py": TORCH, "/srv/p/uv.lock": "version = 1\n"}
    (found,) = environments.read_environments(machine(tmp_path, files, {"VIRTUAL_ENV": "/srv/p/.venv"}), Gaps())
    assert found.project_lock == "/srv/p/uv.lock"


def test_what_pip_installed_for_the_user_counts_where_no_environment_is_active(tmp_path: Path) -> None:
    files = {"/home/alex/.local/lib/python3.12/site-packages/torch/version.py": TORCH}
    (found,) = environments.read_environments(machine(tmp_path, files), Gaps())
    assert (found.kind, found.owner, found.torch) == ("user", "active", "2.13.0+cu130")


def test_the_token_is_detected_but_never_read(tmp_path: Path) -> None:
    token, home = "/home/alex/.cache/huggingface/token", "/home/alex"
    folders = {path: folder_of(0o755) for path in ("/home", home, f"{home}/.cache", f"{home}/.cache/huggingface")}
    open_home = machine(tmp_path / "open", {}, stat={token: file_of(0o644), **folders})
    found = hub.read_hub(open_home)
    assert (found.token, found.token_file, found.readable_by_others) == (True, token, True)
    closed = machine(tmp_path / "closed", {}, stat={token: file_of(0o644), **folders, home: folder_of(0o750)})
    assert hub.read_hub(closed).readable_by_others is False
    private = machine(tmp_path / "private", {}, stat={token: file_of(0o600), **folders})
    assert hub.read_hub(private).readable_by_others is False
    seen = recorder.RecordingMachine(open_home)
    hub.read_hub(seen)
    assert token not in seen.files


def test_variables_set_the_token_and_the_cache_folder(tmp_path: Path) -> None:
    environ = {"HF_TOKEN": "hf_secret", "HF_HOME": "/data/hf", "TRANSFORMERS_OFFLINE": "1"}
    found = hub.read_hub(machine(tmp_path, {"/data/hf/hub/version.txt": "1"}, environ))
    assert (found.token, found.token_file) == (True, None)
    assert (found.cache, found.cache_chosen, found.cached) == ("/data/hf/hub", True, True)
    assert found.offline == "TRANSFORMERS_OFFLINE=1"
    assert "hf_secret" not in repr(found)
    nobody = hub.read_hub(machine(tmp_path / "nobody", {}, {"HF_HUB_OFFLINE": "0"}))
    assert (nobody.token, nobody.offline, nobody.cache_chosen, nobody.cached) == (False, None, False, False)


GREETER = """# Automatic suspend
[org/gnome/settings-daemon/plugins/power]
# - Time inactive in seconds before suspending with AC power
#   1200=20 minutes, 0=never
{timeout}
# - What to do after sleep-inactive-ac-timeout
{type}
"""
SCHEMA = """<schema id="org.gnome.settings-daemon.plugins.power">
  <key name="sleep-inactive-ac-timeout" type="i">
    <default>900</default>
  </key>
  <key name="sleep-inactive-ac-type" enum="x">
    <default>'suspend'</default>
  </key>
</schema>
"""
SCHEMA_FILE = f"{login_screen.SCHEMAS}/org.gnome.settings-daemon.plugins.power.gschema.xml"
UBUNTU = {
    f"{login_screen.SCHEMAS}/10_ubuntu-settings.gschema.override": "[org.gnome.settings-daemon.plugins.power]\n"
    'button-power = "interactive"\nsleep-inactive-ac-timeout = 0\n'
    "[org.gnome.desktop.session:ubuntu]\nidle-delay = 300\n"
}


@pytest.mark.parametrize(
    ("files", "seconds"),
    [
        ({}, None),
        ({SCHEMA_FILE: SCHEMA}, 900),
        ({SCHEMA_FILE: SCHEMA, **UBUNTU}, 0),
        (
            {
                SCHEMA_FILE: SCHEMA,
                **UBUNTU,
                login_screen.GREETER: GREETER.format(timeout="sleep-inactive-ac-timeout=1200", type=""),
            },
            1200,
        ),
        (
            {
                SCHEMA_FILE: SCHEMA,
                login_screen.GREETER: GREETER.format(timeout="", type="sleep-inactive-ac-type='nothing'"),
            },
            0,
        ),
        (
            {
                SCHEMA_FILE: SCHEMA,
                login_screen.GREETER: GREETER.format(timeout="# sleep-inactive-ac-timeout=1200", type="#"),
            },
            900,
        ),
        (
            {
                SCHEMA_FILE: SCHEMA,
                f"{login_screen.DCONF}/10-lab": GREETER.format(timeout="sleep-inactive-ac-timeout=0", type=""),
            },
            0,
        ),
    ],
)
def test_the_login_screen_setting_with_the_highest_priority_counts(
    tmp_path: Path, files: dict[str, str], seconds: int | None
) -> None:
    place = machine(tmp_path, files)
    units = tmp_path / "sysroot/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "display-manager.service").symlink_to("/usr/lib/systemd/system/gdm3.service")
    assert login_screen.read_login_sleep(place, Gaps())[0] == seconds
    (units / "suspend.target").symlink_to("/dev/null")
    assert login_screen.read_login_sleep(place, Gaps())[0] == 0


def test_other_login_managers_are_ignored(tmp_path: Path) -> None:
    place = machine(tmp_path, {SCHEMA_FILE: SCHEMA})
    units = tmp_path / "sysroot/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "display-manager.service").symlink_to("/usr/lib/systemd/system/sddm.service")
    assert login_screen.read_login_sleep(place, Gaps()) == (None, None)


def test_the_ports_up_to_the_cpu_are_read(tmp_path: Path) -> None:
    way = "/sys/devices/pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"
    assert pci.parse_bridges(f"../../..{way[4:]}") == ("0000:02:00.0", "0000:01:00.0", "0000:00:01.1")
    place = machine(
        tmp_path,
        {
            f"{way}/class": "0x030000\n",
            f"{way}/vendor": "0x1002\n",
            f"{way}/device": "0x744c\n",
            f"{way[:-13]}/current_link_width": "16\n",
            f"{way[:-26]}/current_link_width": "4\n",
            f"{way[:-26]}/current_link_speed": "16.0 GT/s PCIe\n",
            f"{way[:-39]}/aer_dev_correctable": "RxErr 3\nTOTAL_ERR_COR 3\n",
        },
    )
    bus = tmp_path / "sysroot/sys/bus/pci/devices"
    bus.mkdir(parents=True)
    for end in (52, 65, 78, 91):
        path = way[: way.index("0000:00:01.1") + 12 + (end - 52)]
        (bus / path.rpartition("/")[2]).symlink_to(os.path.relpath(path, "/sys/bus/pci/devices"))
    (card,) = pci.read_cards(place, Gaps()) or ()
    assert card.bridges == (
        Bridge(slot="0000:02:00.0", link=Link(width=16)),
        Bridge(slot="0000:01:00.0", link=Link(speed=16.0, width=4)),
        Bridge(slot="0000:00:01.1", aer_correctable=3),
    )


def test_options_and_dates_of_modules() -> None:
    content = "options nvidia NVreg_A=1 \\\n  NVreg_B=2\noptions snd_hda_intel power_save=0\n# options amdgpu x=1\n"
    assert kernel.parse_options(content) == (("nvidia", "NVreg_A=1"), ("nvidia", "NVreg_B=2"))
    assert kernel.parse_dates("1765400000 /boot/initrd.img-6.8.0-31-generic\nstat: cannot\n") == (
        ("/boot/initrd.img-6.8.0-31-generic", 1765400000),
    )


def test_the_toolkits_settings_and_the_loaders() -> None:
    # as nvidia-container-toolkit 1.17 ships it, and after `nvidia-ctk config --set … --in-place`
    assert not nvidia.parse_no_cgroups("[nvidia-container-cli]\n#no-cgroups = false\nload-kmods = true\n")
    assert nvidia.parse_no_cgroups("[nvidia-container-cli]\nno-cgroups = true\n")
    assert nvidia.parse_compat("# added by hand\n/usr/local/cuda-13.0/compat/\n/usr/local/cuda/lib64\n") == (
        "/usr/local/cuda-13.0/compat",
    )


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        (
            "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/",
            "developer.download.nvidia.com_compute_cuda_repos_ubuntu2404_x86%5f64_",
        ),
        ("https://repo.radeon.com/rocm/apt/7.2.4", "repo.radeon.com_rocm_apt_7.2.4_"),
        ("https://me:secret@apt.corp/nvidia", "apt.corp_nvidia_"),
        (
            "https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)",
            "nvidia.github.io_libnvidia-container_stable_deb_amd64_",
        ),
    ],
)
def test_the_file_name_of_a_repositorys_list(uri: str, name: str) -> None:
    assert packages.list_name(AptSource(file="x", uri=uri)) == name


def test_keys_and_lists_that_are_missing(tmp_path: Path) -> None:
    lists = ["archive.ubuntu.com_ubuntu_dists_noble_InRelease", "lock"]
    files = {
        "/etc/apt/sources.list.d/rocm.list": "deb [signed-by=/etc/apt/keyrings/rocm.gpg] "
        "https://repo.radeon.com/rocm/apt/7.2.4 noble main\n"
    }
    names = {"/etc/apt/keyrings": ["docker.asc"], "/var/lib/apt/lists": lists}
    found = packages.read_apt(machine(tmp_path / "a", files, names=names), Gaps())
    assert found.missing_keys == ("/etc/apt/keyrings/rocm.gpg",)
    assert [source.file for source in found.unfetched or ()] == ["/etc/apt/sources.list.d/rocm.list"]
    names = {
        "/etc/apt/keyrings": ["rocm.gpg"],
        "/var/lib/apt/lists": [*lists, "repo.radeon.com_rocm_apt_7.2.4_dists_noble_InRelease"],
    }
    found = packages.read_apt(machine(tmp_path / "b", files, names=names), Gaps())
    assert (found.missing_keys, found.unfetched) == ((), ())
    # nothing is claimed about folders that are not there
    found = packages.read_apt(machine(tmp_path / "c", files), Gaps())
    assert (found.missing_keys, found.unfetched) == ((), None)


def test_under_sudo_the_caller_and_the_groups_of_their_next_login_are_read(tmp_path: Path) -> None:
    files = {
        "/etc/group": "root:x:0:\nrender:x:992:alex\nalex:x:1000:\n",
        "/etc/passwd": "root:x:0:0::/root:/bin/bash\nalex:x:1000:1000::/home/alex:/bin/bash\n",
    }
    person = read_host(machine(tmp_path / "sudo", files, {"SUDO_USER": "alex"}, uid=0)).person
    assert (person.sudo_user, person.sudo_groups) == ("alex", ("alex", "render"))
    # only root's word counts: anybody can set the variable
    person = read_host(machine(tmp_path / "user", files, {"SUDO_USER": "root"})).person
    assert (person.sudo_user, person.sudo_groups) == (None, None)
