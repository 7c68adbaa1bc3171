"""A comparison as a person reads it in a terminal: speeds, ratios, what differs, what is published. 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gpu_setup.render.layout import COLUMNS, wrap_text
from gpu_setup.render.report import figure, flops, in_gib
from gpu_setup.terminal import style
from harness.measure.measurement import Measurement
from harness.report.baseline import BaselineComparison
from harness.report.compare import ComparedRun, Comparison, Ratio, format_value, what_to_compare
from harness.report.comparison_key import describe_work
from harness.report.published_speeds import OtherWork, PublishedMatch, RatedSpeed

RATIO_COLOURS = {"faster": "green", "slower": "red", "equal": None, "unknown": "yellow"}
MARK_COLOURS = {"impossible": "red", "implausible": "yellow", "plausible": "green", "unknown": None}
BASELINE_COLOURS = {"regression": "red", "better": "green", "same": "green", "inconclusive": "yellow"}
# runs whose figures are beside each other in one table
BESIDE = 4
OTHERS = 3


def comparison_text(comparison: Comparison) -> str:
    """Everything but the raw values; for reports of different work the keys that differ."""
    if not comparison.comparable:
        return _not_comparable(comparison)
    runs = comparison.runs
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs of the same work"
    lines = [style(count, bold=True), *wrap_text(work_words(comparison), "  "), ""]
    lines.append(_speed_row("", "", "tokens/s", "95 % interval", "to A" if len(runs) > 1 else "", ""))
    lines += [_speed_line(run) for run in runs]
    rated = [line for run in runs if run.ratio for line in _ratio_lines(run, run.ratio)]
    lines += ["", *rated] if rated else []
    for first in range(0, len(runs), BESIDE):
        lines += ["", *_figures(runs[first : first + BESIDE])]
    if comparison.changed:
        lines += ["", "Conditions that differ"]
        for each in comparison.changed:
            values = "; ".join(
                f"{run.letter} {format_value(value)}" for run, value in zip(runs, each.values, strict=True)
            )
            lines += wrap_text(values, " " * 28, first=f"  {each.key:<26}")
    if comparison.same:
        same = ", ".join(f"{name} {format_value(value)}" for name, value in comparison.same.items())
        label = "same in all runs" if len(runs) > 1 else "conditions"
        lines += ["", label.capitalize(), *wrap_text(same, "  ")]
    published = [line for run in runs if run.beside for line in beside_lines(run.letter, run.beside)]
    if published:
        lines += ["", "Published", *published]
    if comparison.notes:
        lines += ["", *(line for note in comparison.notes for line in wrap_text(note, "  ", first="· "))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def work_words(comparison: Comparison) -> str:
    """The work in one sentence."""
    known = dict(describe_work(comparison.work))

    def part(name: str, words: str) -> str | None:
        return words.format(format_value(known[name])) if known.get(name) is not None else None

    parts = (
        part("model", "{}"),
        part("method", "{}"),
        part("quantisation", "{}") if known.get("quantisation") != "none" else None,
        f"LoRA r {known['LoRA r']} on {known.get('LoRA targets') or 'nothing'}" if known.get("LoRA r") else None,
        part("precision", "{}"),
        part("data", "{}"),
        part("trained on", "trained on {}"),
        part("sequence", "sequence {}"),
        part("tokens a step", "{} tokens per step"),
        part("tokens", "{} tokens in total"),
    )
    return ", ".join(each for each in parts if each is not None)


def ratio_words(ratio: Ratio) -> str:
    """The ratio in a sentence."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f} of A; not known whether they differ: too few steps for an interval."
    spread = f"{ratio.value:.3f} of A, {ratio.low:.3f} to {ratio.high:.3f}"
    if ratio.verdict == "equal":
        if ratio.coarse:
            return f"no difference from A can be shown: the noise is larger than the difference ({spread})"
        return f"equal to A within the noise ({spread})"
    return f"{abs(ratio.value - 1):.1%} {ratio.verdict} than A ({spread})"


def beside_lines(which: str, found: PublishedMatch) -> Iterator[str]:
    """The report beside the published records: the share where one is of the same work, else what is not comparable."""
    yield from wrap_text(found.sentence, "   ", first=f"{which}  ")
    for other in found.others[:OTHERS]:
        words = f"{record_words(other.judged)}. Not comparable: {other_words(other)}."
        yield from wrap_text(words, "     ", first="   · ")
    if len(found.others) > OTHERS:
        yield f"     and {len(found.others) - OTHERS} more: gpu-setup compare --published"


def other_words(other: OtherWork) -> str:
    """`model Llama-2-7b-hf, LoRA r 64; not given: mask`."""
    parts = [", ".join(other.differs)] if other.differs else []
    parts += [f"not given: {', '.join(other.not_given)}"] if other.not_given else []
    return "; ".join(parts)


