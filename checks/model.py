"""What the doctor reports: findings, results, the report. Frozen; None means "not known", never 0, never "passed"."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Status(StrEnum):
    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    UNKNOWN = "unknown"


class FixKind(StrEnum):
    PROVISION = "provision"
    COMMAND = "command"
    FIRMWARE = "firmware"
    HARDWARE = "hardware"
    DOCS = "docs"


class Evidence(msgspec.Struct, frozen=True):
    """Where a fact was read, and its value."""

    source: str
    value: str


class Fix(msgspec.Struct, frozen=True):
    """How to fix it. `argv` is the exact command, without sudo; `verify` is the command that shows that it worked."""

    kind: FixKind
    text: str
    argv: tuple[str, ...] = ()
    needs_sudo: bool = False
    needs_reboot: bool = False
    needs_relogin: bool = False
    verify: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong (or worth knowing), about one subject (`0000:01:00.0 RTX 3090`, `apt`, `kernel 6.17`).

    `caused_by` is the id of the check whose finding explains this one: fix that first.
    """

    check: str
    severity: Severity
    subject: str
    summary: str
    why: str
    evidence: tuple[Evidence, ...]
    fix: Fix | None = None
    caused_by: str | None = None


class Skip(msgspec.Struct, frozen=True):
    """The check was skipped on this machine; the reason is mandatory."""

    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """The signal could not be read; the reason says what would make it readable."""

    reason: str


class Ok(msgspec.Struct, frozen=True):
    """The check passed; the reason says what was found."""

    reason: str


Verdict = Ok | Skip | Unknown | tuple[Finding, ...]
Rule = Callable[[Host, Catalogue], Verdict]


class Need(msgspec.Struct, frozen=True):
    """What a machine must have for a check to apply. `missing` is why this machine does not have it, or None."""

    name: str
    missing: Callable[[Host, Catalogue], str | None]


class Check(msgspec.Struct, frozen=True):
    """One question with a stable id. `about` and `by_hand` feed --explain and docs/reference/checks.md.

    Without one of its `needs` the check is skipped, with the reason of the first that is missing. `causes` are the
    checks whose findings would explain this one's, likeliest first. `permanent`: its findings name what the hardware
    is, which nobody can change; they come after those that somebody can fix.
    """

    id: str
    title: str
    group: str
    run: Rule
    about: str = ""
    by_hand: str = ""
    needs: tuple[Need, ...] = ()
    causes: tuple[str, ...] = ()
    permanent: bool = False


def check(
    id: str,
    title: str,
    *,
    about: str,
    by_hand: str,
    needs: tuple[Need, ...] = (),
    causes: tuple[str, ...] = (),
    permanent: bool = False,
) -> Callable[[Rule], Check]:
    """Turn a rule into the Check with this id; its group is the part before the dot.

    Findings get the id. A fix without a `verify` command of its own is verified by running this check again.
    """
    run_again = ("gpu-setup", "doctor", "--only", id)

    def with_id(finding: Finding) -> Finding:
        fix = finding.fix
        if fix is not None and not fix.verify:
            fix = msgspec.structs.replace(fix, verify=run_again)
        return msgspec.structs.replace(finding, check=id, fix=fix)

    def decorate(rule: Rule) -> Check:
        def run(host: Host, catalogue: Catalogue) -> Verdict:
            verdict = rule(host, catalogue)
            return tuple(map(with_id, verdict)) if isinstance(verdict, tuple) else verdict

        return Check(id, title, id.partition(".")[0], run, about, by_hand, needs, causes, permanent)

    return decorate


class CheckResult(msgspec.Struct, frozen=True):
    id: str
    title: str
    group: str
    status: Status
    reason: str
    findings: tuple[Finding, ...] = ()


class Summary(msgspec.Struct, frozen=True):
    passed: int = msgspec.field(name="pass", default=0)
    warn: int = 0
    fail: int = 0
    skip: int = 0
    unknown: int = 0


class DoctorReport(msgspec.Struct, frozen=True):
    machine: str
    taken_at: str
    results: tuple[CheckResult, ...]
    summary: Summary
