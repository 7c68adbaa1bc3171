"""Run the checks over one host. A crash of one is a result, the others still run; causes come before consequences."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Sequence

import msgspec

from checks.catalogue import Catalogue
from checks.facts.host import Host, Unread
from checks.facts.observed import observe, uses
from checks.facts.sources import facts_from
from checks.model import (
    Check,
    CheckResult,
    DoctorReport,
    Finding,
    Ok,
    Severity,
    Skip,
    Status,
    Summary,
    Unknown,
    Verdict,
)
from checks.rules.other_systems import fit
from machine.errors import BAD_ANSWER, FINE, BadUsage

_WORST_FIRST = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.SKIP)
_SLOT = r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b"


def run(
    host: Host, catalogue: Catalogue, checks: Sequence[Check], only: Iterable[str] = (), skip: Iterable[str] = ()
) -> DoctorReport:
    """Results worst first, a cause before what it explains. `only` and `skip` take ids or groups.

    Raises BadUsage on a word that is neither.
    """
    results = [judge(check, host, catalogue) for check in select(checks, only, skip)]
    results = _rank(
        _link_causes(results, {check.id: check.causes for check in checks}),
        {check.id for check in checks if check.permanent},
    )
    return DoctorReport(host.machine, host.taken_at, tuple(results), summary(results))


def select(checks: Sequence[Check], only: Iterable[str] = (), skip: Iterable[str] = ()) -> tuple[Check, ...]:
    """The checks that these ids and groups leave; raises BadUsage on a word that names none."""
    wanted, unwanted = tuple(only), tuple(skip)
    names = {word for check in checks for word in (check.id, check.group)}
    for word in (*wanted, *unwanted):
        if word not in names:
            raise unknown_check(word, names)
    return tuple(
        check
        for check in checks
        if (not wanted or check.id in wanted or check.group in wanted)
        and check.id not in unwanted
        and check.group not in unwanted
    )


def unknown_check(word: str, names: Iterable[str]) -> BadUsage:
    """The error for a word that is no check and no group, with what it may have meant."""
    import difflib

    near = difflib.get_close_matches(word, sorted(names), n=3, cutoff=0.5)
    near += [name for name in sorted(names) if word and word in name and name not in near][: 3 - len(near)]
    return BadUsage(
        "doctor.unknown-check",
        f"There is no check or group called {word!r}.",
        f"Did you mean: {', '.join(near)}?" if near else "",
        "List all checks with: gpu-setup doctor --list",
    )


def judge(check: Check, host: Host, catalogue: Catalogue) -> CheckResult:
    """Run one check where the machine has what it needs; whatever it raises becomes an unknown result.

    A check that would pass or be skipped, but reads a fact whose source is damaged or not readable, is unknown.
    """
    damaged = {fact: gap for gap in host.unread for fact in facts_from(gap.source)}
    used: set[str] = set()
    seen = observe(host, used) if damaged else host
    try:
        missing = next((reason for need in check.needs if (reason := need.missing(seen, catalogue))), None)
        verdict = check.run(seen, catalogue) if missing is None else Skip(missing)
        if isinstance(verdict, tuple):
            verdict = tuple(fit(finding, check, host, catalogue) for finding in verdict)
        found = result(check, verdict)
        gap = next((damaged[fact] for fact in damaged if uses(used, fact)), None)
        return found if gap is None else _without(gap, check, found)
    except Exception as error:
        text = f"This check crashed; that is a bug in gpu-setup ({type(error).__name__}: {error}). Please report it."
        return result(check, Unknown(text))


def _without(gap: Unread, check: Check, found: CheckResult) -> CheckResult:
    """The result of a check that read a fact of this source: what is bad stays bad, the rest is not known."""
    named = found.status is Status.UNKNOWN and gap.source in found.reason
    if named or found.status in (Status.FAIL, Status.WARN):
        return found
    what = found.reason if found.status is Status.UNKNOWN else "Cannot be decided."
    why = f"{gap.source} could not be read ({gap.reason}). Repair it or make it readable, then run the doctor again."
    return result(check, Unknown(f"{what} {why}"))


def result(check: Check, verdict: Verdict) -> CheckResult:
    """The one place where a status comes from: the worst finding, or what the rule returned."""
    if isinstance(verdict, tuple):
        severities = {finding.severity for finding in verdict}
        status = (
            Status.FAIL
            if Severity.ERROR in severities
            else Status.WARN
            if Severity.WARNING in severities
            else Status.PASS
        )
        worst = min(verdict, key=lambda finding: list(Severity).index(finding.severity), default=None)
        return CheckResult(check.id, check.title, check.group, status, worst.summary if worst else "", verdict)
    status = {Ok: Status.PASS, Skip: Status.SKIP, Unknown: Status.UNKNOWN}[type(verdict)]
    return CheckResult(check.id, check.title, check.group, status, verdict.reason)


def summary(results: Iterable[CheckResult]) -> Summary:
    counts = dict.fromkeys(Status, 0)
    for row in results:
        counts[row.status] += 1
    return Summary(
        counts[Status.PASS], counts[Status.WARN], counts[Status.FAIL], counts[Status.SKIP], counts[Status.UNKNOWN]
    )


def exit_code(report: DoctorReport, strict: bool = False) -> int:
    """1 with a failure, and with `strict` also with a warning or something unknown; else 0."""
    counts = report.summary
    bad = counts.fail + (counts.warn + counts.unknown if strict else 0)
    return BAD_ANSWER if bad else FINE


def _link_causes(results: list[CheckResult], causes: dict[str, tuple[str, ...]]) -> list[CheckResult]:
    """Write into each finding the check whose finding explains it."""
    bad = {row.id: row for row in results if row.status in (Status.FAIL, Status.WARN)}
    explained = []
    for row in results:
        reasons = [bad[cause] for cause in causes.get(row.id, ()) if cause in bad]
        if row.id in bad and reasons:
            findings = tuple(_link_cause(finding, reasons) for finding in row.findings)
            row = msgspec.structs.replace(row, findings=findings)
        explained.append(row)
    return explained


def _link_cause(finding: Finding, reasons: list[CheckResult]) -> Finding:
    if finding.severity is Severity.INFO:
        return finding
    for reason in reasons:
        if any(other.severity is not Severity.INFO and _same_card(finding, other) for other in reason.findings):
            return msgspec.structs.replace(finding, caused_by=reason.id)
    return finding


def _same_card(one: Finding, other: Finding) -> bool:
    """False only if the two are about different cards."""
    slots = [match[0] if (match := re.match(_SLOT, finding.subject)) else None for finding in (one, other)]
    return None in slots or slots[0] == slots[1]


def _rank(results: list[CheckResult], permanent: Container[str]) -> list[CheckResult]:
    """Worst first; a cause is listed with the worst result that it explains, and before it.

    Among equals, what a person must do first: apt installs nothing while packages are incomplete, and what the hardware
    is comes last.
    """
    rank = {row.id: _WORST_FIRST.index(row.status) for row in results}
    causes = {row.id: {finding.caused_by for finding in row.findings if finding.caused_by} for row in results}
    chains = {row.id: tuple(_chains(row.id, causes)) for row in results}
    for id, above in chains.items():
        for cause in {cause for chain in above for cause in chain}:
            rank[cause] = min(rank[cause], rank[id])
    depth = {id: max(map(len, above), default=0) for id, above in chains.items()}
    order = {row.id: number for number, row in enumerate(results)}
    blocked = any(row.id == "apt.dpkg" and row.status is Status.FAIL for row in results)
    waits = {row.id: blocked and any(map(_installs, row.findings)) for row in results}
    return sorted(
        results,
        key=lambda row: (
            rank[row.id],
            row.id in permanent and bool(row.findings),
            waits[row.id],
            depth[row.id],
            order[row.id],
        ),
    )


def _installs(finding: Finding) -> bool:
    return finding.fix is not None and finding.fix.argv[:2] == ("apt-get", "install")


def _chains(id: str, causes: dict[str, set[str]], below: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Each path from a check up to a root cause, without the check itself; a cycle ends where it closes."""
    for cause in causes.get(id, set()):
        if cause != id and cause not in below:
            yield (*below, cause)
            yield from _chains(cause, causes, (*below, cause))
