"""How long `gpu-setup data check` takes, how much memory, and how both grow with the rows.

    python3 benchmarks/data_check.py [--rows 120000] [--runs 5] [--grow 250000 500000 1000000 2000000] [--work DIR]

Whole processes. The rows come from a seeded generator with the tests' sentence patterns and a large vocabulary; 2 % of
them are copies, 2 % near-copies, 1 % have a mail address and a number. Personal names are not searched for
(--no-names), as the target says. Peak memory is the sum over the tool and its worker processes, each at its own peak.
Rivals from data_rivals.toml run once on the same file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from home import LAUNCHER, add_common_options, my_places, tool_python, work_folder
from processes import Ended, children, command_line, peak_memory, person_environment, run
from result import CHECKOUT, Figure, machine, progress, report, write

sys.path.append(str(CHECKOUT))

from tests.harness.dataset.corpus import ANSWERS, LANGUAGES, PLACES, QUESTIONS, TIMES

SECONDS_LIMIT = 10.0
MEMORY_LIMIT = 1024.0
# time a row at the largest size against the smallest: linear, with a tenth for the machine's noise
LINEAR_LIMIT = 1.1
FLAT_LIMIT = 1.25
NEEDED_RUNS = 5
# a text of 50 MB is refused, and refused quickly
HUGE_TEXT = 50 << 20
HUGE_LIMIT = 5.0
# for its own checks, as its authors published; it could not be installed here, and neither its machine nor its rows are
# known: an order of magnitude only
PUBLISHED_RIVAL_SECONDS = 13.43
RIVAL_LIMIT = 600


class CheckRun(NamedTuple):
    """One run of a command, and the summed peaks of its processes in MiB."""

    ended: Ended
    memory: float


def nouns(dice: random.Random, count: int = 30_000) -> list[str]:
    syllables = (
        "ba",
        "ke",
        "lo",
        "mi",
        "ru",
        "sta",
        "fen",
        "gri",
        "hol",
        "nor",
        "pel",
        "qua",
        "ser",
        "tim",
        "vul",
        "wen",
        "zar",
        "dro",
        "bli",
        "cha",
    )
    return ["".join(dice.choices(syllables, k=dice.randint(2, 4))).capitalize() for _ in range(count)]


def make_rows(count: int, seed: int = 7) -> Iterator[dict[str, str]]:
    """`count` rows, a few hundred characters each; only a window of them is held for copies."""
    dice = random.Random(seed)
    words = nouns(dice)
    window: list[dict[str, str]] = []
    for number in range(count):
        language = LANGUAGES[number % 4]
        chance = dice.random()
        if window and chance < 0.02:
            yield dict(dice.choice(window))
            continue
        if window and chance < 0.04:
            row = dict(dice.choice(window))
            parts = row["output"].split()
            parts[dice.randrange(len(parts))] = dice.choice(words)
            yield {**row, "output": " ".join(parts)}
            continue

        def said(pattern: str, language: str = language) -> str:
            return pattern.format(
                t=f"{dice.choice(words)} {dice.choice(words)}", p=dice.choice(PLACES[language]),
                w=dice.choice(TIMES[language]), n=dice.randrange(10, 9000), m=dice.randrange(3, 900),
            )  # fmt: skip

        answer = " ".join(said(pattern) for pattern in dice.sample(ANSWERS[language], dice.randint(3, 6)))
        if chance > 0.99:
            answer += f" {dice.choice(words)}@{dice.choice(words)}.org, +49 30 9{dice.randrange(10**6, 10**7)}."
        row = {"instruction": said(dice.choice(QUESTIONS[language])), "input": "", "output": answer}
        if len(window) < 2000:
            window.append(row)
        else:
            window[dice.randrange(2000)] = row
        yield row


def data_file(work: Path, count: int) -> Path:
    """JSON Lines, which the rivals read too; made once in the work folder."""
    path = work / f"rows-{count}.jsonl"
    if not path.exists():
        progress(f"making {count:,} rows")
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            for row in make_rows(count):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        partial.rename(path)
    return path


def run_check(argv: tuple[str, ...], env: dict[str, str], log: Path, fine: tuple[int, ...] = (0, 1)) -> CheckRun:
    """Run the command; the peaks of all its processes are read while it runs."""
    peaks: dict[int, int] = {}

    def watch(pid: int) -> None:
        found = [pid]
        while found:
            each = found.pop()
            found += children(each)
            # multiprocessing's tracker, an interpreter of its own, counts too
            if command_line(each):
                peaks[each] = max(peaks.get(each, 0), peak_memory(each) or 0)

    ended = run(argv, env, log, log, watch=watch, every=0.05)
    progress(f"{Path(argv[0]).name} {argv[-1]}: {ended.seconds:.1f} s, {sum(peaks.values()) / 2**20:.0f} MiB")
    if ended.rc not in fine:
        raise SystemExit(f"{' '.join(argv)}: exit status {ended.rc}; see {log}")
    return CheckRun(ended, sum(peaks.values()) / 2**20)


def huge_text(python: Path, work: Path) -> Figure:
    """How long reading takes that ends with the error: one row with a text of 50 MB, as `train` reads it."""
    path, log = work / "huge.json", work / "huge.log"
    path.write_text('[{"instruction": "a", "output": "' + "x" * HUGE_TEXT + '"}]', encoding="utf-8")
    code = (
        "import pathlib, sys\n"
        "from harness.dataset.alpaca import read_alpaca\n"
        "from machine.errors import BadAnswer\n"
        "try:\n    read_alpaca(pathlib.Path(sys.argv[1]))\n"
        "except BadAnswer as error:\n    sys.exit(0 if error.code == 'data.too-long' else 1)\n"
        "sys.exit(1)\n"
    )
    one = run_check((str(python), "-c", code, str(path)), person_environment(PYTHONPATH=str(CHECKOUT)), log, fine=(0,))
    path.unlink()
    return Figure("a text of 50 MB, until the error", one.ended.seconds, "s", at_most=HUGE_LIMIT)


def rivals(work: Path, python: Path) -> dict[str, list[str]]:
    """argv of each rival, installed in a venv of its own."""
    table = tomllib.loads((Path(__file__).parent / "data_rivals.toml").read_text(encoding="utf-8"))
    found = {}
    for name, rival in table.items():
        folder, log = work / rival["requirement"], work / "install.log"
        if not (folder / "bin" / rival["command"][0]).exists():
            progress(f"installing {name}")
            pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", rival["requirement"])
            for step in ((str(python), "-m", "venv", str(folder)), pip):
                if run(step, person_environment(), log, log).rc != 0:
                    raise SystemExit(f"{name} could not be installed; see {log}")
        found[name] = [str(folder / "bin" / rival["command"][0]), *rival["command"][1:]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--runs", type=int, default=NEEDED_RUNS)
    parser.add_argument("--grow", type=int, nargs="*", default=[250_000, 500_000, 1_000_000, 2_000_000])
    parser.add_argument("--no-rivals", action="store_true", help="only the tool itself")
    add_common_options(parser)
    given = parser.parse_args()
    described = machine()
    places = my_places()
    python = tool_python(places)
    env = person_environment()
    check = (str(LAUNCHER), "data", "check", "--json", "--no-names")
    with work_folder(given.work) as work:
        env["TMPDIR"] = str(work)
        path, log = data_file(work, given.rows), work / "check.log"
        raw: dict[str, Any] = {"rows": given.rows, "bytes": path.stat().st_size, "grow": []}
        run_check((*check, str(data_file(work, 1000))), env, log)
        runs = [run_check((*check, str(path)), env, log) for _ in range(given.runs)]
        figures = report(*check_figures(runs, given))
        raw["runs"] = [(one.ended.seconds, one.ended.cpu_seconds, one.memory) for one in runs]
        figures += report(huge_text(python, work))
        figures += growth_figures(check, given, work, env, log, raw)
        if not given.no_rivals:
            for name, argv in rivals(work, python).items():
                filled = [part.format(file=path, out=work / "rival-out") for part in argv]
                (work / "rival-out").mkdir(exist_ok=True)
                limited = ("timeout", str(RIVAL_LIMIT), *filled)
                one = run_check(limited, person_environment(), work / "rival.log", fine=tuple(range(256)))
                ended = f"stopped after {RIVAL_LIMIT} s" if one.ended.rc == 124 else f"exit {one.ended.rc}"
                note = f"{ended}; other checks than ours, fewer"
                figures += report(
                    Figure(f"{name}, {given.rows:,} rows", one.ended.seconds, "s", note=note),
                    Figure(f"{name}, peak memory", one.memory, "MiB"),
                )
        note = "as its authors published: 120,000 rows of their own, their machine, other checks; not installable here"
        figures += report(Figure("datasets-lint 1.2.0", PUBLISHED_RIVAL_SECONDS, "s", n=0, note=note))
        write("data-check", "Checking training data", figures, raw, described, given.out)


def check_figures(runs: list[CheckRun], given: argparse.Namespace) -> list[Figure]:
    target = given.rows == 120_000
    seconds = median(one.ended.seconds for one in runs)
    memory = max(one.memory for one in runs)
    more = {"n": len(runs), "needed": NEEDED_RUNS}
    return [
        Figure(f"check, {given.rows:,} rows", seconds, "s", at_most=SECONDS_LIMIT if target else None, **more),
        Figure("the same, CPU seconds", median(one.ended.cpu_seconds for one in runs), "s", n=len(runs)),
        Figure("peak memory, all processes", memory, "MiB", at_most=MEMORY_LIMIT if target else None, **more),
    ]


def growth_figures(
    check: tuple[str, ...], given: argparse.Namespace, work: Path, env: dict[str, str], log: Path, raw: dict[str, Any]
) -> list[Figure]:
    """Time and memory at each size, and the ratio of the largest to the smallest."""
    figures, sizes = [], []
    for count in given.grow:
        path = data_file(work, count)
        one = run_check((*check, str(path)), env, log)
        sizes.append((count, one.ended.seconds, one.memory))
        figures += report(
            Figure(f"check, {count:,} rows", one.ended.seconds, "s"),
            Figure(f"peak memory, {count:,} rows", one.memory, "MiB"),
        )
        if given.work is None:
            path.unlink()
    raw["grow"] = sizes
    if len(sizes) > 1:
        (few, short, small), (many, long, large) = sizes[0], sizes[-1]
        figures += report(
            Figure(
                f"time a row, {many:,} against {few:,}", (long / many) / (short / few), "ratio", at_most=LINEAR_LIMIT
            ),
            Figure(f"memory, {many:,} against {few:,}", large / small, "ratio", at_most=FLAT_LIMIT),
        )
    return figures


if __name__ == "__main__":
    main()
