"""The training environment: a venv of its own, locked, built once per lock, checked at every use, repaired in part.

    stack ─▶ lock ─▶ data/env/<lock>-py3.12 ── intact? ─▶ use
                                            └─ else: venv → torch → the lock's other packages → document

torch is a pip call of its own, because its builds differ by index: a local copy that pip finds without an index wins,
then the stack's index, then whatever index is configured. Only the lock's packages are checked by hash.
"""

from __future__ import annotations

import csv
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from checks.catalogue import Stack
from harness.lock import Lock, entries, load_lock, normalised
from machine.door import Machine, Outcome
from machine.errors import OutsideFailed, Refused
from machine.events import Emit, Event
from machine.paths import Paths, make

STAGE = "environment"
DOCUMENT = "environment.json"
# measured: 3.1 GB installed, 0.9 GB of wheels in pip's cache, on the CPU (2026-11-24)
ROOM_NEEDED = 5 << 30


class Environment(msgspec.Struct, frozen=True):
    """A training environment that is there. `torch_from`: local, index or configured; `unverified` says no hash was checked."""

    stack: str
    folder: str
    lock_digest: str
    python_version: str
    torch: str
    torch_from: str
    torch_verified: str
    built_at: str
    seconds: float

    @property
    def python(self) -> Path:
        return Path(self.folder) / "bin" / "python"


class Base(msgspec.Struct, frozen=True):
    """The interpreter that the environment is made from."""

    path: str
    version: str


