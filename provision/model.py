"""The plan as a document: steps made of typed actions, refusals, and a digest that changes when any of it does."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from provision.target import DriverSource, Target


class State(StrEnum):
    """`manual` needs a person, at the console or with their own data; `blocked` waits for what `because` names."""

    TODO = "todo"
    DONE = "done"
    MANUAL = "manual"
    BLOCKED = "blocked"


class PlanStruct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the plan's parts."""


class Action(PlanStruct, frozen=True, kw_only=True, tag_field="kind"):
    """One kind of change to the machine; the subclasses below are all there are."""


class WantedPackage(PlanStruct, frozen=True, kw_only=True):
    """A package: `installed` is dpkg's version of it, `version` what apt's simulation chose (None: not asked).

    `at_least`: an older version does not do (None: any does).
    """

    name: str
    installed: str | None = None
    version: str | None = None
    at_least: str | None = None


class AptKey(Action, frozen=True, kw_only=True, tag="apt-key"):
    """Fetch a signing key, trust it only if its fingerprint is among these, write it 0644 to `keyring`.

    `bundle`: the file holds the same key twice and goes through gpg first, or apt refuses it.
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


class AptPin(Action, frozen=True, kw_only=True, tag="apt-pin"):
    """One preferences file: these packages (apt's own patterns) of this origin get this priority."""

    file: str
    packages: tuple[str, ...]
    pin: str
    priority: int


class AptInstall(Action, frozen=True, kw_only=True, tag="apt-install"):
    """One apt transaction, in which `remove` goes; not begun if apt's simulation installs what `forbid` matches.

    `brings` and `removes` are what apt's simulation adds to and takes from the machine beyond the named packages,
    empty when it was not asked. `files`: archives on this machine that hold the packages, in place of a repository.
    `upgrade`: only the versions that are named will do, not any that is there.
    """

    packages: tuple[WantedPackage, ...]
    remove: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    brings: tuple[WantedPackage, ...] = ()
    removes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    upgrade: bool = False


class AptRemove(Action, frozen=True, kw_only=True, tag="apt-remove"):
    """Remove, never purge. `removes`: what apt's simulation takes away besides."""

    packages: tuple[str, ...]
    removes: tuple[str, ...] = ()


class AptHold(Action, frozen=True, kw_only=True, tag="apt-hold"):
    """`change`: hold, unhold."""

    packages: tuple[str, ...]
    change: str = "hold"


class AptMark(Action, frozen=True, kw_only=True, tag="apt-mark"):
    """Say which packages came as a dependency (`auto`) and which a person asked for (`manual`)."""

    auto: tuple[str, ...] = ()
    manual: tuple[str, ...] = ()


class DpkgRepair(Action, frozen=True, kw_only=True, tag="dpkg-repair"):
    """Finish what dpkg was cut off in. `leaving`: packages that a later step removes, so they may stay unfinished."""

    leaving: tuple[str, ...] = ()


class WriteFile(Action, frozen=True, kw_only=True, tag="write-file"):
    """Write `content` whole, or, with `merge`, set these keys in the JSON document that is there and keep the rest."""

    path: str
    content: str
    mode: int = 0o644
    merge: bool = False


class RestoreFile(Action, frozen=True, kw_only=True, tag="restore-file"):
    """Put back what was at `path` before, if it still is as we wrote it (`ours`, SHA-256 hex), else leave it.

    `before` is the SHA-256 of the kept copy, None where there was no file; `made` the topmost folder that
    was made for it.
    """

    path: str
    ours: str
    before: str | None = None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    made: str = ""


class KernelModule(Action, frozen=True, kw_only=True, tag="kernel-module"):
    """`change`: allow takes the line off the blacklist in `file`; build has DKMS make the module for the kernel
    that starts next; keep names kernel packages that stay; choose lets the next-boot guard decide anew.
    """

    name: str
    change: str
    file: str = ""


class UserGroup(Action, frozen=True, kw_only=True, tag="user-group"):
    """`change`: add, remove; delete takes the groups themselves away, and `user` is empty."""

    user: str
    groups: tuple[str, ...]
    change: str = "add"


class Service(Action, frozen=True, kw_only=True, tag="service"):
    """`change`: enable, reload, restart; disable and stop on the way back."""

    unit: str
    change: str


class MokEnroll(Action, frozen=True, kw_only=True, tag="mok-enroll"):
    """Ask the firmware's shim to trust the key that signs DKMS modules; the last part happens at the console.

    `certificate` is the likeliest one; the one whose key signed `module` counts, once it is built.
    """

    certificate: str
    module: str = ""


class Reboot(Action, frozen=True, kw_only=True, tag="reboot"):
    pass


AnyAction = (
    AptKey
    | AptRepo
    | AptPin
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


class Step(PlanStruct, frozen=True, kw_only=True):
    """One change. `commands` show what it comes to, as root and without sudo; nothing runs from them.

    `diff`: what changes in the step's file, as a unified diff; empty without one, or when it was not looked at.
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
    """Why nothing is planned, and the way out; `code` is stable."""

    code: str
    what: str
    why: str
    next: str


class PlanPart(PlanStruct, frozen=True, kw_only=True):
    """What one planner contributes: steps in order, and apart from them the restart, which goes last in the plan."""

    steps: tuple[Step, ...] = ()
    restart: Step | None = None
    notes: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    source: DriverSource | None = None


class Plan(PlanStruct, frozen=True, kw_only=True):
    """`vendor` is the one planned for, None without a supported card. `download_bytes` None: see `download_note`.

    `host_digest` covers only the facts that the plan depends on, so that a warmer card is the same machine; `facts`
    are these by name, so that `apply` can say what has changed since. `without`: driver branches that apt was asked
    about and that have no packages or modules for this machine.
    """

    machine: str
    vendor: str | None
    target: Target
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

    def open_steps(self) -> tuple[Step, ...]:
        """What is not done yet: the answer of `plan --check`."""
        return tuple(step for step in self.steps if step.state is not State.DONE)

    def packages(self) -> tuple[str, ...]:
        """Names that the open steps would add, in order."""
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
    """The plan with its digest, which covers everything else in it."""
    bare = msgspec.structs.replace(plan, digest="")
    return msgspec.structs.replace(bare, digest=sha256(bare))
