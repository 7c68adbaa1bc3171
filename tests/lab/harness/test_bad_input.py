"""Bad input and bad luck through the command line: each gives one clear error and its exit code, and keeps what was."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.recipe.loader import load_recipe
from tests.lab.disks import mounted
from tests.lab.training import at_step, own_recipe, runs, started, status, steps, tool, trainer, trainings, wait_for

pytestmark = pytest.mark.lab

LONG_LINE = b'[{"instruction": "a", "output": "' + b"x" * (50 << 20) + b'"}]'


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("base_model: x\nlearning_rate: [1\nmax_steps: 3\n", "recipe.broken", "line 3"),
        (load_recipe("tiny").text + "lerning_rate: 0.1\n", "recipe.unknown-key", "lerning_rate"),
        ("max_steps: 3\n", "recipe.no-model", "base_model"),
        (load_recipe("tiny").text.replace("house-style.json", "absent.json"), "recipe.no-data", "absent.json"),
    ],
)
def test_recipes_that_are_wrong(own_home: Path, tmp_path: Path, text: str, code: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    ended = tool(own_home, "smoke", "--recipe", str(tmp_path / "mine.yaml"))
    assert (ended.rc, ended.error["code"]) == (2, code)
    assert words in ended.error["what"]
    assert not runs(own_home)


def test_a_recipe_that_nobody_knows(own_home: Path) -> None:
    for command in ("smoke", "bench", "up"):
        ended = tool(own_home, command, "--recipe", "smollm")
        assert (ended.rc, ended.error["code"]) == (2, "recipe.unknown")
        assert "Did you mean smollm2-135m-qlora?" in ended.error["what"]


@pytest.mark.parametrize(
    ("content", "rc", "code"),
    [
        (b"", 1, "data.empty"),
        (b"instruction,output\n", 1, "data.not-json"),
        (b'[{"instruction": 3, "output": "b"}]', 1, "data.not-alpaca"),
        (b'[{"instruction": "Gr\xfc\xdfe", "output": "b"}]', 1, "data.encoding"),
        (LONG_LINE, 1, "data.too-long"),
        (None, 2, "data.unreadable"),
    ],
    ids=["empty", "not-json", "wrong-types", "not-utf8", "50-mb-line", "absent"],
)
def test_data_that_are_wrong(own_home: Path, tmp_path: Path, content: bytes | None, rc: int, code: str) -> None:
    if content is not None:
        (tmp_path / "mine.json").write_bytes(content)
    ended = tool(own_home, "smoke", "--recipe", "tiny", "--data", str(tmp_path / "mine.json"))
    assert (ended.rc, ended.error["code"]) == (rc, code)
    assert "mine.json" in ended.error["what"]
    assert len(ended.error["what"]) < 500
    assert not runs(own_home)


def test_a_recipe_for_a_gpu_without_one(own_home: Path) -> None:
    for command in ("smoke", "bench", "up"):
        ended = tool(own_home, command, "--recipe", "mistral-7b-qlora", *(["--yes"] if command == "up" else []))
        assert (ended.rc, ended.error["code"]) == (3, "recipe.needs-gpu")
        assert "no supported GPU" in ended.error["what"]
        assert "smollm2-135m-qlora" in ended.error["next"]


def test_the_worker_is_killed_while_it_trains(own_home: Path) -> None:
    with started(own_home, "bench", "--recipe", "tiny", "--json") as child:
        wait_for(at_step(own_home, 2))
        os.kill(trainer(own_home), signal.SIGKILL)
        out, _ = child.communicate(timeout=60)
        assert not trainings(own_home), "its helpers are gone as well"
    assert child.returncode == 4
    assert '"train.killed"' in out and "out-of-memory killer" in out
    (run,) = runs(own_home)
    assert (status(run)["status"], status(run)["problem"]) == ("failed", "train.killed")
    assert len(steps(run)) >= 2, "what was measured is kept"
    assert (run / "axolotl.log").exists() and (run / "config.yml").exists()


def test_ctrl_c_while_it_trains(own_home: Path) -> None:
    with started(own_home, "bench", "--recipe", "tiny") as child:
        wait_for(at_step(own_home, 1))
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 130
        assert "Interrupted. What was finished is kept." in said
        assert not trainings(own_home), "no process is left behind"
    (run,) = runs(own_home)
    assert status(run)["status"] == "interrupted"
    assert steps(run)


def test_too_little_memory(own_home: Path) -> None:
    """A real limit on the address space: the tool fits into it, PyTorch and Axolotl do not."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("prlimit (util-linux) sets the limit")
    ended = tool(own_home, "bench", "--recipe", "tiny", "--steps", "2", before=(prlimit, "--as=2000000000"))
    # whoever needs memory first meets the limit: the check of 4-bit products, a helper that prepares data, the training
    code = ended.error["code"].partition(".")[2]
    assert ended.rc == 4 and code in ("out-of-memory-host", "helper-killed")
    assert "memory" in ended.error["what"] and "limit" in ended.error["next"]
    assert "ulimit -v" in ended.error["next"]
    assert status(runs(own_home)[0])["status"] == "failed"


@pytest.fixture
def read_only(own_home: Path) -> Iterator[Path]:
    """A home on a file system that cannot be written any more; needs root."""
    with mounted(own_home / "state", "ro,size=1m"):
        yield own_home


def test_a_home_that_is_read_only(read_only: Path) -> None:
    ended = tool(read_only, "bench", "--recipe", "tiny")
    assert (ended.rc, ended.error["code"]) == (4, "run.unwritable")
    assert "Read-only file system" in ended.error["why"]
    assert "GPU_SETUP_HOME" in ended.error["next"]


@pytest.fixture
def small_disk(own_home: Path) -> Iterator[Path]:
    """A home with room for a few kilobytes of runs; needs root."""
    with mounted(own_home / "state", "size=64k"):
        yield own_home


def test_a_disk_that_fills_up_while_it_trains(small_disk: Path, tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, ("max_steps: 30", "max_steps: 2"))
    ended = tool(small_disk, "bench", "--recipe", str(recipe))
    assert ended.rc == 4
    assert ended.error["code"] in ("train.disk-full", "disk.unwritable")
    assert "GPU_SETUP_HOME" in ended.error["next"]


def test_a_place_for_the_report_that_cannot_be_written(own_home: Path) -> None:
    ended = tool(own_home, "bench", "--recipe", "tiny", "--out", "/proc/nowhere")
    assert (ended.rc, ended.error["code"]) == (4, "paths.unwritable")
    assert not runs(own_home), "told before anything long"
