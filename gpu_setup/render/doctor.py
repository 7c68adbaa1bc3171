"""The doctor's report as text: worst first, 80 columns, short where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Check, CheckResult, DoctorReport, Finding, Fix, Severity, Status
from checks.registry import ALL
from checks.rules import kernel_log
from gpu_setup.render.layout import label_text, wrap_text
from gpu_setup.render.machine import machine_line
from gpu_setup.render.next_step import command_text, next_lines
from gpu_setup.terminal import style
from machine.local import TIMED_OUT

if TYPE_CHECKING:
    from provision.model import Plan

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
# of several cards' evidence
MOST_EVIDENCE = 8
# groups of checks whose notes explain no trouble with a card
NEVER_A_REASON = ("hub",)


def doctor_text(
    report: DoctorReport,
    host: Host,
    catalogue: Catalogue,
    verbose: bool,
    whole: bool = True,
    plan: Callable[[], Plan | None] = lambda: None,
) -> str:
    """The whole report. `verbose` adds what passed, what was skipped and why a result is unknown.

    `whole`: no check was left out. `plan` makes the machine's plan, where the last lines depend on it.
    """
    by_status = {status: [r for r in report.results if r.status is status] for status in WORST_FIRST}
    as_root = host.person.uid == 0
    groups = group_findings(report)
    lines = [*wrap_text(machine_line(host, catalogue), "  ", first=""), ""]
    for finding, consequences in groups:
        lines += _finding(finding, as_root, verbose)
        if verbose:
            for consequence in consequences:
                lines += ["", *_finding(consequence, as_root, verbose)]
        else:
            lines += _short(consequences, "  so     ")
        lines.append("")
    lines += _details(by_status, as_root) if verbose else _notes(report)
    lines += _counts(report, by_status, verbose)
    if by_status[Status.UNKNOWN]:
        lines += _unread_log(host)
    lines += _silent(host)
    last = "gpu-setup up" if whole else "gpu-setup doctor (all checks)"
    # what nobody can change is no next step; where it is all that failed, its text says what is left to do
    permanent = {check.id for check in ALL if check.permanent}
    roots = [finding for finding, _ in groups if finding.check not in permanent]
    if report.summary.fail and not roots:
        roots = [finding for finding, _ in groups]
    return "\n".join([*lines, "", *next_lines(roots, plan, bool(report.summary.fail), last, as_root)]) + "\n"


def group_findings(report: DoctorReport) -> list[tuple[Finding, list[Finding]]]:
    """What is wrong, in the report's order: each root cause with all that it explains, also by way of others.

    Findings that differ only in the card and what was seen there are one, with all their subjects and evidence.
    """
    findings = merge_alike(
        finding for row in report.results for finding in row.findings if finding.severity is not Severity.INFO
    )
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


def merge_alike(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, where several say and advise the same of several subjects."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        alike.setdefault((one.check, one.severity, one.summary, one.why, one.fix, one.caused_by), []).append(one)
    return [
        replace(
            same[0],
            subject=", ".join(dict.fromkeys(one.subject for one in same)),
            evidence=tuple(dict.fromkeys(seen for one in same for seen in one.evidence)),
        )
        for same in alike.values()
    ]


def summary_text(report: DoctorReport, host: Host, catalogue: Catalogue) -> str:
    """The machine, one line for each thing that is wrong, the counts: for a command that continues by itself."""
    by_status = {status: [r for r in report.results if r.status is status] for status in WORST_FIRST}
    lines = wrap_text(machine_line(host, catalogue), "  ", first="")
    lines += _short(one for finding, consequences in group_findings(report) for one in (finding, *consequences))
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
    """One check: its title, what it reads, how to check by hand, which other checks' findings would explain its own."""
    lines = [f"{style(check.id, bold=True)}: {check.title}", ""]
    lines += wrap_text(check.about, "")
    if check.by_hand:
        lines += ["", *wrap_text(f"By hand: {check.by_hand}", "")]
    if check.causes:
        lines += ["", *wrap_text(f"Possible causes: {', '.join(check.causes)}.", "")]
    return "\n".join(lines) + "\n"


def _finding(finding: Finding, as_root: bool, verbose: bool) -> list[str]:
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
    shown = finding.evidence if verbose else finding.evidence[:MOST_EVIDENCE]
    for number, evidence in enumerate(shown):
        lines += label_text("" if number else "seen", f"{evidence.source}: {evidence.value}")
    if len(shown) < len(finding.evidence):
        lines += label_text("", f"… and {len(finding.evidence) - len(shown)} more (-v shows all)")
    if finding.caused_by:
        lines += label_text("cause", f"{finding.caused_by}: fix that first.")
    if finding.fix is not None:
        lines += _fix(finding.fix, as_root)
    return lines


def _fix(fix: Fix, as_root: bool) -> list[str]:
    # a command that reboots, and a text that says when, need no second word about it
    reboots = fix.needs_reboot and "reboot" not in " ".join((fix.text.lower(), *fix.argv))
    after = [text for needed, text in ((reboots, "reboot"), (fix.needs_relogin, "log out and in again")) if needed]
    lines = label_text("fix", fix.text)
    if fix.argv:
        # a command is never broken over lines: it is there to be copied
        lines += [f"         $ {command_text(fix.argv, fix.needs_sudo and not as_root)}"]
    if after:
        lines += label_text("", f"Then {' and '.join(after)}.")
    if fix.verify:
        lines += [f"  check  $ {command_text(fix.verify)}"]
    return lines


def _notes(report: DoctorReport) -> list[str]:
    """One line for each thing that is worth knowing: it may be the reason of something that no check sees."""
    return _short(
        finding
        for row in report.results
        for finding in row.findings
        if finding.severity is Severity.INFO and row.group not in NEVER_A_REASON
    )


def _short(findings: Iterable[Finding], before: str = "") -> list[str]:
    """A line for each finding, and one for those that say the same."""
    lines: list[str] = []
    for summary, check, severity in dict.fromkeys((one.summary, one.check, one.severity) for one in findings):
        sign, colour = SEVERITY_SIGNS[severity]
        first = f"{before}{style(f'{sign} ', fg=colour)}"
        lines += wrap_text(f"{summary} ({check})", " " * (len(before) + 2), first=first)
    return lines


def _details(by_status: dict[Status, list[CheckResult]], as_root: bool) -> list[str]:
    """What passed but is worth a note, what is unknown and why, what was skipped, what passed."""
    noted = [result for result in by_status[Status.PASS] if result.findings]
    lines: list[str] = []
    for result in (*by_status[Status.FAIL], *by_status[Status.WARN], *noted):
        for finding in result.findings:
            if finding.severity is Severity.INFO:
                lines += [*_finding(finding, as_root, verbose=True), ""]
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


def _unread_log(host: Host) -> list[str]:
    """Half of what goes wrong with a card is only in the kernel log."""
    if host.kernel.log is not None or any(TIMED_OUT in gap.reason for gap in host.unread if gap.source == "kernel log"):
        return []
    text = f"The kernel log was not read, so errors in it are not known. {kernel_log.how_to_read(host)}"
    return wrap_text(text, "  ", first=_sign(Status.UNKNOWN))


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
