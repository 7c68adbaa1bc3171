"""Installs the stack's torch: every build whose sha256 is known only as the lock has it, any other only if accepted.

a local copy (no index) ─▶ the stack's index ─▶ the configured index      each: every build that is right for the stack
  ─▶ the configured index, with a larger build that runs as well
"""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from checks.catalogue import Stack
from harness.atomic_files import read_if_valid, write_atomic
from harness.environment.lock_file import requirement_versions
from harness.environment.pip import NOTHING_FOUND, PipInstall, raise_if_failed
from machine.errors import OutsideFailed, Refused
from machine.events import Emit, Event
from machine.paths import Paths, make

STAGE = "environment"
WANTED = "wanted-torch.txt"
TorchSource = Literal["local", "index", "configured"]
TorchCheck = Literal["sha256", "unverified"]


class AcceptedTorch(msgspec.Struct, frozen=True):
    """A person's agreement to install this requirement from this index although no sha256 of it is known."""

    requirement: str
    index: str
    at: str


def unknown_builds(stack: Stack) -> tuple[str, ...]:
    """The builds of the stack's torch that cannot be checked, by version; empty: each has its sha256 in a lock."""
    return tuple(version for version, lock in stack.torch_builds.items() if not lock)


def unverified_torch(stack: Stack, paths: Paths) -> Refused | None:
    """Why torch must not be installed yet: it cannot be checked, and nobody has accepted that. None: it may."""
    builds = unknown_builds(stack)
    if not builds or _is_accepted(stack, paths):
        return None
    libraries = " or of the libraries that come with it" if stack.torch_brings else ""
    return Refused(
        "environment.unverified",
        f"torch {' or '.join(builds)} cannot be checked before it is installed.",
        f"gpu-setup knows no sha256 of it{libraries}, so it would install whatever {stack.torch_index} sends, and "
        "that code runs with your rights. Sizes and digests from the same server are no evidence.",
        "If you trust that server and the way to it, say so: gpu-setup environment --accept-unverified. --yes does not "
        "include it.",
    )


def accept_unverified(stack: Stack, paths: Paths) -> None:
    """Record that a person accepts this stack's torch without a check: for this version and index only."""
    accepted = AcceptedTorch(
        stack.torch_requirement, stack.torch_index, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    )
    make(paths.environments)
    write_atomic(_acceptance(stack, paths), msgspec.json.encode(accepted))


def _is_accepted(stack: Stack, paths: Paths) -> bool:
    found = read_if_valid(_acceptance(stack, paths), AcceptedTorch)
    return found is not None and (found.requirement, found.index) == (stack.torch_requirement, stack.torch_index)


def _acceptance(stack: Stack, paths: Paths) -> Path:
    return paths.environments / f"accepted-{stack.name}.json"


def install_torch(stack: Stack, pip: PipInstall, folder: Path, emit: Emit) -> tuple[TorchSource, TorchCheck]:
    """Install torch alone (with its libraries where it brings them); returns its source, and how it was checked.

    Raises OutsideFailed where no source has a right build, or one has another file under the build's name.
    """
    right, versions = stack.torch_builds, " or ".join(stack.torch_builds)
    sources: tuple[tuple[TorchSource, tuple[str, ...], str, dict[str, str]], ...] = (
        ("local", ("--no-index",), "a local copy", right),
        ("index", ("--index-url", stack.torch_index), stack.torch_index, right),
        ("configured", (), "the configured package index", right),
        ("configured", (), "the configured package index", stack.torch_fallback),
    )
    for source, options, name, builds in sources:
        if source == "index" and not pip.index_has("torch", stack.torch_index):
            emit(Event("note", STAGE, f"{stack.torch_index} does not answer."))
            continue
        for version, lock in builds.items():
            if version in stack.torch_fallback:
                emit(Event("note", STAGE, f"No source has torch {versions}; installing {version}, several GB larger."))
            if source == "configured" and not lock:
                # what was accepted is the stack's index
                continue
            arguments = _arguments(stack, version, lock, folder)
            outcome = pip.install_checked(*options, *arguments, only_index=None if lock else stack.torch_index)
            (folder / WANTED).unlink(missing_ok=True)
            if outcome.ok:
                check: TorchCheck = "sha256" if lock else "unverified"
                proof = "checked by its sha256" if lock else "unverified: no sha256 of it is known"
                emit(Event("note", STAGE, f"torch {version} from {name} ({proof})."))
                return source, check
            if NOTHING_FOUND not in outcome.stdout:
                raise_if_failed(outcome, "installing torch")
    raise OutsideFailed(
        "environment.index",
        f"No source has torch {versions}, the build for {stack.name}: {stack.torch_index} does not answer or lacks it, "
        "and no other source that gpu-setup may use has it.",
        "Another build of the same version would be slow, fail, or not use the card, so none is taken.",
        "Check the network and run the same command again to continue; or put the wheel into a folder and set "
        "PIP_FIND_LINKS to it.",
    )


def _arguments(stack: Stack, version: str, lock: str, folder: Path) -> tuple[str, ...]:
    if not lock:
        alone = () if stack.torch_brings else ("--no-deps",)
        return (*alone, "--force-reinstall", stack.requirement_of(version))
    text = torch_lock(lock)
    assert version in requirement_versions(text, "torch"), f"{lock} is not for {version}"
    wanted = write_atomic(folder / WANTED, text)
    return ("--no-deps", "--require-hashes", "--force-reinstall", "-r", str(wanted))


def torch_lock(name: str) -> str:
    """The text of the lock of torch's wheels `checks/data/locks/NAME`, or of a file by its absolute path."""
    return (resources.files("checks") / "data" / "locks" / name).read_text(encoding="utf-8")