def base_python(machine: Machine, stack: Stack) -> Base:
    """This interpreter when the stack has a lock for its version, else the first on PATH that fits; else Refused."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if own in stack.pythons:
        return Base(os.path.realpath(getattr(sys, "_base_executable", sys.executable)), own)
    for version in stack.pythons:
        if machine.run((f"python{version}", "-c", "import venv, ensurepip")).ok:
            return Base(f"python{version}", version)
    raise Refused(
        "environment.python",
        f"No Python for the training stack {stack.name}: it needs one of {', '.join(stack.pythons)}, this is {own}.",
        f"Axolotl {stack.axolotl} and torch {stack.torch} have no wheels for Python {own}.",
        f"Install one of them, for example: sudo apt install python{stack.pythons[0]}-venv",
    )


def installed(folder: Path) -> tuple[dict[str, str], set[str]]:
    """What lies in the environment: version by package, and the packages with a missing or shortened file.

    Reads each RECORD and compares sizes: 30,000 files take about 0.1 s. Byte code and files without a size are left out.
    """
    found: dict[str, str] = {}
    broken: set[str] = set()
    for site in folder.glob("lib/python3*/site-packages"):
        for info in site.glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            found[normalised(name)] = version
            try:
                with (info / "RECORD").open(newline="", encoding="utf-8") as record:
                    intact = all(
                        os.stat(site / path).st_size == int(size) for path, _, size in csv.reader(record) if size
                    )
            except (OSError, ValueError):
                intact = False
            if not intact:
                broken.add(normalised(name))
    return found, broken


def missing(folder: Path, lock: Lock, torch: str) -> set[str]:
    """The packages of the lock (and torch) that are absent, broken or at another version."""
    found, broken = installed(folder)
    wanted = {**lock.packages, "torch": torch}
    return {
        name
        for name, version in wanted.items()
        if name in broken or found.get(name, "").split("+")[0] != version.split("+")[0]
    }


def folder_of(paths: Paths, lock: Lock, base: Base) -> Path:
    return paths.environments / f"{lock.name.removesuffix('.txt')}-{lock.digest[:12]}-py{base.version}"


def read_document(folder: Path) -> Environment | None:
    try:
        return msgspec.json.decode((folder / DOCUMENT).read_bytes(), type=Environment)
    except (OSError, msgspec.MsgspecError):
        return None


def ensure(stack: Stack, machine: Machine, paths: Paths, emit: Emit) -> Environment:
    """The environment for this stack: reused when intact, repaired or built where not.

    Raises Refused (no fitting Python, no lock), OutsideFailed (no room, pip failed, network lost). What was installed
    before a failure stays, and the next call goes on from there.
    """
    from filelock import FileLock, Timeout

    if stack.lock is None:
        raise Refused(
            "environment.no-lock",
            f"The stack {stack.name} has no lock yet, so its training environment cannot be built.",
            "Only locked environments are built, so that a result can be repeated.",
            "Follow docs/adding.md to lock it, or use another stack.",
        )
    base = base_python(machine, stack)
    lock = load_lock(stack.lock, base.version)
    folder = folder_of(paths, lock, base)
    make(paths.environments)
    guard = FileLock(folder.with_suffix(".lock"))
    try:
        guard.acquire(timeout=0)
    except Timeout:
        emit(Event("note", STAGE, "Another gpu-setup is building the training environment; waiting for it."))
        guard.acquire()
    try:
        document = read_document(folder)
        lacking = missing(folder, lock, stack.torch)
        if document and not lacking and machine.run((str(document.python), "-c", ""), timeout=20).ok:
            emit(Event("end", STAGE, f"Training environment is there and intact: {folder}"))
            return document
        return _build(stack, base, lock, folder, lacking, machine, emit)
    finally:
        guard.release()


def _build(
    stack: Stack, base: Base, lock: Lock, folder: Path, lacking: set[str], machine: Machine, emit: Emit
) -> Environment:
    begin = time.monotonic()
    known = len(lock.packages) + 1 - len(lacking)
    verb = "Repairing" if (folder / DOCUMENT).exists() else "Going on with" if known else "Building"
    emit(Event("start", STAGE, f"{verb} the training environment ({stack.name}, {len(lacking)} packages): {folder}"))
    _check_room(machine, folder)
    (folder / DOCUMENT).unlink(missing_ok=True)
    python = folder / "bin" / "python"
    if not machine.run((str(python), "-m", "pip", "--version"), timeout=60).ok:
        clear = ("--clear",) if folder.exists() else ()
        _checked(machine.run((base.path, "-I", "-m", "venv", *clear, str(folder)), timeout=300), "making the venv")
        lacking = {*lock.packages, "torch"}
    torch_from = "kept"
    with _counting(folder, lacking, emit):
        if "torch" in lacking:
            torch_from = _install_torch(stack, python, machine, emit)
        rest = lacking - {"torch"}
        if rest:
            wanted = folder / "wanted.txt"
            wanted.write_text(entries(lock, rest), encoding="utf-8")
            _pip(
                machine, python, emit,
                "install", "--no-deps", "--require-hashes", "--force-reinstall", "-r", str(wanted),
            )  # fmt: skip
            wanted.unlink()
    still = missing(folder, lock, stack.torch)
    if still:
        raise OutsideFailed(
            "environment.incomplete",
            f"pip ended well, but {', '.join(sorted(still)[:5])} are not in place.",
            "Something else writes to the environment, or the disk fails.",
            f"Remove {folder} and run the same command again.",
        )
    found, _ = installed(folder)
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
    partial = folder / (DOCUMENT + ".partial")
    partial.write_bytes(msgspec.json.encode(document))
    os.replace(partial, folder / DOCUMENT)
    emit(Event("end", STAGE, f"Training environment built in {document.seconds:.0f} s: {folder}"))
    return document


def _check_room(machine: Machine, folder: Path) -> None:
    space = machine.space(str(folder))
    if space is not None and space.free < ROOM_NEEDED and not folder.exists():
        raise OutsideFailed(
            "environment.no-room",
            f"{space.free / 1e9:.1f} GB are free at {folder.parent}, the training environment needs {ROOM_NEEDED / 1e9:.0f}.",
            "PyTorch, Triton and Axolotl are large.",
            "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk.",
        )


def _install_torch(stack: Stack, python: Path, machine: Machine, emit: Emit) -> str:
    """Install torch alone and say where it came from: `local`, `index` or `configured`."""
    exact = ("install", "--no-deps", "--force-reinstall", f"torch=={stack.torch}")
    if machine.run((str(python), "-m", "pip", *exact, "--no-index", "--quiet"), timeout=900, env=_settings()).ok:
        emit(Event("note", STAGE, f"torch {stack.torch} from a local copy (unverified: no hash was given for it)."))
        return "local"
    if _reachable(machine, python, stack):
        _pip(machine, python, emit, *exact, "--index-url", stack.torch_index)
        emit(
            Event(
                "note", STAGE, f"torch {stack.torch} from {stack.torch_index} (unverified: no hash was given for it)."
            )
        )
        return "index"
    emit(
        Event(
            "warning",
            STAGE,
            f"{stack.torch_index} does not answer; torch {stack.torch} comes from the configured package index "
            "(unverified, and on most machines a CUDA build of several GB).",
        )
    )
    _pip(machine, python, emit, "install", f"torch=={stack.torch}")
    return "configured"


def _reachable(machine: Machine, python: Path, stack: Stack) -> bool:
    """Whether the stack's index lists torch: asked once, without retries, so that a dead index costs seconds."""
    listing = (str(python), "-m", "pip", "index", "versions", "torch", "--retries", "0", "--timeout", "10",
               "--index-url", stack.torch_index)  # fmt: skip
    return machine.run(listing, timeout=40, env=_settings()).ok


