"""The layers of every guest's root file system: a small Debian or Ubuntu with systemd, one machine's packages,
and the checkout's tool with the vendors' keys of this session."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from checks.catalogue import catalogue
from tests.lab.containers.material import distribution
from tests.lab.provision import hardware, ubuntu_packages
from tests.lab.provision.deb import Package, build
from tests.lab.provision.hardware import Computer
from tests.lab.provision.repositories import KERNELS, UBUNTU_KEYRING, Repositories
from tests.machines.ubuntu import RENDER
from tests.tool import ROOT

PERSON = "ada"
HOME = f"home/{PERSON}"
PYTHON = f"/{HOME}/.local/share/gpu-setup/tool/bin/python"
# the project's own step after a change of data: what the tool reads is the compiled catalogue
_COMPILE = f"""
import sys, runpy
sys.path.insert(0, "/{HOME}/gpu-setup")
runpy.run_module("checks.catalogue", run_name="__main__", alter_sys=True)
"""
PACKAGES = ("ca-certificates", "dbus", "openssl", "procps", "python3", "sudo", "systemd", "systemd-sysv")
ROOMS = ("gpu_setup", "provision", "checks", "machine", "harness", "containers")
# what the tool imports for these commands; the lock names their versions and digests
TOOLS = ("click", "msgspec", "rich", "markdown-it-py", "mdurl", "pygments", "nvidia-ml-py")
# names of a fresh Ubuntu that the base has under its own version
OWN = ("python3", "python3.12")
_BOOT = """\
[Unit]
Description=firmware, boot loader and kernel of the lab
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/opt/lab/boot.py
[Install]
WantedBy=sysinit.target
"""


class Base(NamedTuple):
    """`root`: the file system that all guests share; `python`: its Python, as 3.11."""

    root: Path
    python: str


def base(kept: Path) -> Base:
    """The smallest system that starts systemd and runs the tool; a minute, once for each folder `kept`."""
    like = distribution()
    root = kept / f"root-{like.suite}"
    with FileLock(kept / "root.lock"):
        if not root.exists():
            partial = kept / f"root-{like.suite}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            excluded = ("doc", "man", "locale", "info", "zoneinfo")
            subprocess.run(
                [
                    *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in excluded),
                    *(like.suite, str(partial)),
                ],
                check=True,
                timeout=900,
            )
            _settle(partial, like.python, kept)
            partial.rename(root)
    return Base(root, like.python)


def _settle(root: Path, python: str, kept: Path) -> None:
    """No sources, no lists, no stranger's units; a person; the tool's own environment."""
    for pattern in (
        "etc/apt/sources.list*",
        "etc/apt/apt.conf.d/*mmdebstrap*",
        "var/lib/apt/lists/*",
        "etc/resolv.conf",
    ):
        for place in root.glob(pattern):
            shutil.rmtree(place) if place.is_dir() else place.unlink()
    (root / "etc/apt/sources.list.d").mkdir()
    (root / "etc/machine-id").write_text("uninitialized\n")
    (root / "etc/hostname").write_text("lab\n")
    for command in (
        ("groupadd", "--system", "--gid", str(RENDER), "render"),
        ("useradd", "--create-home", "--uid", "1000", "--shell", "/bin/bash", PERSON),
        ("systemctl", "mask", "--quiet", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
    ):
        chroot(root, *command)
    (root / f"etc/sudoers.d/{PERSON}").write_text(f"{PERSON} ALL=(ALL) NOPASSWD: ALL\n")
    place = root / HOME / ".local/share/gpu-setup/tool"
    packages = place / f"lib/python{python}/site-packages"
    wanted = _locked(kept)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--python-version", python),
            *("--target", str(packages), "-r", str(wanted)),
        ],
        check=True,
        timeout=600,
    )
    (place / "bin").mkdir()
    (place / "bin/python").symlink_to(f"/usr/bin/python{python}")
    (place / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    starter = root / "usr/local/bin/gpu-setup"
    starter.write_text(f'#!/bin/sh\nexec {PYTHON} -I /{HOME}/gpu-setup/gpu_setup/__main__.py "$@"\n')
    starter.chmod(0o755)
    chroot(root, "chown", "-R", f"{PERSON}:{PERSON}", f"/{HOME}")


def _locked(kept: Path) -> Path:
    """The part of the tool's lock that names these packages."""
    lock = (ROOT / "gpu_setup/requirements.lock").read_text()
    rows = re.findall(r"^([a-z0-9-]+)==(?:.+\\\n)+.+\n", lock, re.MULTILINE)
    blocks = dict(zip(rows, re.findall(r"^[a-z0-9-]+==(?:.+\\\n)+.+\n", lock, re.MULTILINE), strict=True))
    place = kept / "tool-requirements.txt"
    place.write_text("".join(blocks[name] for name in TOOLS))
    return place


