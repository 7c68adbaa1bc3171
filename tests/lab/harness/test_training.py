"""Real fine-tunes through the tool's own command line, with Axolotl on the CPU: what passes, and what must not."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.environment.base_model import ensure_model
from harness.environment.worker_process import worker_environment
from harness.measure.smoke_criteria import Smoke, judge_smoke
from harness.pipeline import Job, Workplace, prepare, train_in_new_folder
from harness.process.worker_log import read_worker_log
from harness.recipe.axolotl_config import SWAPPABLE, difference, run_config, swap_model
from harness.recipe.loader import SAMPLES, Recipe, Traits, load_recipe, recipe_names
from harness.training.examination import Examination, ExaminationSettings, examine, held_out_file
from harness.training.launch import RunSpec, new_run_folder, train
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import paths
from tests.lab.training import PASSWORD, SHORT, Ended, Training, own_recipe, runs, status, steps, tool
from tests.schemas import must_follow
from tests.tool import ROOT

pytestmark = pytest.mark.lab


def valid(ended: Ended) -> None:
    name = ended.document["schema"].split("/")[1]
    must_follow(ended.document, name)


def criteria(smoke: dict[str, object]) -> dict[str, object]:
    found = smoke["criteria"]
    assert isinstance(found, list)
    return {criterion["id"]: criterion["passed"] for criterion in found}


def folder_of(ended: Ended) -> Path:
    return Path(ended.data["folder"])


# What passes


def test_tiny_trains_correctly(tiny_run: Ended) -> None:
    assert (tiny_run.rc, tiny_run.data["verdict"]) == (0, "pass")
    assert tiny_run.document["schema"] == "gpu-setup/smoke/1"
    valid(tiny_run)
    assert criteria(tiny_run.data["smoke"]) == {
        "loss-finite": True,
        "held-out-falls": True,
        "keeps-pairing": None,
        "generates": True,
    }
    assert len(tiny_run.data["answers"]) == 12
    folder = folder_of(tiny_run)
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size > 1_000_000
    assert status(folder)["status"] == "done"
    for name in ("report.json", "report.html"):
        assert (folder / name).read_bytes() == (folder.parents[2] / "out" / name).read_bytes()
    assert not list(folder.glob("*.part*"))


def test_the_adapter_loads_elsewhere_and_names_no_folder(tiny_run: Ended, training: Training, tmp_path: Path) -> None:
    folder, base = folder_of(tiny_run), status(folder_of(tiny_run))["base_model"]
    moved = shutil.copytree(folder / "adapter", tmp_path / "elsewhere")
    for file in (*moved.iterdir(), folder / "report.json", folder / "report.html"):
        for place in (folder.parents[2], ROOT, training.paths.models, Path.home()):
            assert f"{place}/".encode() not in file.read_bytes(), (file.name, place)
    load = (
        "import sys; from transformers import AutoModelForCausalLM as M; from peft import PeftConfig, PeftModel\n"
        "print(PeftConfig.from_pretrained(sys.argv[2]).base_model_name_or_path)\n"
        "print(PeftModel.from_pretrained(M.from_pretrained(sys.argv[1]), sys.argv[2]).active_adapter)"
    )
    done = subprocess.run(
        [str(training.environment.python), "-c", load, base, str(moved)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["tiny-random-mistral", "default"], done.stderr


def test_no_process_has_a_secret_in_its_arguments(tiny_run: Ended) -> None:
    """Everybody on a machine can read arguments; the run's variables hold passwords (SETTINGS_WITH_PASSWORDS)."""
    folder = folder_of(tiny_run)
    traced = (folder.parents[2] / "arguments.txt").read_text(errors="replace")
    assert traced.count("execve(") > 3 and "axolotl" in traced and "gpu_setup_worker.examine" in traced
    assert PASSWORD not in traced
    for file in (folder / "report.json", folder / "report.html", folder / "axolotl.log", folder / "config.yml"):
        assert PASSWORD not in file.read_text(errors="replace"), file.name


