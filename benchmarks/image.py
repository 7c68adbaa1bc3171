"""The container image: its building and size, and what training in it costs against the bare environment.

    python3 benchmarks/image.py [--pairs 5] [--steps 12] [--recipe smollm2-135m-qlora] [--build OPTION …]
    python3 benchmarks/image.py --lab FOLDER        an engine of its own, for the time of the benchmark (root)

`gpu-setup image build` twice (the second with nothing changed), then rounds of one `gpu-setup bench` in the image
and one in the bare environment, in alternating order, each after a first run that is not counted. The start is the
time from the run's config to the worker's first line; both are checked twenty times a second. A first build that took
steps from the engine's cache gives no figure. Needs an engine, and a built training environment
(./gpu-setup environment). With --lab the engine is the lab tests' (Docker on a disk in one file, empty at first), and
the build takes a base and wheels from what those tests keep in $GPU_SETUP_TEST_HOME/containers, offline.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import time
from typing import Any, NamedTuple

from home import LAUNCHER, add_common_options, borrowed_home, my_places, training_environment, work_folder
from intervals import interval, mean_ratio, ratio_of_medians
from processes import person_environment, run
from result import CHECKOUT, Figure, machine, progress, report, write

sys.path.append(str(CHECKOUT))

NEEDED_PAIRS = 5
SIZE_LIMIT = 4.0
BUILD_LIMIT = 12.0
UNCHANGED_LIMIT = 2.0
START_LIMIT = 1.5
SPEED_FLOOR = 0.98


class BenchRun(NamedTuple):
    """One `gpu-setup bench`: seconds to the worker's first line, seconds a step (the first left out), tokens of all."""

    start: float
    step_seconds: tuple[float, ...]
    non_padding: int
    first_loss: float


class StartWatch:
    """Notes when the newest run's config was written, and when its worker has written its first line."""

    def __init__(self, runs: Path) -> None:
        self._runs, self._before = runs, set(runs.glob("*"))
        self.folder: Path | None = None
        self.start: float | None = None

    def __call__(self, _pid: int) -> None:
        if self.start is not None:
            return
        for folder in set(self._runs.glob("*/")) - self._before:
            config, log = folder / "config.yml", folder / "worker.jsonl"
            if config.exists() and log.exists() and log.stat().st_size:
                self.folder, self.start = folder, time() - config.stat().st_mtime


def tool(arguments: Sequence[str], env: dict[str, str], work: Path, watch: Any = None) -> tuple[float, dict[str, Any]]:
    """Wall seconds and the answer's data; a failure stops the benchmark and shows the output."""
    answer, messages = work / "answer.json", work / "messages.log"
    progress(f"gpu-setup {' '.join(arguments)}")
    ended = run((str(LAUNCHER), *arguments, "--json"), env, answer, messages, watch=watch)
    if ended.rc != 0:
        sys.exit(f"Exit status {ended.rc}:\n{answer.read_text()}{messages.read_text()}")
    return ended.seconds, json.loads(answer.read_text(encoding="utf-8"))["data"]


def run_bench(kind: str, recipe: str, steps: int, env: dict[str, str], work: Path) -> BenchRun:
    watch = StartWatch(Path(env["GPU_SETUP_HOME"]) / "state" / "runs")
    tool(("bench", "--recipe", recipe, "--steps", str(steps), "--runtime", kind), env, work, watch)
    assert watch.folder is not None and watch.start is not None
    lines = [json.loads(line) for line in (watch.folder / "worker.jsonl").read_text(encoding="utf-8").splitlines()]
    done = [line for line in lines if line["event"] == "step"]
    return BenchRun(
        watch.start,
        tuple(step["seconds"] for step in done[1:]),
        sum(step["non_padding"] for step in done),
        done[0]["loss"],
    )


def rounds(pairs: int, steps: int, recipe: str, env: dict[str, str], work: Path) -> list[tuple[BenchRun, BenchRun]]:
    kinds = ("image", "venv")
    for kind in kinds:
        run_bench(kind, recipe, 1, env, work)
    done = []
    for number in range(1, pairs + 1):
        progress(f"round {number} of {pairs}")
        found = {kind: run_bench(kind, recipe, steps, env, work) for kind in (kinds if number % 2 else kinds[::-1])}
        pair = (found["image"], found["venv"])
        if pair[0].non_padding != pair[1].non_padding or abs(pair[0].first_loss - pair[1].first_loss) > 1e-3:
            sys.exit(f"Not the same work: {pair}")
        done.append(pair)
        starts = " and ".join(f"{one.start:.1f} s" for one in pair)
        progress(f"round {number}: to the worker's first line, image and bare: {starts}")
    return done


