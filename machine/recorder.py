"""Writing a recording: a machine that remembers what was asked of another one, scrubbed (format: recording.py)."""

from __future__ import annotations

import json
import os
import posixpath
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from machine import scrub
from machine.errors import BadUsage, OutsideFailed
from machine.identities import Identities
from machine.local import (
    ABSENT,
    DENIED,
    SMALL_FILE,
    TIMED_OUT,
    TOO_LARGE,
    FileStatus,
    Machine,
    Outcome,
    Session,
    Space,
    Unreadable,
)
from machine.machine_file_writer import RecordingParts, text
from machine.recording import DOCUMENTS
from machine.recording_files import MemoryTree
from machine.whole_file import is_empty, new_folder

# variables that a diagnosis needs; all others are not recorded
VARIABLES = frozenset(
    {
        *("PATH", "HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "TMPDIR", "LANG", "SSH_CONNECTION", "XDG_SESSION_TYPE"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES"),
        *("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCM_PATH", "ROCM_HOME", "HIP_PATH"),
        *(f"HSA_OVERRIDE_GFX_VERSION_{node}" for node in range(10)),
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
        *("XDG_CACHE_HOME", "XDG_STATE_HOME", "GPU_SETUP_STUB", "SUDO_USER"),
        # never the tokens themselves
        *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "BNB_CUDA_VERSION", "BNB_ROCM_VERSION"),
    }
)


class Allowed(Protocol):
    """What may be kept of each source (checks/allowed/sources.py); everything else is replaced or left out."""

    def file(self, place: str, data: bytes, who: Identities) -> bytes: ...
    def path(self, value: str, who: Identities) -> str: ...
    def name(self, folder: str, found: str, who: Identities) -> str | None: ...
    def output(self, argv: Iterable[str], said: str, who: Identities) -> str: ...
    def messages(self, value: str, who: Identities) -> str: ...
    def variable(self, name: str, value: str, who: Identities) -> str: ...
    def document(self, found: Mapping[str, Any], who: Identities) -> dict[str, Any]: ...
    def mount_options(self, found: Iterable[str]) -> tuple[str, ...]: ...
    def file_system(self, kind: str) -> str: ...


# EINVAL of readlink(2), and what a recording says instead
_NO_LINK = ("Invalid argument", "not a symbolic link", "not recorded")
# of one file or output; a log that repeats one complaint is no better for being longer
_LONG = 1 << 20


class RecordingMachine:
    """Forwards every read to `machine` and keeps its result; safe to use from several threads."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.name = machine, machine.name
        self.files: dict[str, bytes] = {}
        self.folders: dict[str, tuple[str, ...]] = {}
        self.links: dict[str, str] = {}
        self.stats: dict[str, FileStatus] = {}
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
        try:
            self.links[path] = target = self.machine.link(path)
        except Unreadable as error:
            # that a path is no link is no gap: what it is instead is found by reading or listing it
            if error.detail not in _NO_LINK or (path.startswith("/sys/") and error.detail == _NO_LINK[0]):
                self._remember(error)
            raise
        return target

    def stat(self, path: str) -> FileStatus:
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
        # recorded as timed out until it returns
        self.bindings[vendor] = Outcome((vendor,), None, "", "", timeout, TIMED_OUT)
        self.bindings[vendor] = outcome = self.machine.binding(vendor, timeout)
        return outcome

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        self.outcomes[tuple(argv)] = Outcome(tuple(argv), None, "", "", timeout, TIMED_OUT)
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


def tree(
    seen: RecordingMachine,
    place: str,
    who: Identities,
    about: Mapping[str, object],
    allowed: Allowed,
    most: int = 0,
) -> MemoryTree:
    """What was seen and is allowed, scrubbed, as the files of a recording.

    `about` becomes machine.json (name, tool_version, note …). A file of more than `most` bytes is left out, as too
    large, and the beginning of an output that long; 0: nothing is.
    """
    found = _Copy(seen, who, allowed).parts(about, most)
    files = {f"sysroot{path}": data for path, data in found.files.items()}
    files |= found.documents
    for name, content in (("paths.json", found.paths), ("commands.json", found.commands)):
        files[name] = _json(content)
    return MemoryTree(place, files, {f"sysroot{path}": target for path, target in found.links.items()}, ("sysroot",))


def machine_file(seen: RecordingMachine, who: Identities, about: Mapping[str, object], allowed: Allowed) -> bytes:
    """The same as one text file (machine_file.py)."""
    return text(_Copy(seen, who, allowed).parts(about, _LONG))


def _json(content: object) -> bytes:
    found = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return found.encode("utf-8", "backslashreplace")


def _without_overlaps(files: dict[str, bytes], links: dict[str, str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Without what is a folder for others: a machine that changes while it is read may show a path as both."""
    above = {folder for path in (*files, *links) for folder in _parents(path)}
    kept = {path: data for path, data in files.items() if path not in above}
    return kept, {path: target for path, target in links.items() if path not in above and path not in kept}