def _settings() -> Mapping[str, str]:
    return {"PIP_USER": "0", "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def _pip(machine: Machine, python: Path, emit: Emit, *arguments: str) -> None:
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line.startswith(("Collecting ", "Downloading ", "  Downloading ", "Installing collected")):
            emit(Event("progress", STAGE, line.strip().split(" (from")[0][:100]))

    outcome = machine.stream((str(python), "-m", "pip", *arguments, "--progress-bar", "off"), on_line, env=_settings())
    _checked(outcome._replace(stdout="\n".join(lines[-60:])), "installing packages")


def _checked(outcome: Outcome, doing: str) -> None:
    if outcome.ok:
        return
    text = outcome.stdout + "\n" + outcome.stderr
    errors = [line.strip() for line in text.splitlines() if line.startswith("ERROR:") or "Error" in line]
    said = errors[-1][:300] if errors else text.strip()[-300:]
    for needle, code, why, following in _CAUSES:
        if needle in text:
            raise OutsideFailed(
                f"environment.{code}", f"The training environment stopped at {doing}: {why}", said, following
            )
    raise OutsideFailed(
        "environment.failed",
        f"The training environment stopped at {doing} (exit {outcome.rc}).",
        said,
        "What was installed stays; run the same command again to go on.",
    )


# words of pip 23 to 26, each seen in a failed run
_CAUSES = (
    ("No space left on device", "no-room", "the disk is full.", "Free some space and run the same command again."),
    (
        "do not match the hashes",
        "hash",
        "a downloaded package is not the one that was locked.",
        "Your package index serves another file than the public one; use the public index, or report this.",
    ),
    ("NewConnectionError", "network", "the package index cannot be reached.", "Check the network; run the same command again to go on."),
    ("ReadTimeoutError", "network", "the package index stopped answering.", "Check the network; run the same command again to go on."),
    ("ConnectionResetError", "network", "the connection was cut.", "Check the network; run the same command again to go on."),
    ("IncompleteRead", "network", "a download was cut.", "Check the network; run the same command again to go on."),
    ("ConnectTimeoutError", "network", "the package index does not answer.", "Check the network; run the same command again to go on."),
    ("Temporary failure in name resolution", "network", "no name can be looked up.", "Check the network; run the same command again to go on."),
    ("ensurepip", "venv", "this Python cannot make environments.", "Install the venv package, for example: sudo apt install python3-venv"),
)  # fmt: skip


@contextmanager
def _counting(folder: Path, lacking: set[str], emit: Emit) -> Iterator[None]:
    """Report how many of the wanted packages are in place, twice a second, with an estimate from the pace so far."""
    done = threading.Event()
    begin = time.monotonic()

    def count() -> None:
        last = -1
        while not done.wait(0.5):
            names = {
                normalised(info.name.removesuffix(".dist-info").rpartition("-")[0])
                for info in folder.glob("lib/python3*/site-packages/*.dist-info")
            }
            here = len(lacking & names)
            if here != last:
                last = here
                pace = (time.monotonic() - begin) / here if here else None
                left = pace * (len(lacking) - here) if pace else None
                emit(Event("progress", STAGE, "packages in place", here, len(lacking), "packages", left))

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
