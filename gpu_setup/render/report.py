"""A run's report for a terminal of 80 columns: verdict, speed, learning, answers."""

from __future__ import annotations

from collections.abc import Callable

from gpu_setup.render.layout import wrap_text
from gpu_setup.terminal import style
from harness.measure.measurement import Measurement
from harness.measure.smoke_criteria import Smoke
from harness.report.run_report import Report
from harness.training.examination import AnswerPair

VERDICT_COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
ANSWERS_SHOWN = 3


def report_text(report: Report, answers: int = ANSWERS_SHOWN) -> str:
    """The whole report; `answers` of the before-and-after pairs are shown."""
    verdict = style(report.verdict.upper(), fg=VERDICT_COLOURS[report.verdict], bold=True)
    name = f"{report.recipe.name}: {report.recipe.title}"
    lines = [
        *wrap_text(name, " " * (len(report.verdict) + 2), first=f"{verdict}  "),
        *wrap_text(machine_words(report), "  "),
        *(line for reason in report.reasons for line in wrap_text(reason, "  ", first="! ")),
        "",
    ]
    lines += [_row("", "median", "95 % interval", "n")]
    speed = report.measurements.tokens_per_second
    for label, measurement in (
        ("processed tokens/s", speed.processed),
        ("non-padding tokens/s", speed.non_padding),
        ("trainable tokens/s", speed.trainable),
        ("seconds per step", report.measurements.step_seconds),
    ):
        lines.append(_measurement_row(label, measurement))
    lines += [*_measured_shares(report), *_memory(report)]
    loss = report.measurements.loss
    lines.append(_row("training loss", f"{figure(loss.first.median)} → {figure(loss.last.median)}", "", ""))
    if len(report.launches) > 1:
        lines += ["", *launch_lines(report)]
    if report.baseline is not None:
        lines += ["", *wrap_text(report.baseline.sentence, "  ", first="= ")]
    if report.smoke is not None:
        lines += ["", *smoke_lines(report.smoke)]
    if report.answers:
        lines += ["", *answer_lines(report.answers, answers)]
    notes = [note for note in report.notes if note not in report.reasons]
    if notes:
        lines += ["", *(line for note in notes for line in wrap_text(note, "  ", first="· "))]
    return "\n".join(lines) + "\n"


def _measured_shares(report: Report) -> list[str]:
    """How much of the device's speed was used, at what energy and heat: only what was measured."""
    found, worker = report.measurements, report.environment.worker
    twice = worker is not None and worker.checkpointing
    rows: list[tuple[str, Measurement, Callable[[float | None], str]]] = [
        ("model FLOP/s", found.model_tflops, flops),
        ("matmul ceiling FLOP/s", found.matmul_ceiling_tflops, flops),
        ("share of that ceiling", found.ceiling_share, percent),
        *([("… with recomputation", found.roof_share, percent)] if twice else []),
        ("share of the peak (MFU)", found.mfu, percent),
        ("joules per token", found.joules_per_token, figure),
    ]
    sensors = found.sensors
    if sensors is not None:
        rows += [
            ("watts", sensors.power, figure),
            ("power limit (W)", sensors.power_limit, figure),
            ("degrees Celsius", sensors.temperature, figure),
            ("clock (MHz)", sensors.clock, figure),
        ]
    rows += [("waited for data", found.data_wait, percent), ("other programs' load", found.other_load, percent)]
    return [_measurement_row(label, value, words) for label, value, words in rows if value.median is not None]


def _memory(report: Report) -> list[str]:
    memory = report.measurements.peak_memory
    rows = [
        ("worker's peak memory", memory.worker_rss, True),
        ("card: allocated", memory.device_allocated, False),
        ("card: reserved", memory.device_reserved, False),
        ("card: peak less before", memory.device_run, False),
    ]
    return [_row(label, in_gib(value.median), "", "") for label, value, always in rows if always or value.median]


