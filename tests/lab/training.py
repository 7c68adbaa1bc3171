"""The real training environment and real runs, for the lab tests: built once, shared by all tests and workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from checks.catalogue import Stack, catalogue
from harness.environment.build import Environment
from harness.environment.worker_process import WorkerContext
from harness.recipe.loader import load_recipe
from machine.events import silent
from machine.local import LocalMachine
from machine.paths import Paths, paths
from tests.tool import ROOT

# keys that only make a run of the tests shorter
SHORT = (("max_steps: 30", "max_steps: 4"),)

# in the variables of the shared run; its processes' arguments are traced
PASSWORD = "pw9Kx72LmQeR"
SETTINGS_WITH_PASSWORDS = {
    "HF_TOKEN": f"hf_{PASSWORD}abcdefghij",
    "HF_ENDPOINT": f"https://me:{PASSWORD}@hub.example",
    "https_proxy": f"http://me:{PASSWORD}@proxy.example:3128",
    "PIP_INDEX_URL": f"https://me:{PASSWORD}@pypi.example/simple",
    "WANDB_API_KEY": PASSWORD,
}


class Training(NamedTuple):
    """Where the shared environment and models lie, and the environment itself."""

    paths: Paths
    stack: Stack
    environment: Environment

    @property
    def worker(self) -> WorkerContext:
        return WorkerContext(self.environment, LocalMachine(), silent)

    def home(self, folder: Path) -> Path:
        """A GPU_SETUP_HOME of a test's own whose environment and models are the shared ones."""
        shared = ((self.paths.environments, folder / "data" / "env"), (self.paths.models, folder / "cache" / "models"))
        for target, place in shared:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)
        return folder


def cpu_stack() -> Stack:
    return catalogue().stack("cpu")


def shared_paths(environ: Mapping[str, str], session: Path) -> Paths:
    """GPU_SETUP_TEST_HOME keeps the environment from one session to the next; else it lives as long as the session."""
    return paths({"GPU_SETUP_HOME": environ.get("GPU_SETUP_TEST_HOME") or str(session / "training")})


class Ended(NamedTuple):
    """How a command of the tool ended: its exit code, its document, and what it said on the way."""

    rc: int
    document: dict[str, Any]
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        found = self.document["data"]
        assert isinstance(found, dict), self.document
        return found

    @property
    def error(self) -> dict[str, str]:
        (found,) = self.document["errors"]
        assert all(found[part] for part in ("code", "what", "next")), found
        assert isinstance(found, dict)
        return found


def command(*arguments: str, checkout: Path = ROOT) -> list[str]:
    return [sys.executable, "-I", str(checkout / "gpu_setup" / "__main__.py"), *arguments]


def tool(
    home: Path,
    *arguments: str,
    before: tuple[str, ...] = (),
    checkout: Path = ROOT,
    timeout: float = 400,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """`gpu-setup ARGUMENTS --json` to its end; `before`: what starts it (prlimit …); `env`: more variables."""
    result = subprocess.run(
        [*before, *command(*arguments, "--json", checkout=checkout)],
        env={**os.environ, "GPU_SETUP_HOME": str(home), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.stdout, result.stderr
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.returncode
    return Ended(result.returncode, document, result.stderr)


@contextlib.contextmanager
def started(home: Path, *arguments: str) -> Any:
    """The tool as a process of its own group, ended at the block's end whatever happens."""
    child = subprocess.Popen(
        command(*arguments),
        env={**os.environ, "GPU_SETUP_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        for process in trainings(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        child.communicate()


def trainings(home: Path) -> list[int]:
    """The processes that train or examine in a run's folder below `home`."""
    needle = str(home / "state" / "runs").encode()
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if needle in place.read_bytes():
                found.append(int(place.parent.name))
    return found


def trainer(home: Path) -> int:
    """The process of `axolotl train` itself, not those that it forks: it leads their group."""
    (found,) = (process for process in trainings(home) if os.getpgid(process) == process)
    return found


def runs(home: Path) -> list[Path]:
    return sorted(place for place in (home / "state" / "runs").glob("*") if place.is_dir())


def status(run: Path) -> dict[str, Any]:
    found = json.loads((run / "run.json").read_text())
    assert isinstance(found, dict)
    return found


def steps(run: Path) -> list[dict[str, Any]]:
    """The step records of a run; a last line that is cut is left out."""
    found = []
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        for line in (run / "worker.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "step":
                found.append(event)
    return found


def wait_for(what: Callable[[], object], seconds: float = 180.0) -> None:
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "it never came so far"
        time.sleep(0.05)


def at_step(home: Path, number: int) -> Callable[[], bool]:
    """Whether the newest run has finished that many steps."""
    return lambda: bool(runs(home)) and len(steps(runs(home)[-1])) >= number


def own_recipe(folder: Path, *changes: tuple[str, str], name: str = "tiny") -> Path:
    """A copy of a shipped recipe with some lines changed, as a person would make it."""
    text = load_recipe(name).text
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file
