"""How long a person waits for the training environment, and for `gpu-setup up` once it is built; the memory of both.

    python3 benchmarks/environment_build.py --cold|--warm [--recipe smollm2-135m-qlora] [--work DIR]
    python3 benchmarks/environment_build.py --built HOME      `up` only, with the environments of that GPU_SETUP_HOME

Starts from an empty GPU_SETUP_HOME: the tool's environment, then `gpu-setup environment`, then `gpu-setup up --yes`.
--cold gives pip an empty cache, --warm the caller's own; pip's settings (index, local copies) hold in both.
Peaks are VmHWM, which the kernel keeps, read twenty times a second. "The tool, report page aside" is its peak while its
last child (the examination) still ran: the page is rendered after that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from home import LAUNCHER, add_common_options, work_folder
from processes import Ended, children, command_line, peak_memory, person_environment, run
from result import Figure, machine, progress, report, write

BUILD_LIMIT = 6.0
UP_LIMIT = 7.0
WORKER_MEMORY_LIMIT = 2.5
TOOL_MEMORY_LIMIT = 120.0
GIB, MIB = 2**30, 2**20


class MemoryWatch:
    """Peak memory of the tool, at its end and while a child last ran, and of each kind of child."""

    def __init__(self) -> None:
        self.tool = self.tool_with_children = 0
        self.of_children: dict[str, int] = {}

    def __call__(self, pid: int) -> None:
        peak = peak_memory(pid) or 0
        self.tool = max(self.tool, peak)
        for child in children(pid):
            kind = _kind(command_line(child))
            if kind is not None:
                self.of_children[kind] = max(self.of_children.get(kind, 0), peak_memory(child) or 0)
                self.tool_with_children = max(self.tool_with_children, peak)


def _kind(argv: tuple[str, ...]) -> str | None:
    """Which part of the main job a child of the tool is; None for the short ones (a probe, pip's version)."""
    if "train" in argv and any(word.endswith("/axolotl") for word in argv):
        return "training"
    if "-m" in argv:
        module = argv[argv.index("-m") + 1]
        return {"gpu_setup_worker.examine": "examination", "gpu_setup_worker.models": "model", "pip": "pip"}.get(module)
    return None


def gpu_setup(
    arguments: tuple[str, ...], env: dict[str, str], work: Path, watch: MemoryWatch
) -> tuple[Ended, dict[str, Any]]:
    """Run one command with --json: its cost and the data of its answer. A failure stops the benchmark."""
    answer, messages = work / "answer.json", work / "messages.log"
    progress(f"gpu-setup {' '.join(arguments)}")
    ended = run((str(LAUNCHER), *arguments, "--json"), env, answer, messages, watch=watch)
    if ended.rc != 0:
        sys.exit(f"Exit status {ended.rc}:\n{answer.read_text()}{messages.read_text()}")
    return ended, json.loads(answer.read_text(encoding="utf-8"))["data"]


def build(env: dict[str, str], work: Path, cache: str, raw: dict[str, Any]) -> list[Figure]:
    """Both environments from nothing."""
    progress("the tool's own environment")
    tool = run((str(LAUNCHER), "--version"), env)
    watch = MemoryWatch()
    ended, data = gpu_setup(("environment",), env, work, watch)
    raw["environment"] = {
        "tool_environment_seconds": round(tool.seconds, 1),
        "seconds": round(ended.seconds, 1),
        "torch": data["torch"],
        "torch_from": data["torch_from"],
        "pip_cache": cache,
        "tool_peak_bytes": watch.tool,
    }
    note = f"pip's cache {cache}, torch from: {data['torch_from']}"
    return [
        Figure("training environment, from empty", ended.seconds / 60, "min", at_most=BUILD_LIMIT, note=note),
        Figure("the tool's own environment, from empty", tool.seconds, "s"),
        Figure("gpu-setup environment: peak memory of the tool", watch.tool / MIB, "MiB", at_most=TOOL_MEMORY_LIMIT),
    ]


def up(env: dict[str, str], work: Path, recipe: str, raw: dict[str, Any]) -> list[Figure]:
    """The main job with the environments built."""
    watch = MemoryWatch()
    ended, data = gpu_setup(("up", "--yes", "--fresh", "--recipe", recipe), env, work, watch)
    measured = data["measurements"]
    worker = max([measured["peak_memory"]["worker_rss"]["median"], *watch.of_children.values()])
    raw["up"] = {
        "recipe": recipe,
        "seconds": round(ended.seconds, 1),
        "verdict": data["verdict"],
        "training_seconds": data["seconds"],
        "step_seconds": measured["step_seconds"]["median"],
        "tool_peak_bytes": watch.tool,
        "tool_peak_before_page_bytes": watch.tool_with_children,
        "worker_peak_bytes": measured["peak_memory"]["worker_rss"]["median"],
        "children_peak_bytes": watch.of_children,
    }
    return [
        Figure(f"gpu-setup up ({recipe}), environment built", ended.seconds / 60, "min", at_most=UP_LIMIT),
        Figure(
            "worker: peak memory",
            worker / GIB,
            "GiB",
            at_most=WORKER_MEMORY_LIMIT,
            note="the largest of " + ", ".join(watch.of_children),
        ),
        Figure(
            "the tool during up, report page aside: peak memory",
            watch.tool_with_children / MIB,
            "MiB",
            at_most=TOOL_MEMORY_LIMIT,
        ),
        Figure("the tool during up, with the report page: peak memory", watch.tool / MIB, "MiB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--cold", action="store_true", help="from empty, with an empty pip cache")
    start.add_argument("--warm", action="store_true", help="from empty, with the caller's pip cache")
    start.add_argument("--built", type=Path, metavar="HOME", help="no build: use the environments of this home")
    parser.add_argument("--recipe", default="smollm2-135m-qlora", help="what up trains (default: %(default)s)")
    add_common_options(parser)
    given = parser.parse_args()
    described, raw = machine(), dict[str, Any]()
    with work_folder(given.work) as work:
        home = work / "home"
        shutil.rmtree(home, ignore_errors=True)
        env = person_environment(GPU_SETUP_HOME=str(home))
        figures = []
        if given.built:
            home.mkdir()
            os.symlink(given.built.resolve() / "data", home / "data")
            os.symlink(given.built.resolve() / "cache", home / "cache")
        else:
            if given.cold:
                shutil.rmtree(work / "pip-cache", ignore_errors=True)
                env["PIP_CACHE_DIR"] = str(work / "pip-cache")
            figures += report(*build(env, work, "empty" if given.cold else "the caller's", raw))
        figures += report(*up(env, work, given.recipe, raw))
        shutil.rmtree(home)
    write("environment_build", "The environment and the main job", figures, raw, described, given.out)


if __name__ == "__main__":
    main()