def write(
    seen: RecordingMachine,
    folder: Path,
    who: Identities,
    about: Mapping[str, object],
    allowed: Allowed,
) -> None:
    """Write the recording (see `tree`) into `folder`, which must be absent or empty, whole or not at all.

    Raises BadUsage, or OutsideFailed when the disk refuses.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and is_empty(folder)):
        raise BadUsage(
            "recording.exists",
            f"{folder} is not empty.",
            "A recording is never written over something else.",
            "Name a folder that does not exist yet.",
        )
    found = tree(seen, str(folder), who, about, allowed, _LONG)
    try:
        with new_folder(folder) as made:
            (made / "sysroot").mkdir()
            for path, data in found.files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_bytes(data)
            # links last: no write above ever goes through one
            for path, target in found.links.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).symlink_to(target)
    except OSError as error:
        raise OutsideFailed(
            "recording.unwritable",
            f"The recording could not be written to {folder}.",
            f"The system says: {error.strerror or error}.",
            "Name a folder on a disk with room that you can write to.",
        ) from error


def identities_of(machine: Machine) -> Identities:
    """Whom and what a recording of this machine must hide.

    Its people (from uid 1000 on) with their full names and homes, its name, and the values of variables that are named
    like secrets, wherever they turn up.
    """
    session = machine.session()
    people, full = [session.user], []
    homes = [session.environ.get("HOME", "")]
    for line in _text(machine, "/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) == 7 and re.fullmatch(r"[0-9]{4,5}", fields[2]) and 1000 <= int(fields[2]) < 60000:
            people.append(fields[0])
            homes.append(fields[5])
            full.append(fields[4].partition(",")[0])
    for name in ("SUDO_USER", "LOGNAME", "USER"):
        people.append(session.environ.get(name, ""))
    return Identities(
        tuple(dict.fromkeys(filter(None, people))),
        _text(machine, "/proc/sys/kernel/hostname").strip() or _text(machine, "/etc/hostname").strip(),
        tuple(homes),
        os.urandom(16),
        tuple(full),
        scrub.literals(session.environ, _text(machine, "/etc/machine-id").strip()),
    )


def _text(machine: Machine, path: str) -> str:
    try:
        return machine.read(path).decode("utf-8", "surrogateescape")
    except Unreadable:
        return ""


class _Layout:
    """Where a path's content is in sysroot when parts of it are recorded as links."""

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


