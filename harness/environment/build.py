"""The training environment: a separate, locked venv, built once per lock, checked at every use, repaired where broken.

    stack ─▶ lock ─▶ data/env/<stack>-<digest>-py3.12 ── intact? ─▶ use
                                                      └─ else: venv → torch → the lock's other packages → document

torch is installed by a separate pip call, because its builds differ by index (torch_install.py). Every file is checked
by hash; where no hash of a build of torch is known, a person has to accept that first.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from checks.catalogue import Stack
from harness.atomic_files import disk_errors, read_if_valid, write_atomic
from harness.environment.lock_file import Lock, load_lock, lock_entries
from harness.environment.packages import end_orphaned_pips, installed_packages, missing_packages, remove_broken
from harness.environment.pip import PipInstall, raise_if_failed
from harness.environment.torch_build import read_torch_build, require_right_build
from harness.environment.torch_install import TorchCheck, TorchSource, install_torch, unverified_torch
from machine.errors import OutsideFailed, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "environment"
DOCUMENT = "environment.json"
# measured: 3.1 GB installed, 0.9 GB of wheels in pip's cache, on the CPU (2026-11-24)
ROOM_NEEDED = 5 << 30
DONE = {"Repairing": "repaired", "Completing": "completed", "Building": "built"}


class Environment(msgspec.Struct, frozen=True):
    """An existing training environment.

    `torch_from`: from a local copy, the stack's index, the configured index, or the image; kept: it was complete, and
    its source is no longer known. `torch_verified`: sha256 if its wheel had the lock's hash, else unverified.
    `torch_cuda` and `torch_hip` are torch.version's. `image` is the id of the container image that holds the
    environment (null: a venv); `folder` is then a path inside the image, and `notes` is the folder on this machine for
    notes about it.
    """

    stack: str
    folder: str
    lock_digest: str
    python_version: str
    torch: str
    torch_from: TorchSource | Literal["image", "kept"]
    torch_verified: TorchCheck
    built_at: str
    seconds: float
    image: str | None = None
    notes: str | None = None
    torch_cuda: str | None = None
    torch_hip: str | None = None

    @property
    def notes_folder(self) -> Path:
        """The folder on this machine for notes about the environment."""
        return Path(self.notes or self.folder)

    @property
    def python(self) -> Path:
        return Path(self.folder) / "bin" / "python"


class PythonInterpreter(msgspec.Struct, frozen=True):
    """The interpreter that the environment is made from."""

    path: str
    version: str


class EnvironmentTarget(NamedTuple):
    """Which environment is built where: the stack, the interpreter, the lock for its version, and the folder.

    `refusal`: why torch must not be installed.
    """

    stack: Stack
    base: PythonInterpreter
    lock: Lock
    folder: Path
    refusal: Refused | None


def find_python(machine: Machine, stack: Stack) -> PythonInterpreter:
    """This interpreter if the stack has a lock for its version, else the first suitable one on PATH; else Refused."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in stack.pythons:
        return PythonInterpreter(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), own)
    for version in stack.pythons:
        if machine.run((f"python{version}", "-c", "import venv, ensurepip")).ok:
            return PythonInterpreter(f"python{version}", version)
    raise Refused(
        "environment.python",
        f"No Python for the training stack {stack.name}: it needs version {' or '.join(stack.pythons)}, this is {own}.",
        f"Axolotl {stack.axolotl} and torch {stack.torch} have no wheels for Python {own}.",
        f"Install one of them, for example: sudo apt install python{stack.pythons[0]}-venv",
    )


def environment_folder(paths: Paths, stack: Stack, lock: Lock, base: PythonInterpreter) -> Path:
    return paths.environments / f"{stack.name}-{lock.digest[:12]}-py{base.version}"


def read_document(folder: Path) -> Environment | None:
    return read_if_valid(folder / DOCUMENT, Environment)


def ensure_environment(stack: Stack, machine: Machine, paths: Paths, emit: Emit) -> Environment:
    """The environment for this stack: reused if intact, else repaired or built.

    Raises Refused (no suitable Python, no lock, a torch that cannot be checked and was not accepted, a torch of another
    build), OutsideFailed (disk full, pip failed, network lost). What was installed before a failure is kept, and the
    next call continues from there.
    """
    from filelock import FileLock, Timeout

    target = _target(stack, machine, paths)
    lock, folder = target.lock, target.folder
    make(paths.environments)
    guard = FileLock(f"{folder}.lock")
    with disk_errors(folder):
        try:
            guard.acquire(timeout=0)
        except Timeout:
            emit(Event("note", STAGE, "Another gpu-setup is building the training environment; waiting for it."))
            guard.acquire()
    try:
        document = read_document(folder)
        absent = missing_packages(folder, lock, stack.usable_builds)
        if document and not _is_at(document, folder):
            # a venv that was moved: its scripts contain the old path
            document, absent = None, {*lock.packages, "torch"}
        if document and not absent and (build := read_torch_build(document.python, machine)):
            require_right_build(stack, build, folder)
            emit(Event("end", STAGE, f"Training environment exists and is intact: {folder}"))
            return document
        if "torch" in absent and target.refusal:
            raise target.refusal
        with disk_errors(folder):
            return _build(target, document, absent, machine, emit)
    finally:
        guard.release()


