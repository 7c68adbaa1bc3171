"""The training environment: a separate, locked venv, built once per lock, checked at every use, repaired where broken.

    stack ─▶ lock ─▶ data/env/<stack>-<digest>-py3.12 ── intact? ─▶ use
                                                      └─ else: venv → torch → the lock's other packages → document

torch is installed by a separate pip call, because its builds differ by index: pip first looks for a local copy without
any index, then in the stack's index, then in the configured index. Only the lock's packages are checked by hash.
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
from harness.environment.pip import NOTHING_FOUND, OTHER_HASH, PipInstall, raise_if_failed
from machine.errors import OutsideFailed, Refused
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

STAGE = "environment"
DOCUMENT = "environment.json"
# measured: 3.1 GB installed, 0.9 GB of wheels in pip's cache, on the CPU (2026-11-24)
ROOM_NEEDED = 5 << 30
DONE = {"Repairing": "repaired", "Completing": "completed", "Building": "built"}

TorchSource = Literal["local", "index", "configured", "image", "kept"]


class Environment(msgspec.Struct, frozen=True):
    """An existing training environment.

    `torch_from`: from a local copy, the stack's index, the configured index, or the image; kept: it was complete, and
    its source is no longer known. `torch_verified`: no hash is checked yet, so always unverified. `image` is the id of
    the container image that holds the environment (null: a venv); `folder` is then a path inside the image, and `notes`
    is the folder on this machine for notes about it.
    """

    stack: str
    folder: str
    lock_digest: str
    python_version: str
    torch: str
    torch_from: TorchSource
    torch_verified: Literal["unverified"]
    built_at: str
    seconds: float
    image: str | None = None
    notes: str | None = None

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
    """Which environment is built where: the stack, the interpreter, the lock for its version, and the folder."""

    stack: Stack
    base: PythonInterpreter
    lock: Lock
    folder: Path


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

    Raises Refused (no suitable Python, no lock), OutsideFailed (disk full, pip failed, network lost). What was
    installed before a failure is kept, and the next call continues from there.
    """
    from filelock import FileLock, Timeout

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
        absent = missing_packages(folder, lock, stack.torch)
        if document and not _is_at(document, folder):
            # a venv that was moved: its scripts contain the old path
            document, absent = None, {*lock.packages, "torch"}
        if document and not absent and machine.run((str(document.python), "-c", ""), timeout=20).ok:
            emit(Event("end", STAGE, f"Training environment exists and is intact: {folder}"))
            return document
        with disk_errors(folder):
            return _build(EnvironmentTarget(stack, base, lock, folder), document, absent, machine, emit)
    finally:
        guard.release()


def _is_at(document: Environment, folder: Path) -> bool:
    try:
        return os.path.samefile(document.folder, folder)
    except OSError:
        return False


def _build(
    target: EnvironmentTarget, before: Environment | None, absent: set[str], machine: Machine, emit: Emit
) -> Environment:
    stack, base, lock, folder = target
    begin = time.monotonic()
    everything = {*lock.packages, "torch"}
    verb = "Repairing" if before else "Completing" if absent != everything else "Building"
    count = "1 package" if len(absent) == 1 else f"{len(absent)} packages"
    emit(Event("start", STAGE, f"{verb} the training environment ({stack.name}, {count}): {folder}"))
    python = folder / "bin" / "python"
    if end_orphaned_pips(machine, python):
        emit(Event("note", STAGE, "Ended an orphaned pip of a gpu-setup that was killed."))
        absent = missing_packages(folder, lock, stack.torch)
    _check_space(machine, folder, len(absent) / len(everything))
    (folder / DOCUMENT).unlink(missing_ok=True)
    if absent == everything or not machine.run((str(python), "-m", "pip", "--version"), timeout=60).ok:
        clear = ("--clear",) if folder.exists() else ()
        raise_if_failed(
            machine.run((base.path, "-I", "-m", "venv", *clear, str(folder)), timeout=300), "making the venv"
        )
        absent = everything
    remove_broken(folder, installed_packages(folder)[1])
    torch_from: TorchSource = before.torch_from if before else "kept"
    with PipInstall(STAGE, folder, absent, machine, emit) as pip:
        if "torch" in absent:
            torch_from = _install_torch(stack, pip, emit)
        rest = absent - {"torch"}
        if rest:
            wanted = write_atomic(folder / "wanted.txt", lock_entries(lock, rest))
            locked = ("--no-deps", "--require-hashes", "--force-reinstall", "-r", str(wanted))
            outcome = pip.install(*locked)
            if OTHER_HASH in outcome.stdout:
                # before version 25, pip takes an incomplete download for a complete one
                emit(Event("note", STAGE, "A download has another hash than the lock, or is incomplete; trying again."))
                outcome = pip.install(*locked)
            raise_if_failed(outcome, "installing packages")
            wanted.unlink()
    still = missing_packages(folder, lock, stack.torch)
    if still:
        raise OutsideFailed(
            "environment.incomplete",
            f"pip reported success, but these packages are not installed: {', '.join(sorted(still)[:5])}.",
            "Another program changes the environment, or the disk fails.",
            f"Remove {folder} and run the same command again.",
        )
    found, _ = installed_packages(folder)
    document = Environment(
        stack=stack.name,
        folder=str(folder),
        lock_digest=lock.digest,
        python_version=base.version,
        torch=found["torch"],
        torch_from=torch_from,
        torch_verified="unverified",
        built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(time.monotonic() - begin, 1),
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


def _install_torch(stack: Stack, pip: PipInstall, emit: Emit) -> TorchSource:
    """Install torch alone; returns where it came from."""
    alone = () if stack.torch_brings else ("--no-deps",)
    exact = (*alone, "--force-reinstall", stack.torch_requirement)
    local = pip.install("--no-index", *exact)
    if local.ok:
        emit(Event("note", STAGE, f"torch {stack.torch} from a local copy (unverified: the lock has no hash for it)."))
        return "local"
    if NOTHING_FOUND not in local.stdout:
        raise_if_failed(local, "installing torch")
    if pip.index_has("torch", stack.torch_index):
        raise_if_failed(pip.install("--index-url", stack.torch_index, *exact), "installing torch")
        words = f"torch {stack.torch} from {stack.torch_index} (unverified: the lock has no hash for it)."
        emit(Event("note", STAGE, words))
        return "index"
    if stack.vendor == "amd":
        raise OutsideFailed(
            "environment.index",
            f"{stack.torch_index} does not answer, and only it has torch for {stack.runtime.upper()}.",
            "The configured package index would give a CUDA build with the same version.",
            "Check the network; then run the same command again to continue.",
        )
    emit(
        Event(
            "warning",
            STAGE,
            f"{stack.torch_index} does not answer; installing torch {stack.torch} from the configured package index "
            "(unverified, and for most indexes a CUDA build of several GB).",
        )
    )
    raise_if_failed(pip.install(f"torch=={stack.torch}"), "installing torch")
    return "configured"
