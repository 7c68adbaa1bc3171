"""The recorded machines of this folder, by name."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from machine.machine_file import load as load_file
from machine.open_recording import open_recording
from machine.recording import RecordedMachine
from machine.recording_files import MemoryTree

FOLDER = Path(__file__).with_name("machines")
SUFFIX = ".machine"
# each vendor fresh, healthy and broken, both and neither: those that ./test --fast sends through a whole process too
FEW = (
    "no-gpu",
    "rtx3090-library-mismatch",
    "rtx3090-secureboot-dkms-rejected",
    "rtx3090ti-fresh",
    "rtx4090-healthy",
    "rx7900gre-dkms-failed",
    "rx7900xt-fresh",
    "rx7900xtx-healthy",
    "two-vendors",
)


def names() -> list[str]:
    """Every recorded machine, sorted."""
    return sorted(file.stem for file in FOLDER.glob(f"*{SUFFIX}"))


def machine_path(name: str) -> str:
    """The file, for --machine."""
    return str(FOLDER / f"{name}{SUFFIX}")


def load(name: str) -> RecordedMachine:
    """The machine, strict: a command that was not recorded fails the test."""
    return open_recording(machine_path(name), strict=True)


def expected(name: str) -> Any:
    """What doctor and plan must say of the machine."""
    return json.loads(tree(name).files["expect.json"])


@cache
def tree(name: str) -> MemoryTree:
    """The recording as the files of a folder, in memory, where it can be changed without writing."""
    found = load_file(machine_path(name))
    documents = {document: json.dumps(value).encode() for document, value in found.decoded.items()}
    return MemoryTree(name, {**found.files, **documents}, found.links, ("sysroot",))


def unpack(name: str, folder: Path) -> None:
    """Write the recording as a folder, for a test that changes files or links in it."""
    found = tree(name)
    for place, data in found.files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
    for place, target in found.links.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(target)
