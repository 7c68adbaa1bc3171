"""`gpu-setup train`: whatever cuts it, the same command goes on, with the result of a run that nothing cut."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gpu_setup.schema import read_schema
from harness.recipe.loader import SAMPLES
from tests.lab.training import (
    Ended,
    Training,
    command,
    own_recipe,
    runs,
    started,
    status,
    steps,
    tool,
    trainings,
    wait_for,
)
from tests.schemas import must_follow

pytestmark = pytest.mark.lab
STEPS = 16


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command's words: 40 rows, and a recipe with dropout, so that the random state counts in every step."""
    folder = tmp_path_factory.mktemp("work")
    rows = json.loads((SAMPLES / "house-style.json").read_text())[:40]
    (folder / "mine.json").write_text(json.dumps(rows))
    recipe = own_recipe(folder, ("lora_dropout: 0", "lora_dropout: 0.1"))
    return (
        "train", str(folder / "mine.json"), "--recipe", str(recipe), "--steps", str(STEPS), "--save-steps", "4",
        "--patience", "0", "--no-examine",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(work: tuple[str, ...], training: Training, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The same training, not cut."""
    ended = tool(training.home(tmp_path_factory.mktemp("whole")), *work)
    assert ended.rc == 0, ended.stderr
    return ended


def digest(ended: Ended) -> str:
    return hashlib.sha256((Path(ended.data["adapter"]) / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(folder: Path) -> list[float]:
    """The loss of each step, the last one where it was done twice."""
    return [loss for _, loss in sorted({step["step"]: step["loss"] for step in steps(folder)}.items())]


def saved(home: Path) -> list[int]:
    """The steps of the checkpoints that were whole at some time."""
    found = []
    for folder in runs(home):
        if (folder / "worker.jsonl").exists():
            for line in (folder / "worker.jsonl").read_text().splitlines():
                if line.startswith('{"event": "saved"'):
                    found.append(json.loads(line)["step"])
    return found


def same(one: Ended, other: Ended) -> None:
    assert losses(Path(one.data["folder"])) == losses(Path(other.data["folder"]))
    assert digest(one) == digest(other)


def test_the_answer(whole: Ended) -> None:
    must_follow(whole.document, "train")
    data = whole.data
    assert (data["status"], data["rows"], data["steps"], data["planned_steps"]) == ("done", 40, STEPS, STEPS)
    assert data["loss_last"] < data["loss_first"] and data["resumed_from"] == []
    assert [each["step"] for each in data["evaluations"]] == [4, 8, 12, 16]
    folder = Path(data["folder"])
    assert not list((folder / "adapter").glob("checkpoint-*")), "a finished run needs no checkpoints"
    card = (folder / "adapter" / "README.md").read_text()
    assert data["data_sha256"] in card and "40 rows" in card and "lora_dropout: 0.1" in card
    assert "mine.json" not in card and str(folder) not in card


def test_killed_with_everything_and_resumed(whole: Ended, work: tuple[str, ...], own_home: Path) -> None:
    """SIGKILL from outside to the tool and the training, and the newest checkpoint torn as a power cut tears it."""
    with started(own_home, *work) as child:
        wait_for(lambda: len(saved(own_home)) >= 2)
        for process in [child.pid, *trainings(own_home)]:
            os.kill(process, signal.SIGKILL)
        child.wait()
    (cut,) = runs(own_home)
    done = saved(own_home)
    assert done[-1] < STEPS, "it was cut in the middle"
    torn = cut / "adapter" / f"checkpoint-{done[-1]}" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-1000])

    again = tool(own_home, *work)
    assert again.rc == 0, again.stderr
    assert f"Resuming after step {done[-2]}" in again.stderr
    assert (again.data["folder"], again.data["resumed_from"]) == (str(cut), [done[-2]])
    same(again, whole)
    third = tool(own_home, *work)
    assert third.rc == 0 and third.data == again.data
    assert "already done" in third.stderr and "Training tiny" not in third.stderr


@pytest.mark.full
def test_ctrl_c_makes_a_checkpoint_and_resume_needs_nothing_else(
    whole: Ended, work: tuple[str, ...], own_home: Path
) -> None:
    with started(own_home, *work) as child:
        wait_for(lambda: runs(own_home) and len(steps(runs(own_home)[-1])) >= 5)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
        assert child.returncode == 130, said
        assert not trainings(own_home)
    (cut,) = runs(own_home)
    at = saved(own_home)[-1]
    assert f"Stopped after step {at}, as requested." in said and f"The checkpoint of step {at} is kept." in said
    assert f"gpu-setup train --resume {cut}" in said
    assert status(cut)["status"] == "interrupted"
    tried = tool(own_home, "try", str(cut))
    assert (tried.rc, tried.error["code"]) == (2, "run.unfinished")
    assert f"gpu-setup train --resume {cut}" in tried.error["next"]

    again = tool(own_home, "train", "--resume", str(cut), "--no-examine")
    assert again.rc == 0, again.stderr
    assert again.data["resumed_from"] == [at]
    same(again, whole)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.full), pytest.param(3, marks=pytest.mark.full)])
def test_ctrl_c_at_any_moment(whole: Ended, work: tuple[str, ...], own_home: Path, seed: int) -> None:
    """Twice at random moments, once as a second Ctrl-C right after the first; then to its end."""
    chance = random.Random(seed)
    for number in range(2):
        with started(own_home, *work) as child:
            time.sleep(chance.uniform(0.2, 30.0))
            if child.poll() is not None:
                break
            child.send_signal(signal.SIGINT)
            if number == 1:
                time.sleep(chance.uniform(0.0, 0.5))
                child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=120)
            assert child.returncode in (130, 0), said
            assert "Traceback" not in said, said
            assert not trainings(own_home), "no process is left behind"
            for run in runs(own_home):
                assert status(run)["status"] in ("interrupted", "done") if (run / "run.json").exists() else True
    again = tool(own_home, *work)
    assert again.rc == 0, again.stderr
    same(again, whole)


@pytest.mark.full
def test_an_early_stop_keeps_the_best_weights_also_when_interrupted(
    work: tuple[str, ...], own_home: Path, tmp_path: Path
) -> None:
    """A rate far too high: the held-out loss rises at once. The run is cut after its best step and gone on with."""
    recipe = own_recipe(
        tmp_path, ("learning_rate: 0.003", "learning_rate: 0.05"), ("lr_scheduler: cosine", "lr_scheduler: constant")
    )
    words = [*work[:3], str(recipe), "--steps", "40", "--save-steps", "2", "--patience", "3", "--no-examine"]
    first = tool(own_home, *words)
    assert first.rc == 0, first.stderr
    assert first.data["stopped_early"] is True and first.data["steps"] < 40
    seen = {each["step"]: each["held_out_loss"] for each in first.data["evaluations"]}
    best = first.data["best_step"]
    assert seen[best] == min(seen.values()) and first.data["steps"] == best + 6
    assert any(f"weights of step {best}" in note for note in first.data["notes"])

    with started(own_home, *words, "--fresh") as child:
        wait_for(lambda: len(runs(own_home)) == 2 and len(steps(runs(own_home)[-1])) >= best + 3)
        for process in [child.pid, *trainings(own_home)]:
            os.kill(process, signal.SIGKILL)
        child.wait()
    again = tool(own_home, *words)
    assert again.rc == 0, again.stderr
    assert again.data["resumed_from"] and again.data["folder"] == str(runs(own_home)[-1])
    assert (again.data["steps"], again.data["best_step"]) == (first.data["steps"], best)
    same(again, first)


def test_data_that_must_be_corrected_first(work: tuple[str, ...], own_home: Path, tmp_path: Path) -> None:
    key = "ghp_" + "R8q2LmT5vX9zKc3WbN7yPd4JhG6sFa1QeUoZ"
    rows = json.loads(Path(work[1]).read_text())
    file = tmp_path / "leaky.json"
    file.write_text(json.dumps([*rows, {"instruction": "What is the token?", "input": "", "output": f"It is {key}."}]))
    ended = tool(own_home, "train", str(file), *work[2:])
    assert (ended.rc, ended.error["code"]) == (1, "data.errors")
    assert key not in json.dumps(ended.document)
    assert not runs(own_home), "told before anything long"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for systemd: `systemd-run` starts the command in a session of its own with nothing but the settings
    that it was given, as the real one does. A stub: the real one is not the service manager here.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    script = f"""#!{sys.executable}
import os, shlex, subprocess, sys
words, settings, after = sys.argv[1:], {{}}, ""
while words[0].startswith("--"):
    word = words.pop(0)
    if word.startswith("--property=EnvironmentFile="):
        lines = shlex.split(open(word.split("=", 2)[2]).read())
        settings = dict(line.split("=", 1) for line in lines)
    if word.startswith("--property=ExecStopPost="):
        after = word.split("=", 2)[2]
    if word.startswith("--working-directory="):
        os.chdir(word.partition("=")[2])
child = subprocess.Popen(words, env=settings, stdin=subprocess.DEVNULL, stdout=open({str(tmp_path / "journal")!r}, "w"),
                         stderr=subprocess.STDOUT, start_new_session=True)
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
subprocess.Popen(["sh", "-c", f"tail --pid={{child.pid}} --follow /dev/null; {{after}}"], start_new_session=True,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
    for name, text in {
        "systemd-run": script,
        "systemctl": "#!/bin/sh\necho running\n",
        "loginctl": "#!/bin/sh\necho no\n",
        "systemd-inhibit": '#!/bin/sh\nwhile [ "${1#--}" != "$1" ]; do shift; done\n[ $# = 0 ] || exec "$@"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    yield tmp_path
    if (tmp_path / "pid").exists():
        subprocess.run(["kill", "-KILL", (tmp_path / "pid").read_text()], capture_output=True)


@pytest.mark.full
def test_in_the_background(work: tuple[str, ...], own_home: Path, manager: Path) -> None:
    """The unit trains on after its caller is gone; its stop makes a checkpoint."""
    answer: dict[str, Any] = tool(own_home, *work, "--background").data
    jsonschema.validate(answer, json.loads(read_schema("train"))["properties"]["data"] | {"$defs": _definitions()})
    assert answer["status"] == "started" and "journalctl" in answer["background"]["follow"]
    pid = int((manager / "pid").read_text())
    folder = Path(answer["folder"])
    wait_for(lambda: len(steps(folder)) >= 5)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not trainings(own_home), 60)
    journal = manager / "journal"
    wait_for(lambda: "gpu-setup train --resume" in journal.read_text(), 30)
    assert "The checkpoint of step" in journal.read_text()
    assert status(folder)["status"] == "interrupted"
    wait_for(lambda: not list((own_home / "state/background").iterdir()), 10)


def _definitions() -> dict[str, Any]:
    found = json.loads(read_schema("train"))["$defs"]
    assert isinstance(found, dict)
    return found


def test_without_a_service_manager_it_is_said(work: tuple[str, ...], own_home: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    result = subprocess.run(
        [*command(*work, "--background", "--json")],
        env={**os.environ, "GPU_SETUP_HOME": str(own_home), "PATH": str(nothing)},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    (error,) = json.loads(result.stdout)["errors"]
    assert (result.returncode, error["code"]) == (3, "train.no-manager")
    assert "nohup" in error["next"]
