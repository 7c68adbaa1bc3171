"""What each setting of a recipe changes, on this machine's CPU with SmolLM2 135M: speed, memory, and what is learnt.

    python3 benchmarks/knobs.py [--part speed|learning|seeds …] [--rounds 2] [--work DIR]

speed: short runs that differ from the shipped recipe in one key, in rotating order; non-padding tokens per second and
per CPU second, peak memory. learning: whole runs, judged by the held-out questions. seeds: the shipped recipe with
several seeds; their last losses are the band in harness/recipes/recipes.toml. Needs a built training environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from statistics import fmean, median
from typing import Any

from home import add_common_options, borrowed_home, my_places, tool_python, work_folder
from result import Figure, machine, progress, report, write

RECIPE = "smollm2-135m-qlora"
SHORT = {"max_steps": 12}
WARM_UP = 3
# keys → what the name says
SPEED: dict[str, dict[str, Any]] = {
    "as shipped (2 x 2)": {},
    "packed, 1 x 1 of 640": {
        "sample_packing": True, "sequence_len": 640, "micro_batch_size": 1, "gradient_accumulation_steps": 1,
    },
    "gradient checkpointing": {"gradient_checkpointing": True},
    "micro batch 4 x 1": {"micro_batch_size": 4, "gradient_accumulation_steps": 1},
    "micro batch 1 x 4": {"micro_batch_size": 1, "gradient_accumulation_steps": 4},
    "rank 128": {"lora_r": 128},
    "unquantised base (plain LoRA)": {"load_in_4bit": False, "adapter": "lora"},
    "dropout 0.05": {"lora_dropout": 0.05},
}  # fmt: skip
LEARNING: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "rank 8, alpha 8": {"lora_r": 8, "lora_alpha": 8},
    "learning rate 0.0001": {"learning_rate": 0.0001},
    "learning rate 0.002": {"learning_rate": 0.002},
    "alpha 8 (a quarter of r)": {"lora_alpha": 8},
    "q and v only": {"lora_target_linear": False, "lora_target_modules": ["q_proj", "v_proj"]},
    "25 steps": {"max_steps": 25},
}
SEEDS = (42, 1, 2)
LAST = 10


def one_run(places: Any, changed: dict[str, Any], judged: bool) -> dict[str, Any]:
    """Train once through the harness itself; the figures of that run."""
    import msgspec

    from checks.catalogue import catalogue
    from harness.pipeline import Job, Workplace, examine_run, prepare, train_in_new_folder
    from harness.process.worker_log import read_worker_log
    from harness.recipe.loader import load_recipe
    from machine.events import silent
    from machine.local import LocalMachine

    stack = catalogue().stack("cpu")
    job = Job(load_recipe(RECIPE), stack, overrides=changed)
    ready = prepare(job, LocalMachine(), places, silent)
    folder = train_in_new_folder(job, ready, Workplace(LocalMachine(), places, silent))
    log = read_worker_log(folder / "worker.jsonl")
    assert log is not None and log.end is not None
    steady = [step for step in log.steps if step.step > WARM_UP]
    tokens = sum(step.non_padding for step in steady)
    cpu = sum(step.cpu_seconds or 0.0 for step in steady)
    found = {
        "tokens_per_second": tokens / sum(step.seconds for step in steady),
        "tokens_per_cpu_second": tokens / cpu if cpu else None,
        "real_share": tokens / sum(step.processed for step in steady),
        "peak_rss_bytes": log.end.rss_bytes,
        "trainable_parameters": log.start.trainable_parameters if log.start else None,
        "last_loss": fmean(float(step.loss) for step in log.steps[-LAST:]),
        "seconds": sum(step.seconds for step in log.steps),
    }
    if judged:
        seen = examine_run(job, ready, folder, LocalMachine(), silent)
        assert seen is not None and seen.before and seen.after
        traits = job.recipe.traits
        found["held_out"] = [seen.before.held_out_loss, seen.after.held_out_loss]
        found["pairing"] = [seen.before.pairing, seen.after.pairing]
        found["marked"] = sum((traits.marker or "") in answer.after for answer in seen.answers)
        found["questions"] = len(seen.answers)
    shutil.rmtree(folder)
    return json.loads(msgspec.json.encode(found))


def plan(rounds: int) -> list[tuple[str, str, dict[str, Any], bool]]:
    """Every run as (part, name, changed keys, judged), the speed's rounds in rotating order."""
    runs = [("seeds", str(seed), {"seed": seed}, False) for seed in SEEDS]
    names = list(SPEED)
    for number in range(rounds):
        turned = names[number:] + names[:number]
        runs += [("speed", name, {**SHORT, **SPEED[name]}, False) for name in turned]
    return runs + [("learning", name, changed, True) for name, changed in LEARNING.items()]


