"""What every test stands on: a home of its own, recorded machines, the tool as a person starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from machine.paths import paths
from tests.tool import Cli, start

if TYPE_CHECKING:
    from machine.recording import RecordedMachine

# taken before any test changes it
PERSONS = dict(os.environ)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders in the place of `mktemp`'s, which looks through all that there are for each new one."""
    place = tmp_path_factory.mktemp("homes")
    return (place / str(number) for number in count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for each test and the processes that it starts; no terminal settings of whoever runs the tests."""
    place = next(homes)
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("GPU_SETUP_HOME", str(place / "gpu-setup"))
    for name in (
        *(
            "XDG_DATA_HOME",
            "XDG_CACHE_HOME",
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "PYTHONPATH",
            "NO_COLOR",
            "FORCE_COLOR",
        ),
        *("GPU_SETUP_PYTHON", "GPU_SETUP_REBUILD", "GPU_SETUP_LAUNCHER", "COLUMNS"),
    ):
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture(scope="session")
def persons_environ() -> Mapping[str, str]:
    """The environment outside the tests: for lab tests that reuse what is expensive (a training environment)."""
    return PERSONS


@pytest.fixture
def machine() -> Callable[[str], RecordedMachine]:
    """`machine("rtx-3090-ti-fresh")`: a recorded machine that fails the test when asked what was not recorded."""
    from tests.recorded_machines import load

    return load


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`cli("doctor", "--json")`: the tool as a process, as the launcher starts it, in an empty folder."""

    def run(*arguments: str, cwd: Path | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
        return start(*arguments, cwd=cwd or tmp_path, **more)

    return run


def _guarded(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The person's own folders of the tool. The two kinds of environment in them are caches that tests may share."""
    own = paths(environ)
    return tuple(str(place) for place in (own.data, own.cache, own.state))


def _forbid_home(environ: Mapping[str, str]) -> None:
    """Make any write of a test below the person's own gpu-setup folders an error, whatever path led there."""
    guarded = _guarded(environ)
    shared = tuple(str(paths(environ).data / name) + os.sep for name in ("tool", "env"))

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = details
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"):
            path = details[0]
        else:
            return
        if isinstance(path, str) and path.startswith(guarded) and not (path + os.sep).startswith(shared):
            raise AssertionError(f"a test writes into the real home: {path}")

    sys.addaudithook(watch)


def _hear_signals() -> None:
    """Let the processes of the tests be interrupted though the tests were started with `nohup` or `&`.

    An ignored signal stays ignored in every child; one that is caught is back at its default there.
    """
    for sign in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(sign) is signal.SIG_IGN:
            signal.signal(sign, lambda _number, _frame: None)


def pytest_configure(config: pytest.Config) -> None:
    _hear_signals()
    _forbid_home(PERSONS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadscope` is by group (tests/lab_groups.py)."""
    from tests.lab_groups import Groups

    return Groups(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a lab test that skips has not shown what it is there for: it fails."""
    report = yield
    in_ci = PERSONS.get("CI") == "true"
    if in_ci and report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("lab"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: lab tests may not skip in CI: {report.longrepr}"
    return report
