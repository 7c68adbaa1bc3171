"""What each run tried, one line a step: for rollback and resume. Whether a step is done, the facts show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from checks.facts.host import Docker
from machine.errors import OutsideFailed, Problem, Refused
from provision.model import NOT_DECODABLE, AnyAction, Plan, PlanStruct, sha256
from provision.system.system_files import flush_folder, write

RunKind = Literal["apply", "update", "resume", "rollback"]
# already: nothing was to do; left: the file was changed by someone else and is kept
StepOutcome = Literal["waiting", "running", "done", "already", "left", "manual", "failed"]
# restart: a reboot comes next; person: a person has something to do
Standing = Literal["running", "done", "restart", "person", "failed"]
# cut-off: the process ended before its run did; restarted: the machine was rebooted since, so resume can continue
# unknown: something was applied, and the state cannot be read
MachineStanding = Literal["none", "running", "done", "restart", "person", "failed", "cut-off", "restarted", "unknown"]
Phase = Literal["begin", "done", "failed", "left", "end"]


class StoredProblem(PlanStruct, frozen=True, kw_only=True):
    """A problem as it is stored: the three sentences and the code of machine.errors.Problem."""

    code: str
    what: str
    why: str = ""
    next: str = ""
    exit_code: int = 4


class StepResult(PlanStruct, frozen=True, kw_only=True):
    """What became of one step in this run."""

    id: str
    title: str
    outcome: StepOutcome
    note: str = ""


class ApplyRun(PlanStruct, frozen=True, kw_only=True):
    """One run of apply, update, resume or rollback."""

    run: str
    kind: RunKind
    standing: Standing
    plan_digest: str
    began: str
    ended: str | None = None
    boot_id: str | None = None
    steps: tuple[StepResult, ...] = ()
    notes: tuple[str, ...] = ()
    problem: StoredProblem | None = None
    next: str = ""


class ApplyStatus(PlanStruct, frozen=True, kw_only=True):
    """The last run, its state now, and whether a resume is armed for the next boot."""

    standing: MachineStanding
    run: ApplyRun | None
    armed: bool
    next: str


class ApplyRequest(PlanStruct, frozen=True, kw_only=True):
    """The plan that a person approved. `person` is the user who called sudo; `environ` has proxies and certificates.

    `docker`: the engine as that person's session sees it, which the plan depends on; root may see another one.
    `reboot`: reboot without asking; `ssh`: the person is connected over the network; `busy`: also while programs use
    the GPU.
    """

    kind: RunKind
    plan: Plan
    person: str | None = None
    docker: Docker | None = None
    reboot: bool = False
    ssh: bool = False
    busy: bool = False
    environ: dict[str, str] = msgspec.field(default_factory=dict)


class JournalEntry(PlanStruct, frozen=True, kw_only=True):
    """One line. Phase `begin` has the state before the step in `facts`; `end` closes a finished rollback."""

    time: str
    run: str
    kind: RunKind
    phase: Phase
    step: str = ""
    title: str = ""
    digest: str = ""
    action: AnyAction | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def stored_problem(problem: Problem) -> StoredProblem:
    return StoredProblem(
        code=problem.code, what=problem.what, why=problem.why, next=problem.next, exit_code=problem.exit_code
    )


class Journal:
    """The files in /var/lib/gpu-setup. Only root writes them; everyone may read `state.json`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.file = place / "journal.jsonl"

    def open(self) -> None:
        """Create the folder, writable only by root; refuses a folder that another user owns."""
        try:
            self.place.mkdir(parents=True, exist_ok=True, mode=0o755)
            found = self.place.lstat()
            if found.st_uid != os.geteuid() or not self.place.is_dir() or self.place.is_symlink():
                raise Refused(
                    "journal.foreign",
                    f"{self.place} does not belong to root.",
                    "The journal and the approved plan, which root later follows, must not be writable by others.",
                    f"Check it (ls -ld {self.place}) and move it away.",
                )
            self.place.chmod(0o755)
        except OSError as error:
            raise OutsideFailed(
                "journal.unwritable", f"{self.place} cannot be written.", f"The system says: {error.strerror}.", ""
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One run at a time. The kernel releases the lock with its process, so a killed run leaves no stale lock."""
        import fcntl

        handle = os.open(self.place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    "apply.running",
                    "gpu-setup is already running on this machine.",
                    "Two runs at once would change the same files and packages.",
                    "gpu-setup status shows its progress.",
                ) from error
            yield
        finally:
            os.close(handle)

    def write(self, entry: JournalEntry) -> None:
        """Append one line and flush it to the disk before the machine is changed."""
        self._append(self.file, msgspec.json.encode(entry))

    def entries(self) -> tuple[JournalEntry, ...]:
        """Every complete line since the last finished rollback; a line that a power cut left incomplete is skipped."""
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return ()
        found: list[JournalEntry] = []
        for line in content.splitlines():
            try:
                entry = msgspec.json.decode(line, type=JournalEntry)
            except NOT_DECODABLE:
                continue
            if entry.phase == "end" and entry.kind == "rollback":
                found = []
            else:
                found.append(entry)
        return tuple(found)

    def is_interrupted(self, step: str) -> bool:
        """Whether the step was started last time and its end was never recorded."""
        return next((entry.phase == "begin" for entry in reversed(self.entries()) if entry.step == step), False)

    def record_start(self, run: ApplyRun, step: str, title: str, action: AnyAction, facts: dict[str, Any]) -> None:
        self.write(
            JournalEntry(
                time=now(),
                run=run.run,
                kind=run.kind,
                phase="begin",
                step=step,
                title=title,
                digest=sha256(action),
                action=action,
                facts=facts,
            )
        )

    def record_end(self, run: ApplyRun, step: str, phase: Phase, action: AnyAction, facts: dict[str, Any]) -> None:
        self.write(
            JournalEntry(
                time=now(), run=run.run, kind=run.kind, phase=phase, step=step, digest=sha256(action), facts=facts
            )
        )

    def save_run(self, run: ApplyRun) -> None:
        """Write what `gpu-setup status` reads; every user may read it."""
        write(str(self.place / "state.json"), msgspec.json.encode(run), 0o644, os.geteuid(), os.getegid())

    def load_run(self) -> ApplyRun | None:
        try:
            return msgspec.json.decode((self.place / "state.json").read_bytes(), type=ApplyRun)
        except (OSError, *NOT_DECODABLE):
            return None

    def has_traces(self) -> bool:
        """Whether a run left anything, even if its state cannot be read: the journal, or a damaged state."""
        return any(os.path.lexists(place) for place in (self.file, self.place / "state.json"))

    def save_request(self, request: ApplyRequest) -> None:
        """Keep the approved plan for `resume`."""
        write(str(self.place / "request.json"), msgspec.json.encode(request), 0o600, os.geteuid(), os.getegid())

    def delete_request(self) -> None:
        """Remove the approved plan; nothing happens without one."""
        (self.place / "request.json").unlink(missing_ok=True)

    def load_request(self) -> ApplyRequest | None:
        try:
            return msgspec.json.decode((self.place / "request.json").read_bytes(), type=ApplyRequest)
        except FileNotFoundError:
            return None
        except (OSError, *NOT_DECODABLE) as error:
            raise OutsideFailed(
                "journal.damaged",
                f"{self.place / 'request.json'} cannot be read.",
                str(error),
                "gpu-setup apply makes a new plan and continues from what is done.",
            ) from error

    def _append(self, file: Path, line: bytes) -> None:
        new = not file.exists()
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(handle).st_size
            # an incomplete last line is closed first
            incomplete = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (b"\n" if incomplete else b"") + line + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            flush_folder(file.parent)
