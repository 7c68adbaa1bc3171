"""Where the tool's and the training environment are, and a home for a benchmark's own runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from result import CHECKOUT

sys.path.append(str(CHECKOUT))

from machine.paths import Paths, paths

LAUNCHER = CHECKOUT / "gpu-setup"


def tool_python(places: Paths) -> Path:
    """The interpreter of the tool's own environment, which the launcher names by its lock's checksum and size."""
    lock = (CHECKOUT / "gpu_setup" / "requirements.lock").read_bytes()
    digest = "-".join(subprocess.run(("cksum",), input=lock, capture_output=True, check=True).stdout.decode().split())
    found = sorted((places.data / "tool").glob(f"{digest}-3.*/bin/python"))
    if not found:
        sys.exit("The tool's own environment does not exist yet. Create it with: ./gpu-setup --version")
    return found[0]


def training_environment(places: Paths) -> dict[str, Any] | None:
    """The document of the newest training environment (`folder`, `torch`, `stack` …); None where none is built."""
    documents = sorted(places.environments.glob("*/environment.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(documents[-1].read_text(encoding="utf-8")) if documents else None


def my_places() -> Paths:
    return paths(os.environ)


def borrowed_home(folder: Path) -> Path:
    """A GPU_SETUP_HOME that shares environments and models with the caller's own, and keeps its runs to itself."""
    own = my_places()
    folder.mkdir(parents=True, exist_ok=True)
    for name, there in (("data", own.data), ("cache", own.cache)):
        there.mkdir(parents=True, exist_ok=True)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(there, target_is_directory=True)
    return folder


def add_common_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--work",
        type=Path,
        default=os.environ.get("GPU_SETUP_BENCH_WORK"),
        help="folder for what the benchmark installs and runs (default: GPU_SETUP_BENCH_WORK, else a temporary one)",
    )
    parser.add_argument("--out", type=Path, help="result file (default: benchmarks/results/NAME.json)")


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The given folder, which is kept; or a temporary one, removed at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="gpu-setup-bench-") as folder:
        yield Path(folder).resolve()
