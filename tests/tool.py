"""The tool as a process, as the launcher starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def start(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run `gpu-setup ARGUMENTS` to the end, with nobody at the keyboard; `env` adds to this test's environment."""
    settings: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
        "text": True,
        "timeout": 60,
        **more,
    }
    return subprocess.run(
        [sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        **settings,
    )


def answered(capture: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and stdout of `gpu-setup ARGUMENTS` in this process; `capture` is capfd.

    A start costs more than most answers. Where many answers are looked at, a few of them as a process are enough.
    """
    from gpu_setup.cli import run

    capture.readouterr()
    code = run(arguments)
    return code, capture.readouterr().out
