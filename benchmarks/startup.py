"""How long a person waits for `gpu-setup --help` and `gpu-setup doctor`, against click alone and other doctors; and
for the first `./gpu-setup doctor` of all.

    python3 benchmarks/startup.py [--runs 21] [--first-starts 5] [--work DIR]

A first start is a fresh clone of this checkout's last commit and an empty home; pip's cache is warm from one start
before. Its packages are on disk before the clock starts, and everything else (environment, packages, byte code, the
answer) is inside. What the environment takes on disk is counted in blocks.

Whole processes, from fork to exit, output thrown away. Every round runs each command once, in a shuffled order, so that
what slows the machine down for a while slows all of them. Each ratio is that of the medians, its interval from
resampling whole rounds.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from home import LAUNCHER, add_common_options, my_places, tool_python, training_environment, work_folder
from intervals import interval, ratio_of_medians
from processes import Ended, person_environment, run
from result import CHECKOUT, Figure, machine, progress, report, write

NEEDED_RUNS = 21
HELP_LIMIT = 1.7
DOCTOR_LIMIT = 0.75
TOOL_MEMORY_LIMIT = 120.0
NEEDED_FIRST_STARTS = 5
FIRST_DOCTOR_LIMIT = 10.0
CORE_LIMIT = 60.0
# a command this slow runs in every SLOW-th round only
SLOW = 7


class Command(NamedTuple):
    """What is timed. `every`: in which rounds it runs; `fine`: exit codes that are an answer."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    every: int = 1
    fine: tuple[int, ...] = (0,)


def install_rivals(work: Path, python: Path) -> list[Command]:
    """Each rival in a venv made with the tool's Python, with a home of its own, so that the caller's stays as it is."""
    rivals = tomllib.loads((Path(__file__).parent / "rivals.toml").read_text(encoding="utf-8"))
    home = work / "home"
    home.mkdir(exist_ok=True)
    commands = []
    for name, rival in rivals.items():
        progress(f"installing {name}")
        folder = work / rival["requirement"]
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", rival["requirement"])
        for step in ((str(python), "-m", "venv", str(folder)), pip):
            log = work / "install.log"
            if run(step, person_environment(), log, log).rc != 0:
                raise SystemExit(f"{name} could not be installed; see {log}")
        argv = (str(folder / "bin" / rival["command"][0]), *rival["command"][1:])
        commands.append(Command(" ".join(rival["command"]), argv, person_environment(HOME=str(home))))
    return commands


def commands(work: Path) -> list[Command]:
    places = my_places()
    python = tool_python(places)
    here = person_environment()
    found = [
        Command("gpu-setup --help", (str(LAUNCHER), "--help"), here),
        Command("python -I -c 'import click'", (str(python), "-I", "-c", "import click"), here),
        # 1: a check failed on this machine, which is an answer
        Command("gpu-setup doctor", (str(LAUNCHER), "doctor"), here, fine=(0, 1)),
        *install_rivals(work, python),
    ]
    trained = training_environment(places)
    if trained is not None:
        argv = (f"{trained['folder']}/bin/python", "-m", "torch.utils.collect_env")
        found.append(Command("python -m torch.utils.collect_env", argv, here, SLOW))
    return found


def measure(chosen: Sequence[Command], rounds: int) -> dict[str, list[Ended]]:
    """Each command once to warm the caches, which is not counted, then the rounds."""
    ended: dict[str, list[Ended]] = {command.name: [] for command in chosen}
    shuffle = random.Random(0).shuffle
    for number in range(-1, rounds):
        turn = [command for command in chosen if number % command.every == 0 or number < 0]
        shuffle(turn)
        for command in turn:
            once = run(command.argv, command.env)
            if once.rc not in command.fine:
                raise SystemExit(f"{command.name} exited with status {once.rc}; run it by hand to see why.")
            progress(f"round {number + 1} of {rounds}: {command.name}: {1000 * once.seconds:.0f} ms")
            if number >= 0:
                ended[command.name].append(once)
    return ended


class FirstStart(NamedTuple):
    seconds: float
    cpu_seconds: float
    disk_megabytes: float