def test_the_report_of_the_run(tiny_run: Ended, tmp_path: Path) -> None:
    shown = tool(tmp_path, "report", str(folder_of(tiny_run)))
    assert shown.rc == 0
    valid(shown)
    found = shown.data["measurements"]
    assert found["step_seconds"]["n"] == 30 - found["warmup_steps"] >= 13
    speed = found["tokens_per_second"]
    assert speed["processed"]["median"] > speed["non_padding"]["median"] > speed["trainable"]["median"] > 0
    assert found["peak_memory"]["worker_rss"]["median"] < 2.5 * 2**30
    assert found["mfu"]["median"] is None and found["matmul_ceiling_tflops"]["median"] is None
    assert found["own_share"]["median"] < 0.01, "our callbacks take more than 1 % of the step time"
    assert shown.data["environment"]["worker"]["axolotl"] == "0.19.0"


def test_our_losses_are_axolotls(tiny_run: Ended) -> None:
    """Axolotl prints four digits of each step's loss."""
    printed = re.findall(r"'loss': '([\d.]+)'", (folder_of(tiny_run) / "axolotl.log").read_text())
    ours = [step["loss"] for step in steps(folder_of(tiny_run))]
    assert [f"{loss:.4g}" for loss in ours] == [f"{float(word):.4g}" for word in printed]
    assert len(printed) == 30


RECOUNT = """
import json, sys
from datasets import load_from_disk
from pathlib import Path
(place,) = {path.parent for path in Path(sys.argv[1]).rglob("dataset_info.json")}
rows = load_from_disk(str(place))
print(json.dumps([[len(row["input_ids"]), sum(row["attention_mask"]), sum(label != -100 for label in row["labels"])]
                  for row in rows]))
"""


def test_the_three_counts_of_tokens_are_right(tiny_run: Ended, training: Training) -> None:
    """An epoch is 25 steps of 4 rows: its sums must be those of the data that Axolotl prepared, counted anew."""
    counted = LocalMachine().run(
        (str(training.environment.python), "-c", RECOUNT, str(folder_of(tiny_run) / "prepared")), timeout=60
    )
    rows = json.loads(counted.stdout.splitlines()[-1])
    assert len(rows) == 100
    epoch = steps(folder_of(tiny_run))[:25]
    assert sum(step["trainable"] for step in epoch) == sum(trainable for _, _, trainable in rows)
    assert sum(step["non_padding"] for step in epoch) == sum(length for length, _, _ in rows)
    # padded to the longest of its batch, in multiples of 64
    assert all(step["processed"] % (4 * 64) == 0 and step["processed"] >= step["non_padding"] for step in epoch)
    assert sum(step["processed"] for step in epoch) <= 100 * 256


def test_same_seed_same_losses_another_seed_others(tiny_run: Ended, tiny_again: Ended, own_home: Path) -> None:
    first = [step["loss"] for step in steps(folder_of(tiny_run))]
    valid(tiny_again)
    assert tiny_again.document["schema"] == "gpu-setup/report/1"
    # a busy machine spreads the steps, and then the speed is inconclusive
    assert tiny_again.data["verdict"] in ("pass", "inconclusive")
    assert (tiny_again.data["smoke"], tiny_again.data["measurements"]["mfu"]["median"]) == (None, None)
    assert [step["loss"] for step in steps(folder_of(tiny_again))] == first
    other = tool(own_home, "bench", "--recipe", "tiny", "--steps", "4", "--seed", "7", "--strict")
    assert (other.rc, other.data["verdict"]) == (1, "inconclusive")
    assert [step["loss"] for step in steps(folder_of(other))][:4] != first[:4]


def test_axolotl_accepts_every_recipe_and_refuses_a_broken_one(training: Training, tmp_path: Path) -> None:
    import yaml

    files = []
    for name in recipe_names():
        config = run_config(load_recipe(name), str(tmp_path), tmp_path, None, {})
        files.append(tmp_path / f"{name}.yml")
        files[-1].write_text(yaml.safe_dump({**config, "plugins": []}))
    broken = tmp_path / "broken.yml"
    broken.write_text(files[-1].read_text().replace("adapter: qlora", "adapter: nonsense"))
    argv = (str(training.environment.python), "-m", "gpu_setup_worker.keys", "check", *map(str, files), str(broken))
    told = LocalMachine().run(argv, timeout=180, env=worker_environment(training.environment))
    accepted = [line for line in told.stdout.splitlines() if line.startswith("valid ")]
    assert accepted == [f"valid {file}" for file in files], told.stderr
    assert told.rc == 1
    assert "Adapter 'nonsense' is not built in" in told.stderr


