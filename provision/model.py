"""The plan document: steps with typed actions, refusals, and a digest that changes when any of them does."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Literal

import msgspec

from provision.target import DriverSource, PlanTarget

# what decoding JSON from a file or a pipe raises, whatever its bytes are
NOT_DECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class State(StrEnum):
    """`manual` is for a person: at the console, or with their own files; `blocked` waits for what `because` names."""

    TODO = "todo"
    DONE = "done"
    MANUAL = "manual"
    BLOCKED = "blocked"


class PlanStruct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the types in a plan."""


class Action(PlanStruct, frozen=True, kw_only=True, tag_field="kind"):
    """One kind of change to the machine; the subclasses below are all kinds."""

    def removed_packages(self) -> tuple[str, ...]:
        """Packages that the action names for removal."""
        return ()


class WantedPackage(PlanStruct, frozen=True, kw_only=True):
    """A package: `installed` is dpkg's version, `version` the one that apt's simulation chose (None: not asked).

    `at_least`: an older version is not enough (None: any version is).
    """

    name: str
    installed: str | None = None
    version: str | None = None
    at_least: str | None = None


class AptKey(Action, frozen=True, kw_only=True, tag="apt-key"):
    """Download a signing key, trust it only if its fingerprint is among these, write it to `keyring` with mode 0644.

    `bundle`: the file holds the same key twice and must be converted first, or apt refuses it.
    """

    url: str
    keyring: str
    fingerprints: tuple[str, ...]
    bundle: bool = False


class AptRepo(Action, frozen=True, kw_only=True, tag="apt-repo"):
    """One deb822 source file, `Signed-By` one keyring."""

    file: str
    uris: tuple[str, ...]
    suite: str
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    signed_by: str


class AptPreference(Action, frozen=True, kw_only=True, tag="apt-pin"):
    """One preferences file: these packages (apt's own patterns) of this origin get this priority."""

    file: str
    packages: tuple[str, ...]
    pin: str
    priority: int


class AptInstall(Action, frozen=True, kw_only=True, tag="apt-install"):
    """One apt transaction, which also removes `remove`; refused if apt's simulation installs what `forbid` matches.

    `brings` and `removes` are what apt's simulation installs and removes besides the named packages; empty when apt
    was not asked. `files`: package files on this machine, used instead of a repository. `upgrade`: only the named
    versions are enough, not any installed version. `one_source`: an installed package of another source than Ubuntu's
    archive (`ubuntu`) or NVIDIA's repository (`nvidia`) is not enough, and its version may be lower.
    """

    packages: tuple[WantedPackage, ...]
    remove: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    brings: tuple[WantedPackage, ...] = ()
    removes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    upgrade: bool = False
    one_source: Literal["ubuntu", "nvidia"] | None = None

    def removed_packages(self) -> tuple[str, ...]:
        return self.remove


class AptRemove(Action, frozen=True, kw_only=True, tag="apt-remove"):
    """Remove, never purge. `removes`: what apt's simulation removes besides."""

    packages: tuple[str, ...]
    removes: tuple[str, ...] = ()

    def removed_packages(self) -> tuple[str, ...]:
        return self.packages


class AptHold(Action, frozen=True, kw_only=True, tag="apt-hold"):
    """Put packages on hold, so that upgrades keep their version, or release them."""

    packages: tuple[str, ...]
    change: Literal["hold", "unhold"] = "hold"


class AptMark(Action, frozen=True, kw_only=True, tag="apt-mark"):
    """Mark which packages were installed as a dependency (`auto`) and which a person asked for (`manual`)."""

    auto: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()


class DpkgRepair(Action, frozen=True, kw_only=True, tag="dpkg-repair"):
    """Finish an interrupted dpkg run. `leaving`: packages that a later step removes, so they may stay unfinished."""

    leaving: tuple[str, ...] = ()


class WriteFile(Action, frozen=True, kw_only=True, tag="write-file"):
    """Write `content` as the whole file; with `merge`, set these keys in the JSON document and keep the rest."""

    path: str
    content: str
    mode: int = 0o644
    merge: bool = False


class RestoreFile(Action, frozen=True, kw_only=True, tag="restore-file"):
    """Restore the earlier file at `path` if gpu-setup wrote the current one (`ours`, SHA-256 hex); else keep it.

    `before` is the SHA-256 of the backup, None where there was no file; `made` is the topmost folder that was created
    for the file.
    """

    path: str
    ours: str
    before: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    made: str = ""