def first_starts(work: Path, runs: int) -> list[FirstStart]:
    """`./gpu-setup doctor` in a fresh clone with an empty home: once for pip's cache, then timed."""
    found = []
    for number in range(-1, runs):
        clone, home = work / f"clone-{number}", work / f"home-{number}"
        log = work / "first-start.log"
        if run(("git", "clone", "--quiet", str(CHECKOUT), str(clone)), person_environment(), log, log).rc != 0:
            raise SystemExit(f"the checkout could not be cloned; see {log}")
        home.mkdir()
        places = {
            "HOME": str(home),
            "GPU_SETUP_HOME": str(home / "gpu-setup"),
            "PIP_CACHE_DIR": str(work / "pip-cache"),
        }
        once = run((str(clone / "gpu-setup"), "doctor"), person_environment(**places), log, log)
        if once.rc not in (0, 1):
            raise SystemExit(f"the first start exited with status {once.rc}; see {log}")
        progress(f"first start {number + 1} of {runs}: {once.seconds:.1f} s, {once.cpu_seconds:.1f} CPU seconds")
        if number >= 0:
            tool = home / "gpu-setup" / "data" / "tool"
            blocks = sum(os.lstat(file).st_blocks for file in tool.rglob("*"))
            found.append(FirstStart(once.seconds, once.cpu_seconds, blocks * 512 / 1e6))
        shutil.rmtree(clone)
        shutil.rmtree(home)
    return found


def first_start_figures(starts: Sequence[FirstStart]) -> list[Figure]:
    seconds = [start.seconds for start in starts]
    return [
        Figure(
            "first gpu-setup doctor: fresh clone, empty home",
            median(seconds),
            "s",
            len(starts),
            NEEDED_FIRST_STARTS,
            at_most=FIRST_DOCTOR_LIMIT,
            judged=max(seconds),
            note=f"slowest {max(seconds):.1f} s",
        ),
        Figure(
            "the same, CPU seconds",
            median(start.cpu_seconds for start in starts),
            "s",
            len(starts),
            NEEDED_FIRST_STARTS,
        ),
        Figure(
            "its environment on disk",
            max(start.disk_megabytes for start in starts),
            "MB",
            len(starts),
            at_most=CORE_LIMIT,
        ),
    ]


def figures(ended: dict[str, list[Ended]]) -> list[Figure]:
    seconds = {name: [once.seconds for once in runs] for name, runs in ended.items()}

    def ratio(one: str, other: str, limit: float) -> Figure:
        pair = seconds[one], seconds[other]
        return Figure(
            f"{one}, against {other}",
            ratio_of_medians(*pair),
            "ratio",
            len(pair[0]),
            NEEDED_RUNS,
            at_most=limit,
            ci95=interval(ratio_of_medians, *pair),
        )

    def memory(name: str) -> Figure:
        peak = max(once.peak_rss_bytes for once in ended[name]) / 2**20
        return Figure(f"{name}: peak memory", peak, "MiB", len(ended[name]), at_most=TOOL_MEMORY_LIMIT)

    return [
        ratio("gpu-setup --help", "python -I -c 'import click'", HELP_LIMIT),
        ratio("gpu-setup doctor", "cuda-doctor diagnose", DOCTOR_LIMIT),
        memory("gpu-setup --help"),
        memory("gpu-setup doctor"),
        *(
            Figure(name, 1000 * median(values), "ms", len(values), note=f"fastest {1000 * min(values):.0f} ms")
            for name, values in seconds.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=NEEDED_RUNS, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--first-starts", type=int, default=NEEDED_FIRST_STARTS, metavar="N", help="first starts (default: %(default)s)"
    )
    add_common_options(parser)
    given = parser.parse_args()
    described = machine()
    with work_folder(given.work) as work:
        starts = first_starts(work, given.first_starts)
        found = report(*first_start_figures(starts))
        ended = measure(commands(work), given.runs)
    raw: dict[str, object] = {
        "first starts": [start._asdict() for start in starts],
    } | {
        name: {
            "seconds": [round(once.seconds, 5) for once in runs],
            "cpu_seconds": [round(once.cpu_seconds, 5) for once in runs],
            "peak_rss_bytes": max(once.peak_rss_bytes for once in runs),
        }
        for name, runs in ended.items()
    }
    write("startup", "Starting up: whole processes", found + report(*figures(ended)), raw, described, given.out)


if __name__ == "__main__":
    main()