@contextmanager
def lab_engine(lab: Path, work: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The engine's environment variables for a client, and the build options from the files in `lab`."""
    from tests.lab.containers.engines import running

    found = [file for pattern in ("*.tar", "wheels-py*") for file in sorted(lab.glob(pattern))]
    if len(found) != 2:
        sys.exit(f"{lab} does not hold a base and wheels; the tests in tests/lab/containers make them.")
    system, wheels = found
    base = "ubuntu:24.04" if system.stem == "noble" else f"debian:{system.stem}"
    with running(work / "engine", disk_gb=40) as engine:
        engine.checked("import", str(system), base)
        yield dict(engine.environ), ["--vendor", "cpu", "--base", base, "--offline", "--wheels", str(wheels)]


def build_figures(options: Sequence[str], env: dict[str, str], work: Path, raw: dict[str, Any]) -> list[Figure]:
    _, first = tool(("image", "build", *options), env, work)
    again = [tool(("image", "build", *options), env, work)[0] for _ in range(3)]
    built = first["built"]
    raw["build"] = {
        "tag": first["tag"],
        "base": first["spec"]["base"],
        "options": list(options),
        "unchanged": again,
        **built,
    }
    cold = built["cached"] == 0
    return [
        Figure("image: size", built["size"] / 1e9, "GB", at_most=SIZE_LIMIT),
        Figure(
            "image build, nothing in the engine's cache",
            built["seconds"] / 60 if cold else None,
            "min",
            at_most=BUILD_LIMIT,
            note="" if cold else f"{built['cached']} of {built['steps']} steps were in the cache",
        ),
        Figure("image build, nothing changed", median(again), "s", len(again), at_most=UNCHANGED_LIMIT),
    ]


def training_figures(done: Sequence[tuple[BenchRun, BenchRun]]) -> list[Figure]:
    starts = [one.start for one, _ in done], [other.start for _, other in done]
    speeds = [1 / median(one.step_seconds) for one, _ in done], [1 / median(other.step_seconds) for _, other in done]
    ends = interval(mean_ratio, *speeds)
    return [
        Figure(
            "start to the worker's first line, image against bare",
            ratio_of_medians(*starts),
            "ratio",
            len(done),
            NEEDED_PAIRS,
            at_most=START_LIMIT,
            ci95=interval(ratio_of_medians, *starts),
        ),
        Figure(
            "training speed, image against bare",
            mean_ratio(*speeds),
            "ratio",
            len(done),
            NEEDED_PAIRS,
            at_least=SPEED_FLOOR,
            ci95=ends,
            judged=ends[1] if ends else None,
            note="judged by the interval's upper end",
        ),
        Figure("start to the worker's first line, image", median(starts[0]), "s", len(done)),
        Figure("start to the worker's first line, bare", median(starts[1]), "s", len(done)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=NEEDED_PAIRS, help="rounds (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--recipe", default="smollm2-135m-qlora", help="a shipped recipe (default: %(default)s)")
    parser.add_argument("--lab", type=Path, help="a folder of the lab tests' base and wheels: see above")
    parser.add_argument("--build", nargs=argparse.REMAINDER, default=[], help="options for gpu-setup image build, last")
    add_common_options(parser)
    given = parser.parse_args()
    if training_environment(my_places()) is None:
        parser.error("there is no training environment yet; build it with: ./gpu-setup environment")
    described, raw = machine(), dict[str, Any]()
    with ExitStack() as open_until_the_end:
        work = open_until_the_end.enter_context(work_folder(given.work))
        env = person_environment(GPU_SETUP_HOME=str(borrowed_home(work / "home")))
        options = given.build
        if given.lab is not None:
            more, options = open_until_the_end.enter_context(lab_engine(given.lab.resolve(), work))
            env |= more
        figures = report(*build_figures(options, env, work, raw))
        done = rounds(given.pairs, given.steps, given.recipe, env, work)
    raw |= {"recipe": given.recipe, "steps": given.steps, "rounds": [[run._asdict() for run in pair] for pair in done]}
    title = f"Container image, and {given.recipe} in it ({given.steps} steps a run)"
    write("image", title, figures + report(*training_figures(done)), raw, described, given.out)


if __name__ == "__main__":
    main()
