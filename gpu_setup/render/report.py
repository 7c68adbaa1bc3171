"""A run's report as a person reads it in a terminal: verdict, speed, learning, answers. 80 columns."""

from __future__ import annotations

import click

from gpu_setup.render.layout import wrapped
from gpu_setup.render.plain import clean
from harness.examine import Answer
from harness.measure import Measurement
from harness.report import Report
from harness.smoke import Smoke

VERDICT_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
ANSWERS_SHOWN = 3


def report_text(report: Report, answers: int = ANSWERS_SHOWN) -> str:
    """The whole report; `answers` of the before-and-after pairs are shown."""
    verdict = click.style(report.verdict.upper(), fg=VERDICT_COLOURS[report.verdict], bold=True)
    name = clean(f"{report.recipe.name}: {report.recipe.title}")
    lines = [
        *wrapped(name, " " * (len(report.verdict) + 2), first=f"{verdict}  "),
        *wrapped(machine_words(report), "  "),
        "",
    ]
    lines += [_row("", "median", "95 % interval", "n")]
    speed = report.measurements.tokens_per_second
    for label, measurement in (
        ("processed tokens/s", speed.processed),
        ("non-padding tokens/s", speed.non_padding),
        ("trainable tokens/s", speed.trainable),
        ("seconds a step", report.measurements.step_seconds),
    ):
        lines.append(_measured(label, measurement))
    memory = report.measurements.peak_memory
    lines.append(_row("worker's peak memory", in_gib(memory.worker_rss.median), "", ""))
    if memory.device_allocated.median is not None:
        lines.append(_row("card's peak memory", in_gib(memory.device_allocated.median), "", ""))
    loss = report.measurements.loss
    lines.append(_row("training loss", f"{figure(loss.first.median)} → {figure(loss.last.median)}", "", ""))
    if report.smoke is not None:
        lines += ["", *smoke_lines(report.smoke)]
    if report.answers:
        lines += ["", *answer_lines(report.answers, answers)]
    if report.notes:
        lines += ["", *(line for note in report.notes for line in wrapped(note, "  ", first="· "))]
    return "\n".join(lines) + "\n"


def machine_words(report: Report) -> str:
    """The machine and the software under the figures, in one sentence."""
    host, environment = report.host, report.environment
    worker = environment.worker
    on_gpu = worker is not None and worker.device_type == "gpu"
    device = worker.device if worker and on_gpu else f"{host.cpu or 'a processor'} ({host.cores or '?'} cores)"
    axolotl = f", Axolotl {worker.axolotl}" if worker and worker.axolotl else ""
    return clean(f"{device}; {host.os or 'an unknown system'}; torch {environment.torch}{axolotl}")


def smoke_lines(smoke: Smoke) -> list[str]:
    """One line a criterion."""
    signs = {True: click.style("✓", fg="green"), False: click.style("✗", fg="red"), None: click.style("-", dim=True)}
    lines = []
    for criterion in smoke.criteria:
        lines += wrapped(f"{criterion.question} {criterion.seen}", "  ", first=f"{signs[criterion.passed]} ")
        if criterion.next:
            lines += wrapped(criterion.next, "        ", first="  next: ")
    if smoke.marked_after is not None:
        marked = f"{smoke.marked_after} of {smoke.questions} answers (before: {smoke.marked_before})"
        lines += wrapped(f"The style's marker stands in {marked}.", "  ", first="· ")
    return lines


def answer_lines(answers: tuple[Answer, ...], shown: int) -> list[str]:
    """Question, before and after; the rest is counted."""
    lines: list[str] = []
    for answer in answers[:shown]:
        lines += wrapped(clean(answer.question), "  ", first="? ", style=lambda text: click.style(text, bold=True))
        lines += wrapped(clean(answer.before) or "(nothing)", "          ", first="  before  ")
        lines += wrapped(clean(answer.after) or "(nothing)", "          ", first="  after   ")
    left = len(answers) - shown
    return lines + ([f"  … and {left} more in the report"] if left > 0 else [])


def figure(value: float | None, digits: int = 3) -> str:
    """`1,234`, `12.3`, `0.0123`; `not known` for None."""
    if value is None:
        return "not known"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def in_gib(value: float | None) -> str:
    return "not known" if value is None else f"{value / 2**30:.2f} GiB"


def _measured(label: str, measurement: Measurement) -> str:
    interval = measurement.ci95
    spread = f"{figure(interval[0])} to {figure(interval[1])}" if interval else ""
    return _row(label, figure(measurement.median), spread, str(measurement.n))


def _row(label: str, median: str, interval: str, count: str) -> str:
    return f"  {label:<24}{median:>18}{interval:>24}{count:>6}".rstrip()