def torch_to_accept(stack: Stack, machine: Machine, paths: Paths) -> Refused | None:
    """Why the next `ensure_environment` would refuse to install torch: it cannot be checked; None: it would not."""
    target = _target(stack, machine, paths)
    missing = target.refusal and "torch" in missing_packages(target.folder, target.lock, stack.usable_builds)
    return target.refusal if missing else None


def _target(stack: Stack, machine: Machine, paths: Paths) -> EnvironmentTarget:
    if stack.lock is None:
        raise Refused(
            "environment.no-lock",
            f"The stack {stack.name} has no lock yet, so its training environment cannot be built.",
            "gpu-setup builds only locked environments, so that results can be repeated.",
            "Lock it as docs/adding.md describes, or use another stack.",
        )
    base = find_python(machine, stack)
    lock = load_lock(stack.lock, base.version)
    folder = environment_folder(paths, stack, lock, base)
    return EnvironmentTarget(stack, base, lock, folder, unverified_torch(stack, paths))


def _is_at(document: Environment, folder: Path) -> bool:
    try:
        return os.path.samefile(document.folder, folder)
    except OSError:
        return False


def _build(
    target: EnvironmentTarget, before: Environment | None, absent: set[str], machine: Machine, emit: Emit
) -> Environment:
    stack, base, lock, folder, refusal = target
    begin = time.monotonic()
    everything = {*lock.packages, "torch"}
    verb = "Repairing" if before else "Completing" if absent != everything else "Building"
    count = "1 package" if len(absent) == 1 else f"{len(absent)} packages"
    emit(Event("start", STAGE, f"{verb} the training environment ({stack.name}, {count}): {folder}"))
    python = folder / "bin" / "python"
    if end_orphaned_pips(machine, python):
        emit(Event("note", STAGE, "Ended an orphaned pip of a gpu-setup that was killed."))
        absent = missing_packages(folder, lock, stack.usable_builds)
    _check_space(machine, folder, len(absent) / len(everything))
    (folder / DOCUMENT).unlink(missing_ok=True)
    if absent == everything or not machine.run((str(python), "-m", "pip", "--version"), timeout=60).ok:
        clear = ("--clear",) if folder.exists() else ()
        raise_if_failed(
            machine.run((base.path, "-I", "-m", "venv", *clear, str(folder)), timeout=300), "making the venv"
        )
        absent = everything
    if "torch" in absent and refusal:
        raise refusal
    remove_broken(folder, installed_packages(folder)[1])
    torch_from, torch_verified = (before.torch_from, before.torch_verified) if before else ("kept", "unverified")
    with PipInstall(STAGE, folder, absent, machine, emit) as pip:
        if "torch" in absent:
            torch_from, torch_verified = install_torch(stack, pip, folder, emit)
        rest = absent - {"torch"}
        if rest:
            wanted = write_atomic(folder / "wanted.txt", lock_entries(lock, rest))
            locked = ("--no-deps", "--require-hashes", "--force-reinstall", "-r", str(wanted))
            raise_if_failed(pip.install_checked(*locked), "installing packages")
            wanted.unlink()
    still = missing_packages(folder, lock, stack.usable_builds)
    if still:
        raise OutsideFailed(
            "environment.incomplete",
            f"pip reported success, but these packages are not installed: {', '.join(sorted(still)[:5])}.",
            "Another program changes the environment, or the disk fails.",
            f"Remove {folder} and run the same command again.",
        )
    found, _ = installed_packages(folder)
    try:
        build = require_right_build(stack, read_torch_build(python, machine), folder)
    except Refused:
        # so that the next call installs it again
        remove_broken(folder, {"torch"})
        raise
    document = Environment(
        stack=stack.name,
        folder=str(folder),
        lock_digest=lock.digest,
        python_version=base.version,
        torch=found["torch"],
        torch_from=torch_from,
        torch_verified=torch_verified,
        built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.monotonic() - begin, 1),
        torch_cuda=build.cuda,
        torch_hip=build.hip,
    )
    write_atomic(folder / DOCUMENT, msgspec.json.encode(document))
    emit(Event("end", STAGE, f"Training environment {DONE[verb]} in {document.seconds:.0f} s: {folder}"))
    return document


def _check_space(machine: Machine, folder: Path, share: float) -> None:
    """Refuse to start without enough disk space; `share` of the packages is still to install."""
    needed = ROOM_NEEDED * share
    space = machine.space(str(folder))
    if space is not None and space.free < needed:
        raise OutsideFailed(
            "environment.no-room",
            f"{space.free / 1e9:.1f} GB are free at {folder.parent}, and {needed / 1e9:.1f} GB are needed there.",
            "The training environment is large: it contains PyTorch, Triton and Axolotl.",
            "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk.",
        )
