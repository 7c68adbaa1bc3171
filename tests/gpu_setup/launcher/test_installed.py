"""The tool installed as an application: pip into an environment, pipx, uv. All three on an untidy machine."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.version import version
from tests.gpu_setup.launcher.checkouts import copy
from tests.tool import ROOT

pytestmark = pytest.mark.lab

WRONG = ("checks", "harness", "machine", "containers", "provision", "click", "msgspec")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # a copy: building writes beside the sources
    return copy(tmp_path_factory.mktemp("checkout") / "gpu-setup")


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """A folder with packages named like ours; each ends whoever imports it."""
    for name in WRONG:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    return tmp_path / "work"


def runs(untidy: Path, program: Path, *module: str) -> None:
    """The installed program answers from the untidy folder, with PYTHONPATH pointing at it."""
    for pythonpath in ({}, {"PYTHONPATH": "."}, {"PYTHONPATH": f"{untidy}:"}):
        result = subprocess.run(
            [program, *module, "doctor", "--json"],
            cwd=untidy,
            env={**os.environ, **pythonpath},
            capture_output=True,
            text=True,
        )
        assert result.returncode in (0, 1), result.stderr
        assert '"schema": "gpu-setup/doctor/1"' in result.stdout
        said = subprocess.run([program, *module, "--version"], cwd=untidy, capture_output=True, text=True)
        assert said.stdout == f"gpu-setup {version()}\n"


def done(*argv: str | Path, env: dict[str, str] | None = None) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert result.returncode == 0, result.stderr[-3000:]


def installs_what_is_missing(program: Path, tmp_path: Path, places: dict[str, str] | None = None) -> None:
    """Without the extra, the command says what to run; that runs, and then the command does."""
    check = (program, "data", "check", ROOT / "harness" / "dataset" / "samples" / "house-style.json", "--json")
    refused = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 3, refused.stderr
    (error,) = json.loads(refused.stdout)["errors"]
    assert error["code"] == "tool.extra-missing" and "[data]" in error["why"]
    command, _, rest = error["next"].partition(", then ")
    assert rest == "run the same command again."
    tools = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done(*shlex.split(command), env={**(places or {}), **tools})
    again = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_pip_into_an_environment(checkout: Path, untidy: Path, tmp_path: Path) -> None:
    done(sys.executable, "-I", "-m", "venv", tmp_path / "env")
    done(tmp_path / "env" / "bin" / "python", "-I", "-m", "pip", "install", "-q", checkout)
    installs_what_is_missing(tmp_path / "env" / "bin" / "gpu-setup", tmp_path)
    runs(untidy, tmp_path / "env" / "bin" / "gpu-setup")
    runs(untidy, tmp_path / "env" / "bin" / "python", "-m", "gpu_setup")
    (packages,) = (tmp_path / "env").glob("lib/python3.*/site-packages")
    assert not (packages / "tests").exists() and not (packages / "benchmarks").exists()
    assert list((packages / "gpu_setup" / "schemas").glob("*.json"))
    assert list((packages / "checks" / "data").glob("*.toml"))


def test_pipx(checkout: Path, untidy: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIPX_MAN_DIR": str(tmp_path)}
    done(sys.executable, "-I", "-m", "pipx", "install", "--python", sys.executable, checkout, env=places)
    runs(untidy, tmp_path / "bin" / "gpu-setup")
    installs_what_is_missing(tmp_path / "bin" / "gpu-setup", tmp_path, places)


def test_everything_at_once(checkout: Path, tmp_path: Path) -> None:
    """`[all]`, as the README says it."""
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIPX_MAN_DIR": str(tmp_path)}
    done(sys.executable, "-I", "-m", "pipx", "install", "--python", sys.executable, f"{checkout}[all]", env=places)
    (packages,) = (tmp_path / "pipx").glob("venvs/gpu-setup/lib/python3.*/site-packages")
    assert {"numpy", "rensa", "matplotlib"} <= {place.name for place in packages.iterdir()}


def test_uv_tool(checkout: Path, untidy: Path, tmp_path: Path) -> None:
    from uv import find_uv_bin

    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    done(find_uv_bin(), "tool", "install", "-q", "--python", sys.executable, checkout, env=places)
    runs(untidy, tmp_path / "bin" / "gpu-setup")
    installs_what_is_missing(tmp_path / "bin" / "gpu-setup", tmp_path, places)
