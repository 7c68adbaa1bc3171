"""The training environment that the lab tests share, and one finished run of the smallest recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from harness.environment.base_model import ensure_model
from harness.environment.build import ensure_environment
from harness.recipe.loader import load_recipe
from machine.events import silent
from machine.local import LocalMachine
from tests.lab.training import SETTINGS_WITH_PASSWORDS, Ended, Training, cpu_stack, shared_paths, tool


@pytest.fixture(scope="session", autouse=True)
def threads_wait_asleep() -> Iterator[None]:
    """PyTorch's threads sleep while they wait for each other (the tool passes OMP_* on, also into images).

    They spin otherwise, and beside another process that computes, a step of the smallest recipe takes three times its
    CPU time and eight times as long. Threads and losses are the same.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "OMP_WAIT_POLICY" not in os.environ:
            patch.setenv("OMP_WAIT_POLICY", "passive")
        yield


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the whole session, all xdist workers together."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def training(session_folder: Path, persons_environ: Mapping[str, str]) -> Training:
    """The cpu stack's environment and the tiny model: built when nobody has yet. `ensure` itself locks."""
    machine, places = LocalMachine(), shared_paths(persons_environ, session_folder)
    environment = ensure_environment(cpu_stack(), machine, places, silent)
    ensure_model(load_recipe("tiny"), environment, machine, places, silent)
    return Training(places, cpu_stack(), environment)


@pytest.fixture
def own_home(training: Training, tmp_path: Path) -> Path:
    """A GPU_SETUP_HOME without runs, on the shared environment."""
    return training.home(tmp_path / "home")


def once(folder: Path, name: str, made: Callable[[], Ended]) -> Ended:
    """What one of the workers has made, for all of them."""
    kept = folder / f"{name}.json"
    with FileLock(folder / f"{name}.lock"):
        if not kept.exists():
            kept.write_bytes(msgspec.json.encode(made()))
    rc, document, stderr = json.loads(kept.read_text())
    return Ended(rc, document, stderr)


@pytest.fixture(scope="session")
def tiny_run(training: Training, session_folder: Path) -> Ended:
    """`gpu-setup smoke --recipe tiny --json`, once for all tests; its run's folder is data.folder.

    The arguments of all its processes are in arguments.txt of its home.
    """

    def made() -> Ended:
        folder = session_folder / "tiny-run"
        words = ("smoke", "--recipe", "tiny", "--out", str(folder / "out"))
        trace = ("strace", "--follow-forks", "--seccomp-bpf", "-qq", "-s", "100000", "--trace=execve", "--signal=none")
        home = training.home(folder)
        return tool(home, *words, before=(*trace, "-o", str(folder / "arguments.txt")), env=SETTINGS_WITH_PASSWORDS)

    return once(session_folder, "tiny-run", made)


@pytest.fixture(scope="session")
def tiny_again(training: Training, tiny_run: Ended, session_folder: Path) -> Ended:
    """A second run of the same recipe, compared with the first by `--baseline`, once for all tests."""

    def made() -> Ended:
        home = training.home(session_folder / "tiny-again")
        return tool(home, "bench", "--recipe", "tiny", "--steps", "30", "--baseline", tiny_run.data["folder"])

    return once(session_folder, "tiny-again", made)
