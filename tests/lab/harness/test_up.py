"""`gpu-setup up` on the CPU: cut off, gone on with, then nothing left to do; and what looks at its run afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.lab.training import (
    Ended,
    at_step,
    command,
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


def test_up_resumes_where_it_was_killed_and_does_nothing_twice(own_home: Path, tiny_run: Ended) -> None:
    with started(own_home, "up", "--yes", "--recipe", "tiny") as child:
        wait_for(at_step(own_home, 2))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        wait_for(lambda: not trainings(own_home), 20)
        # the training has a group of its own: it ends because the tool is gone
    (cut,) = runs(own_home)
    assert status(cut)["status"] == "running", "nobody could say otherwise"

    second = tool(own_home, "up", "--yes", "--recipe", "tiny")
    # a busy machine spreads the steps, and then the speed does not stand; the learning does
    assert second.rc == 0 and second.data["verdict"] in ("pass", "inconclusive")
    assert second.data["smoke"]["passed"]
    assert second.data["measurements"]["matmul_ceiling_tflops"]["median"] > 0
    must_follow(second.document, "report")
    assert status(cut)["status"] == "interrupted"
    assert "Training environment exists and is intact" in second.stderr
    assert "Making the base model" not in second.stderr
    assert "Building" not in second.stderr and "Repairing" not in second.stderr
    done = runs(own_home)[-1]
    assert done != cut
    assert [step["loss"] for step in steps(done)] == [step["loss"] for step in steps(Path(tiny_run.data["folder"]))], (
        "two runs at one seed are identical"
    )

    third = tool(own_home, "up", "--yes", "--recipe", "tiny")
    assert third.rc == 0
    assert "already done with the same inputs" in third.stderr
    assert "Training tiny with Axolotl" not in third.stderr and "Examining the base model" not in third.stderr
    assert runs(own_home) == [cut, done]
    assert third.data["measurements"] == second.data["measurements"]
    assert third.data["answers"] == second.data["answers"]


def test_up_reports_its_stages_to_a_person(tiny_run: Ended) -> None:
    """The stages on stderr, the report on stdout, and where it lies."""
    home = Path(tiny_run.data["folder"]).parents[2]
    told = subprocess.run(
        command("up", "--yes", "--recipe", "tiny"),
        env={**os.environ, "GPU_SETUP_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert "already done with the same inputs" in told.stderr
    places = [told.stderr.index(f"── {stage} ") for stage in ("Inspect", "Plan", "Train")]
    assert places == sorted(places)
    assert "no supported GPU" in told.stderr
    assert told.stdout.startswith("PASS  tiny: ")
    assert "report.json" in told.stdout and "report.html" in told.stdout
    assert max(len(line) for line in told.stdout.split("Report:")[0].splitlines()) <= 80


def test_try_asks_before_and_after(own_home: Path, tiny_run: Ended) -> None:
    said = tool(own_home, "try", tiny_run.data["folder"], "--prompt", "How do I oil a chain?", "--tokens", "8")
    assert said.rc == 0
    must_follow(said.document, "try")
    (answer,) = said.data["answers"]
    assert answer["question"] == "How do I oil a chain?"
    assert answer["before"] != answer["after"]


def test_try_and_report_on_what_is_no_run(own_home: Path, tmp_path: Path, tiny_run: Ended) -> None:
    ended = tool(own_home, "try", str(tmp_path))
    assert (ended.rc, ended.error["code"]) == (2, "run.none")
    ended = tool(own_home, "report", str(tmp_path))
    assert (ended.rc, ended.error["code"]) == (2, "report.unreadable")
    ended = tool(own_home, "report")
    assert (ended.rc, ended.error["code"]) == (2, "report.none")
    cut = tmp_path / "cut"
    cut.mkdir()
    document = status(Path(tiny_run.data["folder"]))
    (cut / "run.json").write_text(json.dumps({**document, "status": "interrupted"}))
    ended = tool(own_home, "try", str(cut))
    assert (ended.rc, ended.error["code"]) == (2, "run.unfinished")
    assert "interrupted" in ended.error["what"]


def test_the_environment_is_reported(own_home: Path) -> None:
    ended = tool(own_home, "environment")
    assert ended.rc == 0
    must_follow(ended.document, "environment")
    assert ended.data["stack"] == "cpu"
    assert "intact" in ended.stderr
