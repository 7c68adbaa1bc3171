"""From a fresh machine to a container: apply installs a real Docker, reboot, image build, verify, a run with a GPU.

The guest is one of the others' kind; only its Docker is real: this distribution's, in a package of Ubuntu's name.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.containers.engines import SYSTEM_PATH, make_disk
from tests.lab.containers.material import as_root, distribution, root_file_system, wheels
from tests.lab.provision.deb import File, Package, script, text
from tests.lab.provision.hosts import Guest, Hosts
from tests.lab.provision.repositories import Repositories
from tests.lab.provision.rootfs import PERSON, PYTHON
from tests.tool import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.full]

# by package: what a container needs; names that another release lacks are left out
PROGRAMS = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "containerd-shim", "runc", "docker-init")
# the guests share one network, so that this engine makes no bridge and no rules in it
UNIT = """\
[Unit]
Description=Docker Application Container Engine
[Service]
Type=notify
ExecStart=/usr/sbin/dockerd --bridge=none --iptables=false
ExecReload=/bin/kill -s HUP $MAINPID
Delegate=yes
KillMode=process
[Install]
WantedBy=multi-user.target
"""
# systemd-nspawn mounts the control groups read-only
GROUPS = """\
[Unit]
DefaultDependencies=no
Before=docker.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/writable-groups
[Install]
WantedBy=multi-user.target
"""
WRITABLE = """\
#!/bin/sh
grep -o ' /sys/fs/cgroup[^ ]*' /proc/mounts | while read -r place; do mount -o remount,rw,bind "$place" || true; done
"""


def real(package: Package) -> Package:
    """The package with this machine's programs instead of the stand-ins."""
    files: dict[str, File] = {"usr/lib/systemd/system/docker.service": text(UNIT)}
    for name in PROGRAMS:
        if found := shutil.which(name, path=SYSTEM_PATH):
            place = "usr/sbin" if name in ("dockerd", "runc") else "usr/bin"
            files[f"{place}/{name}"] = File(Path(found).resolve().read_bytes(), 0o755)
    plugin = Path("/usr/libexec/docker/cli-plugins/docker-buildx")
    if plugin.exists():
        files[str(plugin).lstrip("/")] = File(plugin.read_bytes(), 0o755)
    # what the toolkit's own package brings, and what makes `--gpus` an option of this engine
    files["usr/bin/nvidia-container-runtime-hook"] = script("#!/bin/sh\nexit 0\n")
    return package._replace(files=files)


@pytest.fixture
def material(session_folder: Path, persons_environ: Mapping[str, str]) -> Path:
    as_root()
    kept = persons_environ.get("GPU_SETUP_TEST_HOME")
    folder = (Path(kept) if kept else session_folder) / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def guest(hosts: Hosts, shops: Repositories, material: Path, tmp_path: Path) -> Iterator[Guest]:
    """A fresh machine with an RTX 3090, whose disk for images and whose folder of packages are this machine's."""
    like = distribution()
    system, packages = root_file_system(material, like), wheels(material, like)
    shops.publish("ubuntu", [real(each) if each.name == "docker.io" else each for each in shops.packages("ubuntu")])
    with disk(tmp_path) as images, hosts.guest("rtx3090", on=False) as made:
        made.options = (
            "--capability=all",
            f"--bind={images}:/var/lib/docker",
            f"--bind-ro={packages}:/srv/wheels",
            f"--bind-ro={system}:/srv/base.tar",
        )
        made.environ = {"SYSTEMD_SECCOMP": "0"}
        made.write("/etc/systemd/system/writable-groups.service", GROUPS)
        made.write("/usr/local/sbin/writable-groups", WRITABLE, 0o755)
        wants = made.path("/etc/systemd/system/multi-user.target.wants")
        wants.mkdir(parents=True, exist_ok=True)
        (wants / "writable-groups.service").symlink_to("../writable-groups.service")
        # what the guests' tool has no need of elsewhere
        for name in ("recipes", "worker"):
            made.copy(ROOT / "harness" / name, f"/home/{PERSON}/gpu-setup/harness/{name}")
        for name in ("jinja2", "markupsafe", "yaml"):
            spec = importlib.util.find_spec(name)
            assert spec and spec.origin
            target = Path(PYTHON).parents[1] / f"lib/python{like.python}/site-packages" / name
            made.copy(Path(spec.origin).parent, str(target))
        made.start()
        yield made


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A disk in one file, mounted."""
    file, place = folder / "disk", folder / "images"
    place.mkdir()
    make_disk(file, 40)
    subprocess.run(["mount", "-o", "loop", str(file), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        file.unlink()


def image(guest: Guest, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """`sudo gpu-setup image …`: apply adds nobody to the group docker."""
    return guest.run("sudo", "gpu-setup", "image", *arguments, timeout=timeout)


def test_a_fresh_machine_builds_its_image_and_runs_it_with_its_card(guest: Guest) -> None:
    applied = guest.tool("apply", "--yes", timeout=600)
    assert applied.rc == 5, applied.document
    guest.reboot()
    assert guest.tool("resume").data["standing"] == "done"
    assert guest.run("systemctl", "is-active", "docker").stdout == "active\n"

    said = image(guest, "engine").stdout
    assert "docker.io" in said and "nvidia cards are passed to containers through the engine's --gpus" in said
    denied = guest.tool("image", "engine")
    assert (denied.rc, denied.error["code"]) == (3, "image.engine-denied")

    base = distribution().image
    guest.run("sudo", "docker", "import", "/srv/base.tar", base, timeout=300, check=True)
    words = ("build", "--vendor", "cpu", "--base", base, "--offline", "--wheels", "/srv/wheels")
    built = image(guest, *words, timeout=1500)
    assert built.returncode == 0, built.stdout + built.stderr
    proven = image(guest, "verify", "--vendor", "cpu", timeout=300)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert "Verified from inside" in proven.stdout

    # the card itself is a stand-in; that it was chosen and asked for is not
    name = guest.run("sudo", "docker", "images", "--format", "{{.Repository}}:{{.Tag}}", "gpu-setup").stdout.strip()
    program = 'import os; print(os.environ["NVIDIA_VISIBLE_DEVICES"], os.getuid()); open("mine", "w")'
    words = ("env", f"--chdir=/home/{PERSON}", "gpu-setup", "image", "run", "--image", name, "--", "python", "-c")
    ran = guest.run("sudo", *words, program)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # an engine in a guest may not lift the limit of locked memory on every machine: then that is said first
    uuid, uid = ran.stdout.splitlines()[-1].split()
    person = guest.run("id", "-u").stdout.strip()
    assert uuid.startswith("GPU-") and uid == person
    assert guest.path(f"/home/{PERSON}/mine").stat().st_uid == int(person)
    assert guest.run("sudo", "docker", "ps", "--all", "--quiet").stdout == ""