def chroot(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program of the root; no services, no network of its own."""
    return subprocess.run(
        ["chroot", str(root), *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=check,
    )


@contextmanager
def over(layers: tuple[Path, ...], upper: Path, at: Path) -> Iterator[Path]:
    """The layers, uppermost first, with `upper` taking all changes, mounted at `at`."""
    work = upper.with_name(f"{upper.name}.work")
    for folder in (upper, work, at):
        folder.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={':'.join(map(str, layers))},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "lab", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", str(at)], check=False, capture_output=True)
        shutil.rmtree(work, ignore_errors=True)


def installed(below: Base, computer: Computer, folder: Path) -> Path:
    """A layer: what the machine's installer left, as packages that dpkg knows, settings, and the hardware to show."""
    layer = folder / f"machine-{computer.name}"
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    with over((below.root,), layer, folder / "making") as root:
        for path, content in hardware.settings(computer.free).items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.write_bytes(content)
        _dpkg(root, computer, archives)
        lab = root / "opt/lab"
        for name, recording in {"free": computer.free, **computer.driven}.items():
            hardware.write_hardware(recording, lab / "hardware" / name, computer.kernels()[-1])
        (lab / "boot.py").write_bytes(ubuntu_packages.inside("boot.py").content)
        (lab / "boot.py").chmod(0o755)
        (lab / "firmware").mkdir()
        (lab / "firmware/state").write_text(f"SecureBoot {'enabled' if computer.secure_boot else 'disabled'}\n")
        (root / "etc/systemd/system/lab-boot.service").write_text(_BOOT)
        wants = root / "etc/systemd/system/sysinit.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / "lab-boot.service").symlink_to("../lab-boot.service")
        graphical = computer.free.links.get("/etc/systemd/system/display-manager.service")
        if graphical:
            # a desktop starts here, as far as one can see from outside
            (root / "etc/systemd/system/display-manager.service").symlink_to(graphical)
    return layer


def _dpkg(root: Path, computer: Computer, archives: Path) -> None:
    known: dict[tuple[str, str], Package] = {}
    for row in KERNELS:
        known |= {
            (each.name, each.version): each for each in (*ubuntu_packages.kernel(row), *ubuntu_packages.metas(row))
        }
    system = {each.name: each for each in ubuntu_packages.system()}
    wanted = [
        system.get(name) or known.get((name, version)) or Package(name, version, arch=arch)
        for name, version, arch in hardware.packages(computer.free)
        if name not in OWN
    ]
    wanted += [each for name, each in system.items() if name not in {package.name for package in wanted}]
    place = root / "var/cache/lab"
    place.mkdir(parents=True)
    for package in wanted:
        (place / package.archive).write_bytes(build(package))
    names = [f"/var/cache/lab/{package.archive}" for package in wanted]
    done = chroot(root, "dpkg", "--install", "--force-unsafe-io", *names, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    shutil.rmtree(place)
    for command in (("update-initramfs", "-u", "-k", "all"), ("update-grub",)):
        chroot(root, *command)
    releases = [name for name, _, _ in hardware.packages(computer.free) if re.match(r"linux-\w+(-extra)?-[0-9]", name)]
    chroot(root, "apt-mark", "auto", *releases)


def tool(
    below: tuple[Path, ...], shops: Repositories, folder: Path, change: Callable[[str, str], str] | None = None
) -> Path:
    """A layer: the checkout's tool in the person's home, this session's keys in its catalogue, and the certificates.

    `change(file, text)` may change a data file further: what would be known then, or another stack.
    """
    layer = folder
    with over(below, layer, folder.with_name(f"{folder.name}.making")) as root:
        home = root / HOME / "gpu-setup"
        for room in ROOMS:
            shutil.copytree(ROOT / room, home / room, ignore=shutil.ignore_patterns("__pycache__", "worker", "recipes"))
        shutil.copy(ROOT / "pyproject.toml", home / "pyproject.toml")
        for file in sorted((home / "checks/data").glob("*.toml")):
            text = file.read_text()
            text = _own_keys(text, shops) if file.name == "packages.toml" else text
            file.write_text(change(file.name, text) if change else text)
        ring = root / UBUNTU_KEYRING
        ring.parent.mkdir(parents=True, exist_ok=True)
        ring.write_bytes(shops.key("ubuntu").binary)
        trusted = root / "usr/local/share/ca-certificates/lab.crt"
        trusted.write_bytes((shops.folder / "tls.crt").read_bytes())
        chroot(root, "update-ca-certificates")
        lines = "".join(f"127.0.0.1 {host}\n" for host in ("localhost", "lab", *shops.hosts()))
        (root / "etc/hosts").write_text(lines)
        chroot(root, "chown", "-R", f"{PERSON}:{PERSON}", f"/{HOME}/gpu-setup")
        as_person = ("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--clear-groups")
        made = chroot(root, *as_person, PYTHON, "-I", "-c", _COMPILE, check=False)
        assert made.returncode == 0, made.stderr[-2000:]
        # as after a first start
        chroot(root, *as_person, PYTHON, "-I", "-m", "compileall", "-q", f"/{HOME}", check=False)
    return layer


def _own_keys(text: str, shops: Repositories) -> str:
    """packages.toml with this session's fingerprints; a row that knows none stays so."""
    for row in catalogue().repositories:
        if not row.fingerprints or row.name == "docker.ce":
            continue
        own = shops.key(Path(row.keyring).stem).fingerprint
        head, mark, rest = text.partition(f'name = "{row.name}"\n')
        assert mark, row.name
        block, gap, after = rest.partition("[[repositories]]")
        text = head + mark + re.sub(r"(?m)^fingerprints = .*$", f'fingerprints = ["{own}"]', block) + gap + after
    return text


def with_fingerprint(text: str, name: str, fingerprint: str) -> str:
    """packages.toml in which the key of this repository is known."""
    return text.replace(f'name = "{name}"\n', f'name = "{name}"\nfingerprints = ["{fingerprint}"]\n')
