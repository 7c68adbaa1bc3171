"""The untidy machine: what is on sys.path before the first room is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.entry import tidy
from gpu_setup.environment_repair import is_damaged
from tests.gpu_setup.launcher.checkouts import copy

ROOT = Path(__file__).resolve().parents[2]


def test_pythonpath_and_the_working_directory_are_dropped() -> None:
    path = ["/home/me/work", "/opt/stuff", "/usr/lib/python311.zip", "/usr/lib/python3.11", "/venv/lib/python3.11/site"]
    assert tidy(path, "/opt/stuff:", "/home/me/work", ("/venv", "/usr")) == path[2:]


def test_the_empty_entry_is_the_working_directory() -> None:
    assert tidy(["", "/usr/lib/python3.11"], "", "/home/me", ("/usr",)) == ["/usr/lib/python3.11"]


def test_the_environments_own_packages_are_kept_even_when_pythonpath_names_them() -> None:
    own = "/venv/lib/python3.11/site-packages"
    assert tidy([own], own, "/home/me", ("/venv", "/usr")) == [own]


def test_a_working_directory_that_is_gone() -> None:
    assert tidy(["", "/usr/lib/python3.11"], "", "", ("/usr",)) == ["/usr/lib/python3.11"]


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """A folder with packages named like the rooms and like what the tool depends on; each ends whoever imports it."""
    folder = tmp_path / "my experiments"
    for name in ("checks", "harness", "machine", "containers", "provision", "click", "rich", "msgspec"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name} was imported')\n")
    return folder


@pytest.mark.parametrize("pythonpath", [None, ".", "{untidy}:.", ""])
def test_launcher_start_ignores_the_callers_folders(untidy: Path, pythonpath: str | None) -> None:
    environ = dict(os.environ)
    if pythonpath is not None:
        environ["PYTHONPATH"] = pythonpath.format(untidy=untidy)
    result = subprocess.run(
        [sys.executable, "-I", str(ROOT / "gpu_setup" / "__main__.py"), "doctor", "--json"],
        cwd=untidy,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, 1), result.stderr
    assert '"gpu-setup/doctor/1"' in result.stdout


def test_python_m_from_the_checkout(untidy: Path) -> None:
    # the checkout is on the path by name, as an editable install would put it; the caller's folder comes first
    result = subprocess.run(
        [sys.executable, "-m", "gpu_setup", "doctor", "--list"],
        cwd=untidy,
        env={**os.environ, "PYTHONPATH": f".:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "gpu.present" in result.stdout


def test_python_m_in_the_checkout_itself() -> None:
    result = subprocess.run([sys.executable, "-m", "gpu_setup", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def raised(code: str) -> BaseException:
    try:
        exec(code, {})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("code", "is_damage"),
    [
        ("import a_package_that_is_gone", True),
        ("from click import nothing_like_it", True),
        ("import click; click.nothing_like_it", True),
        ("import gpu_setup; gpu_setup.nothing_like_it", False),
        ("from gpu_setup import nothing_like_it", False),
        ("None.nothing_like_it", False),
        ("1 / 0", False),
    ],
)
def test_which_errors_show_a_damaged_environment(code: str, is_damage: bool) -> None:
    assert is_damaged(raised(code)) is is_damage


def test_an_incomplete_compiled_file_is_removed_and_the_command_runs(tmp_path: Path) -> None:
    """A disk that was full for a moment must not stop every later start (python/cpython#126606)."""
    tool = copy(tmp_path / "tool")
    start = [sys.executable, "-I", str(tool / "gpu_setup" / "__main__.py"), "schema"]
    first = subprocess.run(start, capture_output=True, text=True)
    assert first.returncode == 0
    for module in ("commands/__pycache__/schema", "__pycache__/terminal"):
        (compiled,) = (tool / "gpu_setup").glob(f"{module}.*.pyc")
        compiled.write_bytes(compiled.read_bytes()[:200])
        again = subprocess.run(start, capture_output=True, text=True)
        # click ends the line of the question that it takes the error for
        assert (again.returncode, again.stdout, again.stderr.strip()) == (0, first.stdout, "")
        assert not compiled.exists()
