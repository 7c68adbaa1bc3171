"""A benchmark's result: figures against their targets, with the machine, the date and the commit, in one JSON file.

While it runs: progress on stderr, each figure on stdout as soon as it is known.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
# mean number of running processes in the last minute
BUSY = 0.5
STARTED = time.monotonic()


@dataclass(frozen=True)
class Figure:
    """One measured value. `at_most` or `at_least` is the target, where there is one.

    `n`: how many runs (or pairs) it was measured in; with fewer than `needed` it is a trial. `judged`: the value that
    is compared with the target where that is not `value` itself (the upper end of an interval).
    """

    name: str
    value: float | None
    unit: str
    n: int = 1
    needed: int = 1
    at_most: float | None = None
    at_least: float | None = None
    ci95: tuple[float, float] | None = None
    judged: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no target, no value, or too few runs."""
        value = self.value if self.judged is None else self.judged
        if value is None or self.n < self.needed or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


def machine() -> dict[str, Any]:
    """What shapes the figures and names nobody: CPU, cores, memory, system, Python, and the load before the start.

    Warns when the machine is busy: then even CPU seconds mislead, because PyTorch's threads spin while they wait.
    """
    load = os.getloadavg()[0]
    if load > BUSY:
        progress(f"Warning: the machine is busy (load {load:.1f}), so the figures are not reliable.")
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "os": (_field("/etc/os-release", "PRETTY_NAME", "=") or platform.system()).strip('"'),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(load, 2),
    }


def progress(words: str) -> None:
    """One line on stderr, with the seconds since the benchmark started."""
    print(f"[{time.monotonic() - STARTED:5.0f} s] {words}", file=sys.stderr, flush=True)


def report(*figures: Figure) -> list[Figure]:
    """Print figures on stdout as soon as they are known; returns them for the result."""
    for figure in figures:
        print(line(asdict(figure) | {"met": figure.met}), flush=True)
    return list(figures)


def write(
    name: str, title: str, figures: list[Figure], raw: dict[str, Any], described: dict[str, Any], out: Path | None
) -> Path:
    """Write the result, whose figures were reported already. `described`: machine(), called at the start."""
    document = {
        "benchmark": name,
        "title": title,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "machine": described,
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "raw": raw,
    }
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Result: {path}", flush=True)
    return path


def line(figure: dict[str, Any]) -> str:
    """One figure as a person reads it on the terminal."""
    parts = [f"{figure['name']}: {format_value(figure['value'], figure['unit'])}"]
    if figure["ci95"]:
        parts.append(f"[{' to '.join(format_value(end, figure['unit']) for end in figure['ci95'])}]")
    parts.append(f"(target {target(figure)}: {verdict(figure)})" if target(figure) else "")
    return " ".join(part for part in parts if part)


def format_value(value: float | None, unit: str) -> str:
    """A value with its unit, in three significant digits or whole."""
    if value is None:
        return "not measured"
    if unit == "share":
        return f"{100 * value:.3f} %"
    if unit == "ratio":
        return f"{value:.3f}"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def target(figure: dict[str, Any]) -> str:
    """`≤ 1.7`, or nothing."""
    for sign, limit in (("≤", figure["at_most"]), ("≥", figure["at_least"])):
        if limit is not None:
            text = f"{100 * limit:g} %" if figure["unit"] == "share" else f"{limit:g}"
            return f"{sign} {text}" + ("" if figure["unit"] in ("share", "ratio") else f" {figure['unit']}")
    return ""


def verdict(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "not measured"
    if figure["n"] < figure["needed"]:
        return f"trial: {figure['n']} of {figure['needed']} runs"
    return "met" if figure["met"] else "MISSED"


def _field(path: str, name: str, sign: str = ":") -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((row.partition(sign)[2].strip() for row in lines if row.partition(sign)[0].strip() == name), None)


def _commit() -> str | None:
    """The short commit, with `+` where tracked files differ from it (results aside); None outside a repository."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", "-C", str(CHECKOUT), *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()
