"""What gpu-setup's own recording costs a training run: `gpu-setup bench` against bare `axolotl train`.

    python3 benchmarks/training_overhead.py [--pairs 5] [--steps 12] [--recipe smollm2-135m-qlora] [--work DIR]

The same config, less the plugin; the same steps on the same batches (compared, and written down). One round is a run of
each kind, in alternating order. The figure is non-padding tokens per CPU second (user + system) of the training
process, from its start to its end; "steps only" leaves out the imports, the model's loading and the first step. Before
the first round each kind runs once, which is not counted. Needs a built training environment (./gpu-setup environment).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from home import add_common_options, borrowed_home, my_places, training_environment, work_folder
from intervals import interval, mean_ratio
from result import Figure, machine, progress, report, write
from training_runs import Ours, Training, with_axolotl, with_bare_loop, with_gpu_setup

NEEDED_PAIRS = 5
RATIO_FLOOR = 0.97
OWN_SHARE_LIMIT = 0.01
WORKER_MEMORY_LIMIT = 2.5


class RunTokens(NamedTuple):
    """Non-padding tokens of a run: all of them, and those of the steps after the first."""

    all: int
    steps: int


class Round(NamedTuple):
    ours: Ours
    axolotl: Training
    loop: Training
    tokens: RunTokens


def rounds(pairs: int, steps: int, recipe: str, work: Path) -> list[Round]:
    home = borrowed_home(work / "home")
    runs = work / "runs"
    # from a benchmark that was interrupted
    shutil.rmtree(runs, ignore_errors=True)
    progress("first runs, not counted: gpu-setup, Axolotl (which records its batches), the bare loop")
    _, worker = with_gpu_setup(home, recipe, 1, work)
    batches = work / "batches.json"
    with_axolotl(worker, steps, runs / "recorded", batches)
    config = runs / "recorded" / "config.yml"
    with_bare_loop(worker, config, batches, runs / "loop")
    tokens = _tokens(json.loads(batches.read_text(encoding="utf-8")), steps)

    kinds: dict[str, Callable[[int], Any]] = {
        "gpu-setup bench": lambda number: with_gpu_setup(home, recipe, steps, work)[0],
        "axolotl train": lambda number: with_axolotl(worker, steps, runs / f"axolotl-{number}"),
        "bare loop": lambda number: with_bare_loop(worker, config, batches, runs / f"loop-{number}"),
    }
    done = []
    for number in range(1, pairs + 1):
        found = {}
        for kind in kinds if number % 2 else reversed(kinds):
            progress(f"round {number} of {pairs}: {kind}")
            found[kind] = kinds[kind](number)
        done.append(Round(found["gpu-setup bench"], found["axolotl train"], found["bare loop"], tokens))
        same_work(done[-1])
    return done


def same_work(one: Round) -> None:
    """Stop where the runs did not train on the same tokens: their speeds could not be compared."""
    ours, bare = one.ours.training, one.axolotl
    counted = sum(step["non_padding"] for step in one.ours.steps)
    if (ours.slots, ours.trainable, counted) != (bare.slots, bare.trainable, one.tokens.all):
        raise SystemExit(
            f"Not the same work: slots {ours.slots} and {bare.slots}, trainable {ours.trainable} and {bare.trainable}, "
            f"non-padding {counted} and {one.tokens.all}."
        )


def figures(done: Sequence[Round]) -> list[Figure]:
    def speeds(pick: Any, steps_only: bool) -> list[float]:
        found = []
        for one in done:
            run: Training = pick(one)
            seconds = run.steps_cpu_seconds if steps_only else run.cpu_seconds
            found.append((one.tokens.steps if steps_only else one.tokens.all) / (seconds or float("nan")))
        return found

    def ours(one: Round) -> Training:
        return one.ours.training

    def axolotl(one: Round) -> Training:
        return one.axolotl

    def loop(one: Round) -> Training:
        return one.loop

    def whole_command(one: Round) -> Training:
        return one.ours.training._replace(cpu_seconds=one.ours.command_cpu_seconds)

    def ratio(name: str, pick: Any, against: Any, steps_only: bool = False, floor: float | None = None) -> Figure:
        pair = speeds(pick, steps_only), speeds(against, steps_only)
        ends = interval(mean_ratio, *pair)
        return Figure(
            name,
            mean_ratio(*pair),
            "ratio",
            len(done),
            NEEDED_PAIRS,
            at_least=floor,
            ci95=ends,
            judged=ends[1] if ends else None,
            note="judged by the interval's upper end" if floor else "",
        )

    def speed(name: str, pick: Any, steps_only: bool = False) -> Figure:
        values = speeds(pick, steps_only)
        return Figure(name, sum(values) / len(values), "tokens/CPU-s", len(values))

    reports = [one.ours.report["measurements"] for one in done]
    share = max(report["own_share"]["median"] for report in reports)
    worker = max(report["peak_memory"]["worker_rss"]["median"] for report in reports) / 2**30
    return [
        ratio("bench, training process, against axolotl train", ours, axolotl, floor=RATIO_FLOOR),
        ratio("bench, training process, against axolotl train, steps only", ours, axolotl, steps_only=True),
        ratio("bench, whole command with report, against axolotl train", whole_command, axolotl),
        ratio("bench, training process, against a bare loop, steps only", ours, loop, steps_only=True),
        Figure("time inside our callbacks, largest of the runs", share, "share", len(done), at_most=OWN_SHARE_LIMIT),
        Figure("worker: peak memory", worker, "GiB", len(done), at_most=WORKER_MEMORY_LIMIT),
        speed("bench, training process", ours),
        speed("axolotl train", axolotl),
        speed("bare loop", loop),
        speed("bench, training process, steps only", ours, steps_only=True),
        speed("axolotl train, steps only", axolotl, steps_only=True),
        speed("bare loop, steps only", loop, steps_only=True),
    ]


def raw(done: Sequence[Round], recipe: str, steps: int) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "steps": steps,
        "torch": done[0].ours.report["environment"]["torch"],
        "non_padding_tokens": done[0].tokens._asdict(),
        "rounds": [
            {
                "bench": one.ours.training._asdict() | {"command_cpu_seconds": one.ours.command_cpu_seconds},
                "axolotl": one.axolotl._asdict(),
                "bare_loop": one.loop._asdict(),
                "own_seconds": sum(step["own_seconds"] for step in one.ours.steps),
            }
            for one in done
        ],
    }


def _tokens(batches: list[dict[str, list[list[int]]]], steps: int) -> RunTokens:
    """`batches` are micro-batches, as many for each step."""
    counts = [sum(token != 0 for row in batch["attention_mask"] for token in row) for batch in batches]
    first = len(batches) // steps
    return RunTokens(sum(counts), sum(counts[first:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=NEEDED_PAIRS, help="rounds (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--recipe", default="smollm2-135m-qlora", help="a shipped recipe (default: %(default)s)")
    add_common_options(parser)
    given = parser.parse_args()
    if training_environment(my_places()) is None:
        parser.error("there is no training environment yet; build it with: ./gpu-setup environment")
    described = machine()
    with work_folder(given.work) as work:
        done = rounds(given.pairs, given.steps, given.recipe, work)
    title = f"Training: {given.recipe}, {given.steps} steps a run"
    write(
        "training_overhead", title, report(*figures(done)), raw(done, given.recipe, given.steps), described, given.out
    )


if __name__ == "__main__":
    main()