def launch_lines(report: Report) -> list[str]:
    """One line a process launch."""
    lines = ["  launch    seed   steps   s/step     processed/s   non-padding/s    loss   °C"]
    for number, launch in enumerate(report.launches, 1):
        heat = "" if launch.temperature is None else f"{launch.temperature:.0f}"
        lines.append(
            f"  {number:<8}{figure(launch.seed):>6}{launch.steps:>8}{figure(launch.step_seconds):>11}"
            f"{figure(launch.processed):>14}{figure(launch.non_padding):>16}{figure(launch.loss):>8}{heat:>5}".rstrip()
        )
    return lines


def machine_words(report: Report) -> str:
    """The machine and the software under the figures, in one sentence."""
    host, environment = report.host, report.environment
    worker = environment.worker
    on_gpu = worker is not None and worker.device_type == "gpu"
    device = worker.device if worker and on_gpu else f"{host.cpu or 'CPU'} ({host.cores or '?'} cores)"
    axolotl = f", Axolotl {worker.axolotl}" if worker and worker.axolotl else ""
    method = f"; {report.method.label}" if report.method else ""
    return f"{device}; {host.os or 'unknown system'}; torch {environment.torch}{axolotl}{method}"


def workload_words(report: Report) -> str | None:
    """What was trained on, in a few words; None for reports that do not say."""
    if report.method is None:
        return None
    workload = report.method.workload
    if workload.document_tokens is None:
        return "the recipe's data, packed" if workload.kind == "packed" else "the recipe's data"
    return f"documents of exactly {workload.document_tokens} tokens, {workload.tokens_per_step} tokens per step"


def smoke_lines(smoke: Smoke) -> list[str]:
    """One line per criterion."""
    signs = {True: style("✓", fg="green"), False: style("✗", fg="red"), None: style("-", dim=True)}
    lines = []
    for criterion in smoke.criteria:
        lines += wrap_text(f"{criterion.question} {criterion.seen}", "  ", first=f"{signs[criterion.passed]} ")
        if criterion.next:
            lines += wrap_text(criterion.next, "        ", first="  next: ")
    if smoke.marked_after is not None:
        marked = f"{smoke.marked_after} of {smoke.questions} answers use the trained style"
        lines += wrap_text(f"{marked} (before: {smoke.marked_before}).", "  ", first="· ")
    return lines


def answer_lines(answers: tuple[AnswerPair, ...], shown: int) -> list[str]:
    """Question, before and after; the rest is counted."""
    lines: list[str] = []
    for answer in answers[:shown]:
        lines += wrap_text(answer.question, "  ", first="? ", style=lambda text: style(text, bold=True))
        lines += wrap_text(answer.before or "(nothing)", "          ", first="  before  ")
        lines += wrap_text(answer.after or "(nothing)", "          ", first="  after   ")
    left = len(answers) - shown
    return lines + ([f"  … and {left} more in the report"] if left > 0 else [])


def figure(value: float | None, digits: int = 3) -> str:
    """`1,234`, `12.3`, `0.0123`; `not known` for None."""
    if value is None:
        return "not known"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def flops(tera: float | None) -> str:
    """TFLOP/s in the unit that needs no leading zeros: `35.2 T`, `27.7 G`."""
    if tera is None:
        return "not known"
    scale, unit = next(((scale, unit) for scale, unit in ((1, "T"), (1e3, "G")) if tera * scale >= 1), (1e6, "M"))
    return f"{figure(tera * scale)} {unit}"


def in_gib(value: float | None) -> str:
    return "not known" if value is None else f"{value / 2**30:.2f} GiB"


def percent(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.3g} %"


def _measurement_row(label: str, measurement: Measurement, words: Callable[[float | None], str] = figure) -> str:
    interval = measurement.ci95
    spread = f"{words(interval[0])} to {words(interval[1])}" if interval else ""
    return _row(label, words(measurement.median), spread, str(measurement.n))


def _row(label: str, median: str, interval: str, count: str) -> str:
    return f"  {label:<24}{median:>18}{interval:>24}{count:>6}".rstrip()
