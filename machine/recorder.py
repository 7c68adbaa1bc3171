"""Writing a recording: a machine that remembers what was asked of another one, scrubbed (format: recording.py)."""

from __future__ import annotations

import json
import os
import posixpath
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import scrub
from machine.door import ABSENT, SMALL_FILE, Entry, Machine, Outcome, Session, Space, Unreadable
from machine.errors import BadUsage, OutsideFailed
from machine.recording import DOCUMENTS

# what a reader may want to know of the environment; everything else stays on the machine
VARIABLES = frozenset(
    {
        *("PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR", "LANG", "SSH_CONNECTION", "XDG_SESSION_TYPE"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES"),
        *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCM_PATH", "ROCM_HOME", "HIP_PATH"),
        *("HSA_OVERRIDE_GFX_VERSION", "HSA_ENABLE_SDMA", "HSA_XNACK", "PYTORCH_ROCM_ARCH"),
        *(
            "DOCKER_HOST",
            "DOCKER_CONTEXT",
            "XDG_RUNTIME_DIR",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "CC",
            "GPU_SETUP_HOME",
            "XDG_DATA_HOME",
        ),
        *("XDG_CACHE_HOME", "XDG_STATE_HOME", "GPU_SETUP_STUB"),
    }
)
Reduce = Callable[[bytes], bytes]


class RecordingMachine:
    """Passes every question on to `machine` and remembers question and answer; safe to use from several threads."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.name = machine, machine.name
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, tuple[str, ...]] = {}
        self.links: dict[str, str] = {}
        self.stats: dict[str, Entry] = {}
        self.rights: dict[str, dict[str, bool]] = {}
        self.spaces: dict[str, Space] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.outcomes: dict[tuple[str, ...], Outcome] = {}
        self.bindings: dict[str, Outcome] = {}

    def _remember(self, error: Unreadable) -> None:
        if error.reason != ABSENT:
            self.unreadable[error.path] = error

    def read(self, path: str, limit: int = SMALL_FILE) -> bytes:
        try:
            self.files[path] = self.machine.read(path, limit)
        except Unreadable as error:
            self._remember(error)
            raise
        return self.files[path]

    def list(self, path: str) -> tuple[str, ...]:
        try:
            self.folders[path] = self.machine.list(path)
        except Unreadable as error:
            self._remember(error)
            raise
        return self.folders[path]

    def link(self, path: str) -> str:
        # that a path is no link is no gap: what it is instead is found by reading or listing it
        self.links[path] = target = self.machine.link(path)
        return target

    def stat(self, path: str) -> Entry:
        self.stats[path] = entry = self.machine.stat(path)
        return entry

    def access(self, path: str, wanted: int) -> bool | None:
        allowed = self.machine.access(path, wanted)
        if allowed is not None:
            try:
                self.stats[path] = self.machine.stat(path)
            except Unreadable as error:
                self._remember(error)
            rights = self.rights.setdefault(path, {})
            for bit, letter in ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x")):
                if wanted & bit:
                    rights[letter] = bool(self.machine.access(path, bit))
        return allowed

    def space(self, path: str) -> Space | None:
        found = self.machine.space(path)
        if found is not None:
            self.spaces[path] = found
        return found

    def session(self) -> Session:
        return self.machine.session()

    def binding(self, vendor: str, timeout: float = 4.0) -> Outcome:
        self.bindings[vendor] = outcome = self.machine.binding(vendor, timeout)
        return outcome

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        self.outcomes[tuple(argv)] = outcome = self.machine.run(argv, timeout, env)
        return outcome

    def stream(
        self,
        argv: Sequence[str],
        on_line: Callable[[str], None],
        cancel: threading.Event | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        log: str | None = None,
    ) -> Outcome:
        return self.machine.stream(argv, on_line, cancel, env, cwd, log)


def write(
    seen: RecordingMachine,
    folder: Path,
    who: scrub.Who,
    about: Mapping[str, object],
    reduce: Mapping[str, Reduce] | None = None,
) -> None:
    """Write what was seen, scrubbed, into `folder`, which must be absent or empty.

    `about` becomes machine.json (name, tool_version, note …). `reduce` maps a path, or a command's first word, to a
    function that keeps only what the readers use of it. Raises BadUsage, or OutsideFailed when the disk refuses.
    """
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise BadUsage(
            "recording.exists",
            f"{folder} is not empty.",
            "A recording is never written over something else.",
            "Name a folder that does not exist yet.",
        )
    reduce = reduce or {}
    layout = _Layout({_safe(path, who): scrub.text(target, who) for path, target in seen.links.items()})
    files = {
        layout.place(_safe(path, who)): scrub.file(path, reduce.get(path, bytes)(data), who)
        for path, data in seen.files.items()
    }
    try:
        _write_tree(folder / "sysroot", files, layout)
        documents: dict[str, object] = {
            "paths.json": _paths(seen, who, files, layout),
            "commands.json": [_command(outcome, who, reduce) for _, outcome in sorted(seen.outcomes.items())],
            "session.json": _session(seen.session(), who),
            "machine.json": {"taken_at": datetime.now(UTC).isoformat(timespec="seconds"), **about},
            **{DOCUMENTS[v]: found for v, o in seen.bindings.items() if (found := _binding(v, o, who)) is not None},
        }
        for name, document in documents.items():
            text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            (folder / name).write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutsideFailed(
            "recording.unwritable",
            f"The recording could not be written to {folder}.",
            f"The system says: {error.strerror or error}.",
            "Name a folder on a disk with room that you can write to.",
        ) from error


def whom(machine: Machine) -> scrub.Who:
    """Whom a recording of this machine must hide: its people (from uid 1000 on), its name, the session's home."""
    session = machine.session()
    people = [session.user]
    homes = [session.environ.get("HOME", "")]
    for line in _text(machine, "/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and 1000 <= int(fields[2]) < 60000:
            people.append(fields[0])
            homes.append(fields[5])
    return scrub.Who(tuple(people), _text(machine, "/proc/sys/kernel/hostname").strip(), tuple(homes), os.urandom(16))


def _text(machine: Machine, path: str) -> str:
    try:
        return machine.read(path).decode("utf-8", "surrogateescape")
    except Unreadable:
        return ""


def _safe(path: str, who: scrub.Who) -> str:
    return "/" + posixpath.normpath(scrub.text(path, who)).lstrip("/")


class _Layout:
    """Where a path's content lies in sysroot when parts of it are recorded as links."""

    def __init__(self, links: Mapping[str, str]) -> None:
        self.links = dict(links)

    def place(self, path: str, follow: bool = True) -> str:
        """The path with recorded links resolved; one that leads above the root or in a circle counts as a folder."""
        done, rest, steps = "", [part for part in path.split("/") if part][::-1], 0
        while rest:
            part = rest.pop()
            if part == "..":
                if not done:
                    return path
                done = done.rpartition("/")[0]
                continue
            target = self.links.get(f"{done}/{part}")
            if target is None or not (rest or follow):
                done = f"{done}/{part}"
                continue
            steps += 1
            if steps > 40:
                return path
            rest += [step for step in target.split("/") if step not in ("", ".")][::-1]
            done = "" if target.startswith("/") else done
        return done or "/"


def _write_tree(root: Path, files: Mapping[str, bytes], layout: _Layout) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    # links last: no write above ever goes through one
    for path, target_text in layout.links.items():
        place = root / layout.place(path, follow=False)[1:]
        if not os.path.lexists(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target_text)


def _paths(seen: RecordingMachine, who: scrub.Who, files: Iterable[str], layout: _Layout) -> dict[str, Any]:
    written = {*files, *(layout.place(path, follow=False) for path in layout.links)}
    written |= {folder for path in written for folder in _parents(path)}
    names = {}
    for path, found in seen.folders.items():
        place = layout.place(_safe(path, who))
        rest = sorted(
            name for name in (scrub.text(n, who) for n in found) if f"{place.rstrip('/')}/{name}" not in written
        )
        if rest or place not in written:
            names[_safe(path, who)] = rest
    stats = {_safe(path, who): entry._asdict() for path, entry in seen.stats.items()}
    unreadable = {
        _safe(path, who): {"reason": error.reason, "detail": scrub.text(error.detail, who)}
        for path, error in seen.unreadable.items()
    }
    return {
        "names": names,
        "stat": stats,
        "unreadable": unreadable,
        "access": {_safe(path, who): rights for path, rights in seen.rights.items() if rights},
        "space": {_safe(path, who): space._asdict() for path, space in seen.spaces.items()},
    }


def _parents(path: str) -> Iterable[str]:
    while path not in ("/", ""):
        path = posixpath.dirname(path)
        yield path


def _command(outcome: Outcome, who: scrub.Who, reduce: Mapping[str, Reduce]) -> dict[str, Any]:
    shorten = reduce.get(outcome.argv[0], bytes)
    said = shorten(outcome.stdout.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
    return {
        **outcome._asdict(),
        "argv": [scrub.text(word, who) for word in outcome.argv],
        "stdout": scrub.text(said, who),
        "stderr": scrub.text(outcome.stderr, who),
        "seconds": round(outcome.seconds, 3),
    }


def _session(session: Session, who: scrub.Who) -> dict[str, Any]:
    return {
        "uid": session.uid,
        "user": scrub.aliases(who).get(session.user, session.user),
        "gids": list(session.gids),
        "environ": scrub.variables(session.environ, VARIABLES, who),
    }


def _binding(vendor: str, outcome: Outcome, who: scrub.Who) -> dict[str, Any] | None:
    """The document as printed; one that only tells the problem when none was printed; None without the library."""
    if outcome.problem == ABSENT:
        return None
    if outcome.ok:
        try:
            document = json.loads(scrub.text(outcome.stdout, who))
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
    problem = outcome.problem or f"ended with {outcome.rc}"
    return {"vendor": vendor, "problem": problem, "detail": scrub.text(outcome.stderr[-500:], who), "gpus": []}