def to_do(raw: dict[str, Any], parts: list[str], rounds: int) -> list[tuple[str, str, dict[str, Any], bool]]:
    """The runs of the plan that the notes of an earlier start do not hold yet."""
    done = {(part, name): len(runs) for part, named in raw.items() for name, runs in named.items()}
    left = []
    for run in plan(rounds):
        if done.get(run[:2], 0) > 0:
            done[run[:2]] -= 1
        elif run[0] in parts:
            left.append(run)
    return left


def figures(raw: dict[str, Any]) -> list[Figure]:
    made = []
    base = raw.get("speed", {}).get("as shipped (2 x 2)")
    for name, runs in raw.get("speed", {}).items():
        rate = median(run["tokens_per_cpu_second"] for run in runs)
        share = rate / median(run["tokens_per_cpu_second"] for run in base)
        memory = max(run["peak_rss_bytes"] for run in runs) / 2**30
        made.append(Figure(f"{name}: tokens a CPU second against the recipe as shipped", share, "ratio", len(runs)))
        made.append(Figure(f"{name}: peak memory of the worker", memory, "GiB", len(runs)))
    for name, (run, *_) in raw.get("learning", {}).items():
        before, after = run["held_out"]
        made.append(Figure(f"{name}: held-out loss, of what it was before", after / before, "ratio"))
        made.append(Figure(f"{name}: answers in the house style, of {run['questions']}", run["marked"], "answers"))
    ends = [run["last_loss"] for runs in raw.get("seeds", {}).values() for run in runs]
    if ends:
        made.append(
            Figure(f"loss at the end, mean of the last {LAST} steps: lowest seed", min(ends), "nats", len(ends))
        )
        made.append(
            Figure(f"loss at the end, mean of the last {LAST} steps: highest seed", max(ends), "nats", len(ends))
        )
    return made


def main() -> None:
    python = tool_python(my_places())
    if Path(sys.executable) != python and not os.environ.get("GPU_SETUP_KNOBS"):
        os.environ["GPU_SETUP_KNOBS"] = "1"
        os.execv(python, (str(python), *sys.argv))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--part", nargs="+", choices=["speed", "learning", "seeds"], default=["speed", "learning", "seeds"]
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, help="at most N runs now; with --work the next start continues")
    add_common_options(parser)
    given = parser.parse_args()
    from machine.paths import paths

    described = machine()
    with work_folder(given.work) as work:
        places = paths({"GPU_SETUP_HOME": str(borrowed_home(work / "home"))})
        kept = work / "knobs.json"
        raw: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        for part, name, changed, judged in to_do(raw, given.part, given.rounds)[: given.limit]:
            progress(f"{part}, {name}: training")
            found = one_run(places, changed, judged)
            raw.setdefault(part, {}).setdefault(name, []).append(found)
            kept.write_text(json.dumps(raw), encoding="utf-8")
            progress(f"{part}, {name}: {found}")
        if left := to_do(raw, given.part, given.rounds):
            progress(f"{len(left)} runs are left; the same command continues.")
        title = "What each setting changes: SmolLM2 135M on the CPU"
        write("knobs", title, report(*figures(raw)), raw, described, given.out)


if __name__ == "__main__":
    main()
