"""Help and completion: complete, with examples, and without loading what they do not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.cli import COMMANDS
from tests.tool import ROOT, Cli

HEAVY = ("rich", "msgspec", "docker", "jinja2", "packaging", "yaml", "gpu_setup.commands", "checks", "harness")


def imported(*arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """Names of the modules that this command line imports."""
    result = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", str(ROOT / "gpu_setup" / "__main__.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",)])
def test_help_and_version_load_no_command(arguments: tuple[str, ...]) -> None:
    names = imported(*arguments)
    assert "click" in names
    assert [name for name in names if name.startswith(HEAVY)] == []


def test_completion_of_command_names_loads_no_command() -> None:
    names = imported(env={"_GPU_SETUP_COMPLETE": "bash_complete", "COMP_WORDS": "gpu-setup do", "COMP_CWORD": "1"})
    assert [name for name in names if name.startswith(HEAVY)] == []


def test_doctor_loads_no_terminal_library(cli: Cli) -> None:
    names = imported("doctor")
    assert "checks.runner" in names
    heavy = ("rich", "jinja2", "yaml", "asyncio", "urllib.request", "harness", "provision")
    # milliseconds each, for what the doctor does in another way
    heavy += ("tomllib", "pathlib", "json", "tempfile")
    assert [name for name in names if name.startswith(heavy)] == []


def test_every_command_is_in_the_help(cli: Cli) -> None:
    result = cli("--help")
    assert result.returncode == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)
    assert "Examples:" in result.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_a_command_has_examples(cli: Cli, name: str) -> None:
    result = cli(name, "--help")
    assert result.returncode == 0, result.stderr
    assert "Examples:" in result.stdout
    assert f"gpu-setup {name}" in result.stdout


def test_help_under_json_is_still_help(cli: Cli) -> None:
    assert cli("doctor", "--json", "--help").stdout.startswith("Usage: gpu-setup doctor")


def test_version_is_the_projects(cli: Cli) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cli("--version").stdout == f"gpu-setup {project['version']}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(cli: Cli, shell: str) -> None:
    script = cli("completion", shell).stdout
    assert f"_GPU_SETUP_COMPLETE={shell}_complete" in script


def test_completion_answers(cli: Cli) -> None:
    words = {"_GPU_SETUP_COMPLETE": "bash_complete", "COMP_WORDS": "gpu-setup do", "COMP_CWORD": "1"}
    assert cli(env=words).stdout == "plain,doctor\n"


def test_bash_accepts_the_completion_script(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "complete.sh").write_text(cli("completion", "bash").stdout)
    shown = subprocess.run(
        ["bash", "-c", "source complete.sh; complete -p gpu-setup"], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "_gpu_setup_completion" in shown.stdout
