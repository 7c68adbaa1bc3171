"""A tuning as text: the table of tries, the final comparison, and the tuned recipe."""

from __future__ import annotations

from gpu_setup.render.layout import wrap_text
from gpu_setup.terminal import style
from harness.jobs.tune_run import TuneResult
from harness.jobs.tune_search import TuneTry

WORDS = {"measured": "", "failed": "failed", "no-room": "does not fit", "different": "another result"}


def tune_text(tuned: TuneResult) -> str:
    lines = [*wrap_text(f"{tuned.name}, tuned for {tuned.where}", "  "), ""]
    lines.append("   #  change                            tokens/s    times   memory")
    base = tuned.tries[0].tokens_per_second
    for entry in tuned.tries:
        lines += _row(entry, base, entry.number == tuned.best)
    lines.append("")
    found = tuned.duel
    if found is not None:
        sign = style(f"{found.ratio:.2f} times", fg="green" if found.ratio > 1 else "yellow", bold=True)
        words = (
            f"as fast, measured in turns ({found.lowest:.2f} to {found.highest:.2f} over {len(found.tuned)} pairs; "
            "non-padding tokens/s)"
        )
        lines += wrap_text(words, "  ", first=f"{sign} ")
    if tuned.recipe is not None:
        lines += wrap_text(f"The tuned recipe: {tuned.recipe}", "  ", first="· ")
    for note in tuned.notes:
        lines += wrap_text(note, "  ", first="· ")
    return "\n".join(lines) + "\n"


def _row(entry: TuneTry, base: float | None, best: bool) -> list[str]:
    speed, times, memory = "", "", ""
    if entry.tokens_per_second is not None:
        speed = f"{entry.tokens_per_second:.1f}"
        times = f"{entry.tokens_per_second / base:.2f}" if base else ""
    if entry.peak_bytes is not None:
        memory = f"{entry.peak_bytes / 2**30:.2f} GiB"
    mark = "→" if best else " "
    row = f" {mark}{entry.number:>2}  {entry.label:<32}{speed:>10}{times:>9}{memory:>13}".rstrip()
    if entry.status == "measured":
        return [row]
    return [row, *wrap_text(f"{WORDS[entry.status]}: {entry.reason}", "        ", first="        ")]
