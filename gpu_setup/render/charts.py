"""Charts of a run as SVG text, to be set into the report page. matplotlib is imported only here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from harness.measure.telemetry import Telemetry
from harness.process.worker_log import StepEvent

Spread = tuple[float, float] | None


def line_chart(
    title: str,
    unit: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    dropped: int,
    across: str = "step",
) -> str:
    """One chart as <svg>…: steps on the x axis, one line a name; the first `dropped` steps are shaded as warm-up.

    `across` says what the x axis counts where it is not steps.
    """
    # the object interface: pyplot would keep state and look for a display
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # fonttype none: text stays text, small and searchable; the salt makes the ids the same each time
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(6.4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for name, (steps, values) in lines.items():
            axes.plot(steps, values, label=name, linewidth=1.4)
        if dropped:
            axes.axvspan(0.5, dropped + 0.5, color="#8886", linewidth=0, label="warm-up, not counted")
        axes.set_title(title, loc="left")
        axes.set_xlabel(across)
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.set_xlim(
            0.5 if across == "step" else 0.0,
            max((max(steps, default=1.0) for steps, _ in lines.values()), default=1.0) + 0.5,
        )
        axes.grid(alpha=0.3)
        if len(lines) > 1 or dropped:
            # above the axes, beside the title: inside it would hide a line
            axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=4)
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Title": title})  # type: ignore[no-untyped-call]
    text = target.getvalue()
    return text[text.index("<svg") :]


def bar_chart(
    title: str, unit: str, names: Sequence[str], values: Sequence[float | None], spreads: Sequence[Spread]
) -> str:
    """One chart as <svg>…: a bar a name, with its interval as a line; a name without a value keeps its empty place."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(6.4, 0.9 + 0.34 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        places = list(range(len(names)))
        axes.barh(places, [_within_axis(value or 0.0) for value in values], height=0.62, color="#54aeff")
        for place, value, spread in zip(places, values, spreads, strict=True):
            if value is None:
                axes.text(0, place, " not known", va="center", color="#57606a")
            elif spread is not None:
                at, low, high = _within_axis(value), _within_axis(spread[0]), _within_axis(spread[1])
                reach = [[max(0.0, at - low)], [max(0.0, high - at)]]
                axes.errorbar(at, place, xerr=reach, color="#1b1f24", capsize=3, lw=1.2)
        axes.set_yticks(places, [_printable(name) for name in names], parse_math=False)
        axes.invert_yaxis()
        axes.set_title(title, loc="left", parse_math=False)
        axes.set_xlabel(unit)
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Title": title})  # type: ignore[no-untyped-call]
    text = target.getvalue()
    return text[text.index("<svg") :]


def _within_axis(value: float) -> float:
    """Within what an axis can show, whatever a strange report says."""
    return min(max(value, 0.0), 1e15)


def _printable(name: str) -> str:
    """What the font surely has: a sign that it lacks would be a warning and an empty box."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in name)[:40]


def run_charts(steps: Sequence[StepEvent], warmup: int) -> dict[str, str]:
    """Loss, step time and tokens/s over the steps of one run, by name."""
    numbers = [float(step.step) for step in steps]
    finite = [(float(step.step), step.loss) for step in steps if isinstance(step.loss, float)]
    rates = {
        name: (numbers, [getattr(step, key) / step.seconds for step in steps])
        for name, key in (("processed", "processed"), ("non-padding", "non_padding"), ("trainable", "trainable"))
    }
    return {
        "loss": line_chart("Training loss", "loss", {"loss": _columns(finite)}, warmup),
        "step": line_chart("Step time", "seconds", {"step": (numbers, [s.seconds for s in steps])}, warmup),
        "tokens": line_chart("Speed", "tokens/s", rates, warmup),
    }


def sensor_charts(telemetry: Telemetry) -> dict[str, str]:
    """Power, clock and heat over the seconds of the run, as far as the card's sensors report them."""
    kinds = (
        ("power", "Power", "watts", ("power", "power_enforced")),
        ("clock", "GPU clock", "MHz", ("clock_sm",)),
        ("heat", "Temperature", "degrees Celsius", ("temperature", "temperature_memory")),
        ("memory", "Memory in use on the card", "GiB", ("memory_used",)),
    )
    samples = telemetry.card[:: -(-len(telemetry.card) // MOST_POINTS)] if telemetry.card else ()
    charts = {}
    for name, title, unit, fields in kinds:
        lines = {}
        for field in fields:
            found = [(each.time, value) for each in samples if (value := getattr(each, field)) is not None]
            if found:
                scale = 2**30 if name == "memory" else 1
                lines[SENSORS[field]] = _columns([(at - samples[0].time, value / scale) for at, value in found])
        if lines:
            charts[name] = line_chart(title, unit, lines, 0, "second")
    return charts


# so many points show every bend at a page's width
MOST_POINTS = 400
SENSORS = {
    "power": "used",
    "power_enforced": "limit",
    "clock_sm": "clock",
    "temperature": "core",
    "temperature_memory": "memory",
    "memory_used": "in use",
}


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in pairs], [other for _, other in pairs]