def test_the_reference_runs_with_its_model_swapped(training: Training, own_home: Path) -> None:
    """mistral-7b-qlora from end to end, with the tiny model in Mistral's place. `-rP` prints what was changed."""
    machine, places = LocalMachine(), paths({"GPU_SETUP_HOME": str(own_home)})
    small, reference = load_recipe("tiny"), load_recipe("mistral-7b-qlora")
    changed = {**small.config, "max_steps": 2, "sequence_len": 512}
    config = swap_model(reference.config, changed)
    for key, (before, after) in difference(reference.config, config).items():
        sys.stdout.write(f"{key}: {before!r} → {after!r}\n")
    assert set(difference(reference.config, config)) <= SWAPPABLE

    traits = Traits(title="the reference on a small model", model="tiny", must_fall=0.0)
    recipe = Recipe(reference.name, reference.path, reference.text, config, traits)
    base = ensure_model(small, training.environment, machine, places, silent)
    folder = new_run_folder(places.runs, recipe)
    log = train(RunSpec(recipe, base), folder, training.worker)
    assert [step.micro_batches for step in log.steps] == [4] * 2, "micro-batches accumulate"
    assert all(step.processed == 4 * 2 * 512 for step in log.steps), "samples are packed into whole sequences"
    printed = re.findall(r"'loss': '([\d.]+)'", (folder / "axolotl.log").read_text())
    assert [f"{step.loss:.4g}" for step in log.steps] == [f"{float(word):.4g}" for word in printed]
    held_out = held_out_file(traits, folder, own_data=False)
    assert held_out and held_out.name == "held-out-tokens.json", "the worker kept Axolotl's own validation split"
    seen = examine(base, folder, ExaminationSettings(held_out, tokens=8), training.worker)
    assert seen.rows == 10
    assert judge_smoke(log, seen, traits).passed


# What must not pass


def test_a_learning_rate_of_0_fails(own_home: Path, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, ("learning_rate: 0.003", "learning_rate: 0"), *SHORT)
    ended = tool(own_home, "smoke", "--recipe", str(recipe))
    assert (ended.rc, ended.data["verdict"]) == (1, "fail")
    valid(ended)
    found = criteria(ended.data["smoke"])
    assert [name for name, passed in found.items() if passed is False] == ["held-out-falls"]
    assert ended.data["smoke"]["held_out_before"] == ended.data["smoke"]["held_out_after"]


def test_a_missing_plugin_fails(training: Training, own_home: Path, tmp_path: Path) -> None:
    """Axolotl only logs it and trains on: a checkout whose plugin is missing must not look like a success."""
    checkout = tmp_path / "checkout"
    for room in ("gpu_setup", "harness", "provision", "containers", "checks", "machine"):
        if (ROOT / room).is_dir():
            shutil.copytree(ROOT / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)
    (checkout / "harness" / "worker" / "gpu_setup_worker" / "plugin.py").unlink()
    recipe = own_recipe(tmp_path, ("max_steps: 30", "max_steps: 2"))
    ended = tool(own_home, "bench", "--recipe", str(recipe), checkout=checkout)
    assert (ended.rc, ended.error["code"]) == (1, "train.no-worker-log")
    assert "wrote no log" in ended.error["what"] and "plugin" in ended.error["next"]
    (run,) = runs(own_home)
    assert (status(run)["status"], status(run)["problem"]) == ("failed", "train.no-worker-log")
    assert "Failed to load plugin" in (run / "axolotl.log").read_text()
    assert (run / "adapter" / "adapter_model.safetensors").exists(), "it did train"