def record_words(judged: RatedSpeed) -> str:
    """`1,198 tokens/s, 49% MFU: fsdp_qlora on RTX 3090 (source)`."""
    record = judged.record
    rate = "tokens/s not known" if record.tokens_per_second is None else f"{record.tokens_per_second:,.0f} tokens/s"
    sign = "~ " if record.bound == "at-most" else "≥ " if judged.at_least else ""
    mfu = "" if judged.mfu is None else f", {sign}{judged.mfu:.0%} MFU"
    return f"{rate}{mfu}: {record.model.rpartition('/')[2]} {record.method}, {record.stack} ({record.published})"


def records_text(found: Sequence[RatedSpeed]) -> str:
    """The published records, the highest share of the peak first, with what each implies and its source."""
    lines = []
    for judged in found:
        record = judged.record
        mark = style(f"{judged.mark:<12}", fg=MARK_COLOURS[judged.mark], bold=judged.mark == "impossible")
        cards = f"{record.cards} × {record.card}, each" if record.cards > 1 else record.card
        lines += wrap_text(f"{cards}: {record_words(judged)}", " " * 12, first=mark)
        lines += wrap_text(f"{judged.why}. {record.basis}.", " " * 12)
        lines += wrap_text(f"{record.source}{'' if record.checked else ' (second hand)'}", " " * 12)
    return "\n".join(lines) + "\n" if lines else "No figures are published for that card.\n"


def baseline_lines(found: BaselineComparison) -> list[str]:
    """The verdict against a baseline, for below a report."""
    word = style(found.verdict.upper(), fg=BASELINE_COLOURS[found.verdict], bold=True)
    return wrap_text(found.sentence, " " * (len(found.verdict) + 2), first=f"{word}  ")


def percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


# the figures beside the speed: label, field of Figures, how it is written
FIGURES = (
    ("processed tokens/s", "processed", figure),
    ("trainable tokens/s", "trainable", figure),
    ("seconds per step", "step_seconds", figure),
    ("MFU", "mfu", percent),
    ("of the matmul ceiling", "ceiling_share", percent),
    ("matmul ceiling, FLOP/s", "matmul_ceiling_tflops", flops),
    ("joules per token", "joules_per_token", figure),
    ("peak memory", "peak_memory", in_gib),
    ("power, W", "power", figure),
    ("clock, MHz", "clock", figure),
    ("temperature, °C", "temperature", figure),
    ("steps trained", "steps", figure),
    ("first loss", "first_loss", figure),
    ("last loss", "last_loss", figure),
)


def _not_comparable(comparison: Comparison) -> str:
    runs = comparison.runs
    lines = [style("Not comparable: these reports did different work.", fg="yellow", bold=True), ""]
    lines += [f"{run.letter}  {run.machine}: {run.recipe}, {run.started_at}" for run in runs]
    lines.append("")
    for each in comparison.differences:
        values = "; ".join(f"{run.letter} {format_value(value)}" for run, value in zip(runs, each.values, strict=True))
        lines += wrap_text(values, " " * 28, first=f"  {each.key:<26}")
    return "\n".join([*lines, "", *wrap_text(what_to_compare(comparison.differences), "")]) + "\n"


def _speed_line(run: ComparedRun) -> str:
    speed = run.figures.non_padding
    ratio = run.ratio
    between = _between(ratio.low, ratio.high, 3) if ratio else ""
    value = f"{ratio.value:.3f}" if ratio else ""
    return _speed_row(run.letter, run.machine, figure(speed.median), interval(speed), value, between)


def _speed_row(letter: str, machine: str, median: str, spread: str, ratio: str, between: str) -> str:
    return f"{letter:<3}{machine[:24]:<25}{median:>9}{spread:>19}{ratio:>7}{between:>16}"[:COLUMNS].rstrip()


def interval(measurement: Measurement) -> str:
    """`1,110 to 1,126`, or nothing where there is none."""
    if measurement.ci95 is None:
        return ""
    return f"{figure(measurement.ci95[0])} to {figure(measurement.ci95[1])}"


def _between(low: float | None, high: float | None, digits: int) -> str:
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def _ratio_lines(run: ComparedRun, ratio: Ratio) -> list[str]:
    colour = RATIO_COLOURS[ratio.verdict]
    return wrap_text(ratio_words(ratio), "   ", first=f"{run.letter}  ", style=lambda text: style(text, fg=colour))


def _figures(runs: Sequence[ComparedRun]) -> Iterator[str]:
    """The other figures side by side; a figure that none of them has is left out."""
    yield _row("", [run.letter for run in runs])
    for label, field, written in FIGURES:
        values: list[float | None] = [getattr(run.figures, field).median for run in runs]
        if any(value is not None for value in values):
            yield _row(label, [written(value) for value in values])


def _row(label: str, values: Sequence[Any]) -> str:
    return f"  {label:<24}" + "".join(f"{value:>13}" for value in values)