class KernelModule(Action, frozen=True, kw_only=True, tag="kernel-module"):
    """allow: remove the blacklist line in `file`; build: DKMS builds the module for the kernel that boots next; keep:
    these kernel packages are not removed; choose: the next-boot guard chooses the kernel again.
    """

    name: str
    change: Literal["allow", "build", "keep", "choose"]
    file: str = ""


class UserGroup(Action, frozen=True, kw_only=True, tag="user-group"):
    """add, remove: the user's membership; delete: remove the groups themselves, with an empty `user`."""

    user: str
    groups: tuple[str, ...]
    change: Literal["add", "remove", "delete"] = "add"


class Service(Action, frozen=True, kw_only=True, tag="service"):
    """Change the state of a systemd unit; disable and stop are for the rollback."""

    unit: str
    change: Literal["enable", "reload", "restart", "disable", "stop"]


class MokEnroll(Action, frozen=True, kw_only=True, tag="mok-enroll"):
    """Enrol the key that signs DKMS modules in the firmware (shim); a person confirms it at the console.

    `certificate` is the most likely one; once `module` is built, the certificate whose key signed it is used.
    """

    certificate: str
    module: str = ""


class Reboot(Action, frozen=True, kw_only=True, tag="reboot"):
    pass


AnyAction = (
    AptKey
    | AptRepo
    | AptPreference
    | AptInstall
    | AptRemove
    | AptHold
    | AptMark
    | DpkgRepair
    | WriteFile
    | RestoreFile
    | KernelModule
    | UserGroup
    | Service
    | MokEnroll
    | Reboot
)


# actions that write one whole file, which the rollback restores
WrittenFile = AptKey | AptRepo | AptPreference | WriteFile


class Step(PlanStruct, frozen=True, kw_only=True):
    """One change. `commands` show the equivalent commands for root; they are never executed.

    `diff`: the change of the step's file as a unified diff; empty without a file, or when it was not read.
    """

    id: str
    title: str
    action: AnyAction
    state: State
    because: str
    commands: tuple[tuple[str, ...], ...] = ()
    undo: str = ""
    diff: str = ""


class Refusal(PlanStruct, frozen=True, kw_only=True):
    """Why nothing is planned, and what to do next; `code` is stable."""

    code: str
    what: str
    why: str
    next: str


class Unresolved(PlanStruct, frozen=True, kw_only=True):
    """A finding of the doctor that stops training and that no step cures: `check` is its id, `fix` what to do first."""

    check: str
    summary: str
    fix: str


class PlanPart(PlanStruct, frozen=True, kw_only=True):
    """What one planner contributes: steps in order, and separately the reboot, which is the last step of the plan."""

    steps: tuple[Step, ...] = ()
    restart: Step | None = None
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    source: DriverSource | None = None


class Plan(PlanStruct, frozen=True, kw_only=True):
    """`vendor`: whose cards the plan is for; None without a supported card. `download_bytes` None: see `download_note`.

    `host_digest` covers only the facts that the plan depends on, so a change of temperature does not matter; `facts`
    lists these facts by name, so that `apply` can report what has changed since. `without`: driver branches that have
    no packages or modules for this machine, according to apt. `unresolved`: what stops training and is not in the plan.
    """

    machine: str
    vendor: Literal["nvidia", "amd"] | None
    target: PlanTarget
    steps: tuple[Step, ...]
    reboots: int
    download_bytes: int | None
    download_note: str
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]
    host_digest: str
    digest: str = ""
    without: tuple[int, ...] = ()
    facts: dict[str, str] = msgspec.field(default_factory=dict)
    unresolved: tuple[Unresolved, ...] = ()

    def open_steps(self) -> tuple[Step, ...]:
        """The steps that are not done yet: the answer of `plan --check`."""
        return tuple(step for step in self.steps if step.state is not State.DONE)

    def packages(self) -> tuple[str, ...]:
        """Names of the packages that the open steps would install, in order."""
        return tuple(
            wanted.name
            for step in self.open_steps()
            if isinstance(step.action, AptInstall)
            for wanted in step.action.packages
            if wanted.installed is None
        )


def sha256(value: object) -> str:
    """Hex digest over the canonical JSON (keys sorted) of a struct, dict or tuple."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def seal(plan: Plan) -> Plan:
    """The plan with its digest, which covers all other fields."""
    bare = msgspec.structs.replace(plan, digest="")
    return msgspec.structs.replace(bare, digest=sha256(bare))
