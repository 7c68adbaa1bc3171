"""pip in a training environment: how it is called, its progress, and why it failed."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from harness.environment.packages import present_packages
from machine.causes import Cause, find_cause
from machine.errors import OutsideFailed
from machine.events import Emit, Event
from machine.local import Machine, Outcome

SETTINGS: Mapping[str, str] = {
    "PIP_USER": "0",
    "PYTHONNOUSERSITE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    # each package is pinned already; with constraints pip calls a missing one a conflict
    "PIP_CONSTRAINT": os.devnull,
}
NOTHING_FOUND = "No matching distribution found"
OTHER_HASH = "DO NOT MATCH THE HASHES"

_AGAIN = "Check the network; then run the same command again to continue."
# words of pip 23 to 26, each seen in a failed run; in order, the first that matches wins
_CAUSES = (
    Cause(
        r"No space left on device",
        "no-room",
        "the disk is full.",
        "Free some space, or set GPU_SETUP_HOME to a folder on a bigger disk, and run the same command again.",
    ),
    Cause(
        r"Read-only file system",
        "unwritable",
        "the folder cannot be written.",
        "Set GPU_SETUP_HOME to a folder that you can write, and run the same command again.",
    ),
    Cause(
        OTHER_HASH,
        "hash",
        "a downloaded package has another hash than the lock.",
        "Your package index serves another file than the public one; use the public index, or report this.",
    ),
    Cause(r"Temporary failure in name resolution", "network", "host names cannot be resolved.", _AGAIN),
    Cause(r"ConnectionResetError", "network", "the connection was lost.", _AGAIN),
    Cause(r"Connection broken|IncompleteRead", "network", "a download was interrupted.", _AGAIN),
    Cause(r"ReadTimeoutError", "network", "the package index stopped answering.", _AGAIN),
    Cause(r"ConnectTimeoutError", "network", "the package index does not answer.", _AGAIN),
    Cause(
        r"NewConnectionError|Failed to establish a new connection|after connection broken by",
        "network",
        "the package index cannot be reached.",
        _AGAIN,
    ),
    Cause(
        r"ensurepip",
        "venv",
        "python3-venv is not installed.",
        "Install it, for example: sudo apt install python3-venv",
    ),
    Cause(
        NOTHING_FOUND,
        "not-offered",
        "the package index has no such package for this Python and machine.",
        "Check which index pip uses (pip config list); a mirror may be out of date.",
    ),
)


class PipInstall:
    """pip's calls to build or repair one environment, with events for how many of the packages are installed."""

    def __init__(self, stage: str, folder: Path, wanted: set[str], machine: Machine, emit: Emit) -> None:
        self._stage, self._folder, self._wanted = stage, folder, wanted
        self._machine, self._emit = machine, emit
        self._python = str(folder / "bin" / "python")
        self._doing = "starting pip"
        self._collected = 0
        self._over = threading.Event()
        self._counter = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> PipInstall:
        self._counter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._counter.join()

    def install(self, *arguments: str, only_index: str | None = None) -> Outcome:
        """Run `pip install ARGUMENTS`; the outcome's stdout has pip's last lines.

        `only_index`: of all indexes that the person's settings name, only this one may be asked.
        """
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            words = line.strip()
            self._collected += words.startswith("Collecting ")
            if words.startswith(("Collecting ", "Downloading ", "Processing ", "Installing collected")):
                self._doing = words.split(" (from")[0].split(":")[0][:80]

        argv = (self._python, "-m", "pip", "install", "--progress-bar", "off", *arguments)
        # a variable replaces the files' value; an empty one would not
        env = SETTINGS if only_index is None else {**SETTINGS, "PIP_EXTRA_INDEX_URL": only_index}
        outcome = self._machine.stream(argv, on_line, env=env)
        return outcome._replace(stdout="\n".join(lines[-60:]))

    def install_checked(self, *arguments: str, only_index: str | None = None) -> Outcome:
        """`install`, once more where a file has another hash than the lock: before version 25, pip takes an incomplete
        download for a complete one.
        """
        outcome = self.install(*arguments, only_index=only_index)
        if OTHER_HASH not in outcome.stdout:
            return outcome
        words = "A download has another hash than the lock, or is incomplete; trying again."
        self._emit(Event("note", self._stage, words))
        return self.install(*arguments, only_index=only_index)

    def index_has(self, package: str, index: str) -> bool:
        """Whether the index has the package: one request without retries, so that a dead index costs only seconds."""
        argv = (self._python, "-m", "pip", "index", "versions", package, "--retries", "0", "--timeout", "10",
                "--index-url", index)  # fmt: skip
        return self._machine.run(argv, timeout=40, env=SETTINGS).ok

    def _count(self) -> None:
        """Emit changes twice a second, with the estimated time left."""
        begin = time.monotonic()
        last: tuple[int, str] | None = None
        while not self._over.wait(0.5):
            here = len(self._wanted & present_packages(self._folder))
            if (here, self._doing) != last:
                last = (here, self._doing)
                left = time_left(time.monotonic() - begin, self._collected, here, len(self._wanted))
                self._emit(
                    Event("progress", self._stage, self._doing, here, len(self._wanted), "packages installed", left)
                )


def time_left(spent: float, collected: int, in_place: int, wanted: int) -> float | None:
    """Seconds left at the pace so far; pip first collects all packages and then installs them.

    None before a tenth of both is done: the first package is the largest.
    """
    done, all_of_it = min(collected, wanted) + in_place, 2 * wanted
    return spent / done * (all_of_it - done) if 10 * done >= all_of_it else None


def raise_if_failed(outcome: Outcome, doing: str) -> None:
    """Raise OutsideFailed with the cause in plain words unless the process succeeded."""
    if outcome.ok:
        return
    text = f"{outcome.stdout}\n{outcome.stderr}"
    if cause := find_cause(_CAUSES, text):
        line_of_cause = next(line.strip() for line in reversed(text.splitlines()) if re.search(cause.pattern, line))
        what = f"Building the training environment failed while {doing}: {cause.why}"
        raise cause.kind(f"environment.{cause.code}", what, line_of_cause[-300:], cause.next)
    errors = [line.strip() for line in text.splitlines() if line.lstrip().startswith("ERROR:") or "Error" in line]
    ended = f"exit {outcome.rc}" if outcome.rc is not None else outcome.problem
    raise OutsideFailed(
        "environment.failed",
        f"Building the training environment failed while {doing} ({ended}).",
        (errors or [text.strip() or "It printed nothing."])[-1][-300:],
        "Installed packages are kept; run the same command again to continue.",
    )
