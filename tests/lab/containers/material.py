"""What an image is made of, without a registry: a root file system of this machine's own distribution, and wheels."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from checks.catalogue import catalogue
from containers.spec import lock_text
from tests.lab.containers.engines import SYSTEM_PATH


class Distribution(NamedTuple):
    """A distribution: apt's word for it, its image's name as the catalogue knows it, and its Python."""

    suite: str
    image: str
    python: str


# by os-release's word: the base is made like the machine, because its archive is the one that answers here
KNOWN = {
    "bookworm": Distribution("bookworm", "debian:bookworm", "3.11"),
    "trixie": Distribution("trixie", "debian:trixie", "3.13"),
    "noble": Distribution("noble", "ubuntu:24.04", "3.12"),
}
# what a slim image of a registry leaves out, too
_WITHOUT = ("doc", "man", "locale", "info")


def distribution() -> Distribution:
    word = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    if word not in KNOWN:
        pytest.skip(f"no base is known for a machine with {word or 'this system'}")
    return KNOWN[word]


def root_file_system(kept: Path, wanted: Distribution) -> Path:
    """A .tar of the distribution with what the image keeps (a minute; once for each folder `kept`)."""
    place = kept / f"{wanted.suite}.tar"
    if not place.exists():
        base = catalogue().base(wanted.image)
        assert base is not None
        packages = ",".join((*base.packages, *base.build_packages))
        partial = place.with_suffix(".partial.tar")
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}"),
                *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _WITHOUT),
                *(wanted.suite, str(partial)),
            ],
            check=True,
            timeout=600,
        )
        partial.rename(place)
    return place


def wheels(kept: Path, wanted: Distribution) -> Path:
    """Every package of the cpu lock, torch, and what two source packages are built with, as pip gives them here."""
    place = kept / f"wheels-py{wanted.python}"
    if not place.exists():
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        python = sys.executable if own == wanted.python else shutil.which(f"python{wanted.python}")
        if python is None:
            pytest.skip(f"no Python {wanted.python} to fetch its wheels with")
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        lock = kept / "lock.txt"
        lock.write_bytes(lock_text("common.txt"))
        fetch = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(partial)]
        stack = catalogue().stack("cpu")
        for what in (["--require-hashes", "-r", str(lock)], [stack.torch_requirement], ["setuptools", "wheel"]):
            subprocess.run([*fetch, *what], check=True, timeout=900, stderr=subprocess.DEVNULL)
        partial.rename(place)
    return place


def stand_in(folder: Path, name: str, version: str, files: int = 1) -> Path:
    """A wheel of the right name with nothing in it: installs at once, or slowly with many files."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(place, "w") as archive:
        for number in range(files):
            archive.writestr(f"{name}/part{number}.py", f"x = {number}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return place


def unpacked(folder: Path, suite: str, packages: tuple[str, ...]) -> Path:
    """Packages of another distribution, unpacked side by side with what they need; nothing of them is configured."""
    if not (folder / "usr").exists():
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(packages)}", suite, str(folder)],
            check=True,
            timeout=600,
        )
    for name in ("bin", "sbin", "lib", "lib64"):
        if not (folder / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    return folder


def starter(place: Path, root: Path, program: str) -> Path:
    """A command that starts a program of `root` with its own libraries, on this machine's files."""
    loader = next(root.glob("usr/lib/*-linux-gnu*/ld-linux-*.so.*"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'#!/bin/sh\nexec {loader} --library-path {loader.parent} {root}{program} "$@"\n')
    place.chmod(0o755)
    return place


def as_root() -> None:
    """An engine of one's own needs root, and its programs; .ci/run installs them."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it starts a Docker engine of its own")
    for program, package in (("dockerd", "docker.io"), ("mmdebstrap", "mmdebstrap")):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            pytest.skip(f"needs {program}: apt-get install {package}")
