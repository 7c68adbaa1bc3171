"""Copies of this checkout to start from, and homes whose environment is already there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.tool import ROOT

ROOMS = ("gpu_setup", "harness", "containers", "provision", "checks", "machine")


def copy(place: Path) -> Path:
    """A checkout of its own, without caches; returns its folder."""
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
    for room in ROOMS:
        shutil.copytree(ROOT / room, place / room, ignore=ignore)
    for file in ("gpu-setup", "test", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / file).exists():
            shutil.copy(ROOT / file, place / file)
    return place


def digest(lock: Path) -> str:
    """The launcher's name for a lock: cksum's number and size."""
    said = subprocess.run(["cksum"], input=lock.read_bytes(), capture_output=True, check=True).stdout.decode()
    number, size = said.split()
    return f"{number}-{size}"


def furnish(home: Path) -> Path:
    """Put the environment that runs these tests where a first start would have made one; returns the link."""
    tool = home / "gpu-setup" / "data" / "tool"
    tool.mkdir(parents=True)
    lock = digest(ROOT / "gpu_setup" / "requirements.lock")
    link = tool / f"{lock}-{sys.version_info[0]}.{sys.version_info[1]}"
    link.symlink_to(sys.prefix)
    return link


def tool(home: Path) -> Path:
    """Where a start with this test's home keeps its environments."""
    return home / "gpu-setup" / "data" / "tool"


def environments(home: Path) -> list[Path]:
    """The environments that a start would take, complete ones only."""
    return [place for place in tool(home).glob("*-3.*") if place.is_symlink() and not place.name.startswith("build.")]


def incomplete(home: Path) -> list[str]:
    """Whatever is there beside the environments, their targets and the lock, or half installed in them."""
    kept = {place.resolve() for place in environments(home)}
    return [
        place.name
        for place in (*tool(home).glob("*"), *tool(home).glob("*/extras/*/*.partial"))
        if not place.is_symlink() and place.resolve() not in kept and place.name != "lock"
    ]


def no_network() -> dict[str, str]:
    """pip's settings on a machine whose network is gone: every index is a closed port."""
    closed = "http://127.0.0.1:9/simple"
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": closed,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }


def start(
    launcher: Path | str, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a launcher with nobody at the keyboard."""
    return subprocess.run(
        [str(launcher), *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