def shuffled(kind: str, folder: Path) -> Path:
    """The samples with their answers dealt out anew (`pairs`), or the words of each answer in disorder (`words`)."""
    rows, chance = json.loads((SAMPLES / "house-style.json").read_text()), random.Random(1)
    answers = [row["output"] for row in rows]
    if kind == "pairs":
        chance.shuffle(answers)
    else:
        answers = [" ".join(chance.sample(words, len(words))) for words in (answer.split() for answer in answers)]
    file = folder / "shuffled.json"
    file.write_text(json.dumps([{**row, "output": answer} for row, answer in zip(rows, answers, strict=True)]))
    return file


# 40 samples are enough to tell
FEW = {"max_steps": 20, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize(
    ("kind", "criterion"),
    [("pairs", "keeps-pairing"), pytest.param("words", "held-out-falls", marks=pytest.mark.full)],
)
def test_shuffled_labels_fail(training: Training, own_home: Path, tmp_path: Path, kind: str, criterion: str) -> None:
    """The real model on samples whose answers are not theirs, judged by the true held-out questions."""
    machine, places = LocalMachine(), paths({"GPU_SETUP_HOME": str(own_home)})
    entry = {"path": str(shuffled(kind, tmp_path)), "ds_type": "json", "type": "alpaca"}
    job = Job(load_recipe("smollm2-135m-qlora"), training.stack, overrides={**FEW, "datasets": [entry]})
    ready = prepare(job, machine, places, silent)
    folder = train_in_new_folder(job, ready, Workplace(machine, places, silent))
    held_out = held_out_file(job.recipe.traits, folder, own_data=False)
    seen = examine(ready.base_model, folder, ExaminationSettings(held_out, tokens=4), training.worker)
    log = read_worker_log(folder / "worker.jsonl")
    assert log is not None
    smoke = judge_smoke(log, seen, job.recipe.traits)
    sys.stdout.write(f"{kind}: {seen.before} → {seen.after}\n")
    assert not smoke.passed
    assert criterion in failing(smoke)


def failing(smoke: Smoke) -> list[str]:
    return [criterion.id for criterion in smoke.criteria if criterion.passed is False]


def test_a_loss_that_is_not_finite_fails(own_home: Path, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, ("learning_rate: 0.003", "learning_rate: 1.0e+38"), ("max_steps: 30", "max_steps: 8"))
    ended = tool(own_home, "smoke", "--recipe", str(recipe))
    assert (ended.rc, ended.error["code"]) == (1, "train.loss-not-finite")
    assert "the loss is nan at step" in ended.error["what"]
    assert "learning_rate" in ended.error["next"] and str(runs(own_home)[0]) in ended.error["next"]
    (run,) = runs(own_home)
    assert status(run)["status"] == "failed"
    assert steps(run)[-1]["loss"] == "nan", "what was measured is kept"
    assert len(steps(run)) < 8, "it stopped there"


def test_an_adapter_that_answers_nothing_finite_is_judged(training: Training, tiny_run: Ended, tmp_path: Path) -> None:
    """The loss of the last step was finite, what the step made of the weights is not."""
    run = tmp_path / "run"
    shutil.copytree(folder_of(tiny_run), run)
    spoil = (
        "import sys; from safetensors.torch import load_file, save_file\n"
        "weights = load_file(sys.argv[1])\n"
        "save_file({name: value * float('nan') for name, value in weights.items()}, sys.argv[1])\n"
    )
    machine = LocalMachine()
    adapter = run / "adapter" / "adapter_model.safetensors"
    assert machine.run((str(training.environment.python), "-c", spoil, str(adapter)), timeout=60).ok
    recipe = load_recipe("tiny")
    held_out = held_out_file(recipe.traits, run, own_data=False)
    seen = examine(status(run)["base_model"], run, ExaminationSettings(held_out, tokens=4), training.worker)
    assert isinstance(seen, Examination) and seen.after is not None
    assert seen.after.held_out_loss is None
    log = read_worker_log(run / "worker.jsonl")
    assert log is not None and "held-out-falls" in failing(judge_smoke(log, seen, recipe.traits))


def test_a_recipe_that_axolotl_refuses(own_home: Path, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, ("adapter: qlora", "adapter: nonsense"))
    ended = tool(own_home, "bench", "--recipe", str(recipe))
    assert (ended.rc, ended.error["code"]) == (2, "train.recipe-invalid")
    assert "Adapter 'nonsense'" in ended.error["why"]
