"""The doctor's report as text: worst first, 80 columns, short where nothing is wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Check, CheckResult, DoctorReport, Finding, Fix, FixKind, Severity, Status
from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.render.machine import machine_line
from gpu_setup.terminal import style
from machine.local import TIMED_OUT

SIGNS = {
    Status.FAIL: ("✗", "red"),
    Status.WARN: ("!", "yellow"),
    Status.UNKNOWN: ("?", "cyan"),
    Status.SKIP: ("-", "bright_black"),
    Status.PASS: ("✓", "green"),
}
WORST_FIRST = tuple(SIGNS)
SEVERITY_SIGNS = {
    Severity.ERROR: SIGNS[Status.FAIL],
    Severity.WARNING: SIGNS[Status.WARN],
    Severity.INFO: ("i", "blue"),
}


def doctor_text(report: DoctorReport, host: Host, catalogue: Catalogue, verbose: bool) -> str:
    """The whole report. `verbose` adds what passed, what was skipped and why a result is unknown."""
    by_status = {status: [r for r in report.results if r.status is status] for status in WORST_FIRST}
    lines = [*wrap_text(machine_line(host, catalogue), "  ", first=""), ""]
    for finding, consequences in group_findings(report):
        lines += _finding(finding)
        for consequence in consequences:
            lines += ["", *_finding(consequence)] if verbose else _consequence(consequence)
        lines.append("")
    if verbose:
        lines += _details(by_status)
    lines += _counts(report, by_status, verbose)
    lines += _silent(host)
    lines += ["", *_next(report)]
    return "\n".join(lines) + "\n"


def group_findings(report: DoctorReport) -> list[tuple[Finding, list[Finding]]]:
    """What is wrong, in the report's order: each root cause with all that it explains, also by way of others."""
    bad = [row for row in report.results if row.status in (Status.FAIL, Status.WARN)]
    findings = [finding for row in bad for finding in row.findings]
    causes = {finding.check: finding.caused_by for finding in reversed(findings)}

    def root(finding: Finding) -> str | None:
        cause, steps = finding.caused_by, 0
        while cause is not None and causes.get(cause) is not None and steps < len(causes):
            cause, steps = causes[cause], steps + 1
        return cause if cause in causes else None

    found = [(finding, root(finding)) for finding in findings]
    groups: list[tuple[Finding, list[Finding]]] = [(finding, []) for finding, cause in found if cause is None]
    for finding, cause in found:
        if cause is not None:
            alike = [group for group in groups if group[0].check == cause]
            same = [group for group in alike if group[0].subject == finding.subject]
            next(iter(same or alike), groups[-1] if groups else (finding, []))[1].append(finding)
    return groups


def summary_text(report: DoctorReport, host: Host, catalogue: Catalogue) -> str:
    """The machine, one line for each thing that is wrong, the counts: for a command that continues by itself."""
    by_status = {status: [r for r in report.results if r.status is status] for status in WORST_FIRST}
    lines = wrap_text(machine_line(host, catalogue), "  ", first="")
    for status in (Status.FAIL, Status.WARN):
        for result in by_status[status]:
            lines += wrap_text(f"{result.reason} ({result.id})", "  ", first=_sign(status))
    return "\n".join([*lines, *_counts(report, by_status, verbose=False)]) + "\n"


def list_text(checks: tuple[Check, ...]) -> str:
    """Every check by group: id and title."""
    width = max(len(check.id) for check in checks)
    lines: list[str] = []
    for group in dict.fromkeys(check.group for check in checks):
        lines += [style(group, bold=True)]
        lines += [f"  {check.id:<{width}}  {check.title}" for check in checks if check.group == group]
    return "\n".join(lines) + "\n"


def explain_text(check: Check) -> str:
    """One check: its title, what it reads, how to check by hand."""
    lines = [f"{style(check.id, bold=True)}: {check.title}", ""]
    lines += wrap_text(check.about, "")
    if check.by_hand:
        lines += ["", *wrap_text(f"By hand: {check.by_hand}", "")]
    return "\n".join(lines) + "\n"


def _finding(finding: Finding) -> list[str]:
    sign, colour = SEVERITY_SIGNS[finding.severity]
    lines = wrap_text(
        finding.summary,
        "  ",
        first=style(f"{sign} ", fg=colour, bold=True),
        style=lambda line: style(line, bold=True),
    )
    lines += wrap_text(f"{finding.check}, {finding.subject}", "  ", style=lambda line: style(line, dim=True))
    if finding.why:
        lines += label_text("why", finding.why)
    for number, evidence in enumerate(finding.evidence):
        lines += label_text("" if number else "seen", f"{evidence.source}: {evidence.value}")
    if finding.caused_by:
        lines += label_text("cause", f"{finding.caused_by}: fix that first.")
    if finding.fix is not None:
        lines += _fix(finding.fix)
    return lines


def _consequence(finding: Finding) -> list[str]:
    """One line under the cause: it goes away with it."""
    sign, colour = SEVERITY_SIGNS[finding.severity]
    first = f"  so     {style(sign, fg=colour)} "
    return wrap_text(f"{finding.summary} ({finding.check})", " " * 11, first=first)


