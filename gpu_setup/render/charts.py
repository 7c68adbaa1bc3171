"""Charts of a run as SVG text, to be set into the report page. matplotlib is imported only here."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from harness.worker_log import Step


def line_chart(
    title: str, unit: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], dropped: int
) -> str:
    """One chart as <svg>…: steps on the x axis, one line a name; the first `dropped` steps are shaded as warm-up."""
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
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.set_xlim(0.5, max((max(steps, default=1.0) for steps, _ in lines.values()), default=1.0) + 0.5)
        axes.grid(alpha=0.3)
        if len(lines) > 1 or dropped:
            # above the axes, beside the title: inside it would hide a line
            axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=4)
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None, "Title": title})  # type: ignore[no-untyped-call]
    text = target.getvalue()
    return text[text.index("<svg") :]


def run_charts(steps: Sequence[Step], warmup: int) -> dict[str, str]:
    """Loss, step time and tokens a second over the steps of one run, by name."""
    numbers = [float(step.step) for step in steps]
    finite = [(float(step.step), step.loss) for step in steps if isinstance(step.loss, float)]
    rates = {
        name: (numbers, [getattr(step, key) / step.seconds for step in steps])
        for name, key in (("processed", "processed"), ("non-padding", "non_padding"), ("trainable", "trainable"))
    }
    return {
        "loss": line_chart("Training loss", "nats a token", {"loss": _columns(finite)}, warmup),
        "step": line_chart("Time of a step", "seconds", {"step": (numbers, [s.seconds for s in steps])}, warmup),
        "tokens": line_chart("Speed", "tokens a second", rates, warmup),
    }


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [one for one, _ in pairs], [other for _, other in pairs]