class _Copy:
    """What is kept of one machine: allowed first, then scrubbed."""

    def __init__(self, seen: RecordingMachine, who: Identities, allowed: Allowed) -> None:
        self.seen, self.who, self.allowed = seen, who, allowed

    def path(self, path: str) -> str:
        return "/" + posixpath.normpath(self.allowed.path(path, self.who)).lstrip("/")

    def parts(self, about: Mapping[str, object], most: int) -> RecordingParts:
        seen, who = self.seen, self.who
        layout = _Layout({self.path(path): self.allowed.path(target, who) for path, target in dict(seen.links).items()})
        files, unreadable = {}, dict(seen.unreadable)
        for path, data in dict(seen.files).items():
            if scrub.must_stay(path):
                unreadable[path] = Unreadable(path, DENIED, "such a file is never recorded")
                continue
            kept = self.allowed.file(path, data, who)
            if most and len(kept) > most:
                unreadable[path] = Unreadable(path, TOO_LARGE, f"its {len(kept)} bytes were left out")
                continue
            files[layout.place(self.path(path))] = scrub.file(path, kept, who)
        links = {layout.place(path, follow=False): target for path, target in layout.links.items()}
        documents: dict[str, object] = {
            "machine.json": scrub.json({"taken_at": datetime.now(UTC).isoformat(timespec="seconds"), **about}, who),
            "session.json": self._session(seen.session()),
            **{
                DOCUMENTS[vendor]: document
                for vendor, outcome in dict(seen.bindings).items()
                if (document := self._binding(vendor, outcome)) is not None
            },
        }
        return RecordingParts(
            *_without_overlaps(files, links),
            folders=(),
            documents={name: _json(content) for name, content in documents.items()},
            paths=self._paths(files, layout, unreadable),
            commands=[self._command(outcome, most) for _, outcome in sorted(dict(seen.outcomes).items())],
        )

    def _paths(self, files: Iterable[str], layout: _Layout, unreadable: Mapping[str, Unreadable]) -> dict[str, Any]:
        seen, who = self.seen, self.who
        written = {*files, *(layout.place(path, follow=False) for path in layout.links)}
        written |= {folder for path in written for folder in _parents(path)}
        names = {}
        for path, found in dict(seen.folders).items():
            place = layout.place(self.path(path))
            kept = (self.allowed.name(path, name, who) for name in found)
            rest = sorted({name for name in kept if name and f"{place.rstrip('/')}/{name}" not in written})
            if rest or place not in written:
                names[self.path(path)] = rest
        return {
            "names": names,
            "stat": {self.path(path): entry._asdict() for path, entry in dict(seen.stats).items()},
            "unreadable": {
                self.path(path): {"reason": error.reason, "detail": self.allowed.messages(error.detail, who).strip()}
                for path, error in unreadable.items()
            },
            "access": {self.path(path): rights for path, rights in dict(seen.rights).items() if rights},
            "space": {self.path(path): self._space(space) for path, space in dict(seen.spaces).items()},
        }

    def _space(self, space: Space) -> dict[str, Any]:
        options, kind = self.allowed.mount_options(space.options), self.allowed.file_system(space.fstype)
        return space._replace(options=options, fstype=kind)._asdict()

    def _command(self, outcome: Outcome, most: int) -> dict[str, Any]:
        said = self.allowed.output(outcome.argv, outcome.stdout, self.who)
        return {
            **outcome._asdict(),
            "argv": [
                self.allowed.path(one, self.who) if one.startswith("/") else scrub.text(one, self.who)
                for one in outcome.argv
            ],
            "stdout": scrub.text(_newest_lines(said, most), self.who),
            "stderr": self.allowed.messages(outcome.stderr, self.who),
            "seconds": round(outcome.seconds, 3),
        }

    def _session(self, session: Session) -> dict[str, Any]:
        environ = {name: session.environ[name] for name in sorted(VARIABLES) if name in session.environ}
        return {
            "uid": session.uid,
            "user": scrub.aliases(self.who).get(session.user, session.user),
            "gids": list(session.gids),
            "environ": {
                name: scrub.text(self.allowed.variable(name, value, self.who), self.who)
                for name, value in environ.items()
            },
        }

    def _binding(self, vendor: str, outcome: Outcome) -> dict[str, Any] | None:
        """The document as printed; one with only the problem when none was printed; None without the library."""
        if outcome.problem == ABSENT:
            return None
        if outcome.ok:
            try:
                found = json.loads(outcome.stdout)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                kept = scrub.json(self.allowed.document(found, self.who), self.who)
                assert isinstance(kept, dict)
                return kept
        problem = outcome.problem or ("unreadable answer" if outcome.ok else f"exit status {outcome.rc}")
        detail = self.allowed.messages(outcome.stderr[-500:], self.who)
        return {"vendor": vendor, "problem": problem, "detail": detail, "gpus": []}


def _newest_lines(said: str, most: int) -> str:
    """The whole lines at its end that fit: in a log the newest count, and the first line shows that it was read."""
    if not most or len(said) <= most:
        return said
    first = said.partition("\n")[0][:1000]
    return f"{first}\n{said[-most:].partition(chr(10))[2]}"


def _parents(path: str) -> Iterable[str]:
    while path not in ("/", ""):
        path = posixpath.dirname(path)
        yield path