def _fix(fix: Fix) -> list[str]:
    after = [
        text
        for needed, text in (
            (fix.needs_reboot, "reboot"),
            (fix.needs_relogin, "log out and in again"),
        )
        if needed
    ]
    lines = label_text("fix", fix.text)
    if fix.argv:
        # a command is never broken over lines: it is there to be copied
        lines += [f"         $ {command_text(fix.argv, fix.needs_sudo)}"]
    if after:
        lines += label_text("", f"Then {' and '.join(after)}.")
    if fix.verify:
        lines += [f"  check  $ {command_text(fix.verify)}"]
    return lines


def command_text(argv: Iterable[str], sudo: bool = False) -> str:
    return shlex.join([*(["sudo"] if sudo else []), *argv])


def _details(by_status: dict[Status, list[CheckResult]]) -> list[str]:
    """What passed but is worth a note, what is unknown and why, what was skipped, what passed."""
    noted = [result for result in by_status[Status.PASS] if result.findings]
    lines: list[str] = []
    for result in noted:
        for finding in result.findings:
            lines += [*_finding(finding), ""]
    for result in by_status[Status.UNKNOWN]:
        lines += wrap_text(f"{result.id}: {result.reason}", "  ", first=_sign(Status.UNKNOWN))
    # many checks are skipped for one and the same reason
    for reason in dict.fromkeys(result.reason for result in by_status[Status.SKIP]):
        ids = ", ".join(result.id for result in by_status[Status.SKIP] if result.reason == reason)
        lines += wrap_text(f"{reason} Skipped: {ids}", "  ", first=_sign(Status.SKIP))
    for result in by_status[Status.PASS]:
        if result not in noted:
            lines += wrap_text(f"{result.id}: {result.reason or result.title}", "  ", first=_sign(Status.PASS))
    return [*lines, ""] if lines else []


def _counts(report: DoctorReport, by_status: dict[Status, list[CheckResult]], verbose: bool) -> list[str]:
    summary = report.summary
    lines: list[str] = []
    nothing_to_train = next((r for r in by_status[Status.SKIP] if r.id == "gpu.present"), None)
    if nothing_to_train and not verbose:
        lines += wrap_text(nothing_to_train.reason, "  ", first=_sign(Status.SKIP))
    counts = [
        (summary.fail, "failed"),
        (summary.warn, "warning" if summary.warn == 1 else "warnings"),
        (summary.passed, "passed"),
        (summary.skip, "skipped"),
    ]
    listed = ", ".join(f"{number} {word}" for number, word in counts if number)
    lines += wrap_text(f"{len(report.results)} checks: {listed or 'no result'}.", "  ", first=_sign(_worst(report)))
    if by_status[Status.UNKNOWN] and not verbose:
        names = ", ".join(result.id for result in by_status[Status.UNKNOWN])
        lines += wrap_text(f"{summary.unknown} unknown: {names} (-v shows why).", "  ", first=_sign(Status.UNKNOWN))
    return lines


def _silent(host: Host) -> list[str]:
    """What did not answer in time: always shown, because it may be the fault itself."""
    asked = (
        ("NVML", host.nvidia.nvml_problem),
        ("AMD's library", host.amd.amdsmi_problem),
        ("docker", host.docker.problem),
        *((gap.source, gap.reason) for gap in host.unread if gap.source not in ("nvml", "amdsmi", "docker info")),
    )
    names = dict.fromkeys(name for name, problem in asked if problem and TIMED_OUT in problem)
    return wrap_text(f"No answer in time from: {', '.join(names)}.", "  ", first=_sign(Status.UNKNOWN)) if names else []


def _sign(status: Status) -> str:
    sign, colour = SIGNS[status]
    return style(f"{sign} ", fg=colour)


def _worst(report: DoctorReport) -> Status:
    if report.summary.fail:
        return Status.FAIL
    return Status.WARN if report.summary.warn else Status.PASS


def _next(report: DoctorReport) -> list[str]:
    """The one thing to do now. A failure comes first; warnings alone do not stop `up`."""
    findings = [finding for result in report.results for finding in result.findings if finding.fix is not None]
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    warnings = [finding for finding in findings if finding.severity is Severity.WARNING]
    first, indent = style("Next: ", bold=True), " " * 6
    if report.summary.fail:
        if not errors:
            return [f"{first}gpu-setup doctor --explain ID explains a failed check."]
        # what another check's finding explains goes away with its cause
        return _next_fix(next((f for f in errors if f.caused_by is None), errors[0]), first, indent)
    lines = [f"{first}gpu-setup up"]
    if warnings:
        lines += _next_fix(warnings[0], indent, indent, "or first: ")
    return lines


def _next_fix(finding: Finding, first: str, indent: str, before: str = "") -> list[str]:
    fix = finding.fix
    assert fix is not None
    if fix.kind is FixKind.PROVISION:
        return [f"{first}{before}gpu-setup plan (shows what would be installed; changes nothing)"]
    lines = wrap_text(f"{before}{fix.text} ({finding.check})", indent, first=first)
    if fix.argv:
        lines.append(f"{indent}$ {command_text(fix.argv, fix.needs_sudo)}")
    return lines
