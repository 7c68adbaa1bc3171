"""The house's own rules, checked by the tools that know them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_setup.extras import EXTRAS
from gpu_setup.pip_install import pins

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("gpu_setup", "harness", "containers", "provision", "checks", "machine")


def run(*argv: str) -> None:
    result = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": ""}
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]


def beside_python(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def test_style() -> None:
    run(beside_python("ruff"), "check", ".")


def test_format() -> None:
    run(beside_python("ruff"), "format", "--check", ".")


@pytest.mark.long
def test_types() -> None:
    run(sys.executable, "-m", "mypy")


def test_walls_between_the_rooms() -> None:
    run(beside_python("lint-imports"), "--no-cache")


def test_every_room_is_installed_and_typed() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(place.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for place in (ROOT / room).rglob("__init__.py")
        # the worker is data: it is imported only inside the training environment
        if "worker" not in place.parts
    }
    assert found == listed
    assert all((ROOT / room / "py.typed").exists() for room in ROOMS)


def test_a_folder_holds_at_most_20_modules() -> None:
    """So that a stranger finds the file to change by the names of folder and file."""
    folders = {
        place.parent
        for room in ("harness", "provision", "checks/rules")
        for place in (ROOT / room).rglob("__init__.py")
    }
    many = {str(place): len([*place.glob("[!_]*.py")]) for place in folders}
    assert all(count <= 20 for count in many.values()), {name: count for name, count in many.items() if count > 20}


def test_nothing_runs_where_the_tool_begins() -> None:
    source = (ROOT / "gpu_setup" / "__init__.py").read_text(encoding="utf-8")
    assert "import" not in source.replace('"""', "").partition("\n")[2]


def test_locks_hold_what_the_project_asks_for() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=!;\[ ]", each)[0].lower().replace("_", "-") for each in requirements}

    def locked(file: str) -> set[str]:
        text = (ROOT / "gpu_setup" / file).read_text(encoding="utf-8")
        return set(re.findall(r"^([a-z0-9.-]+)==\S+.*\\$", text, re.MULTILINE))

    wanted = names(project["project"]["dependencies"])
    extras = {name: names(asked) for name, asked in project["project"]["optional-dependencies"].items()}
    assert extras.pop("all") == {"gpu-setup"}
    assert set(extras) == set(EXTRAS)
    assert wanted <= locked("requirements.lock")
    assert all(wanted | asked <= locked(f"requirements-{name}.lock") for name, asked in extras.items())
    development = names(project["dependency-groups"]["dev"])
    assert wanted | development | set().union(*extras.values()) <= locked("requirements-dev.lock")


def test_locks_agree() -> None:
    """An extra's folder leaves out what is already installed, so every lock must pin the same versions."""
    folder = ROOT / "gpu_setup"
    everything = pins((folder / "requirements-dev.lock").read_text(encoding="utf-8"))
    locks = {name: pins((folder / f"requirements-{name}.lock").read_text(encoding="utf-8")) for name in EXTRAS}
    core = pins((folder / "requirements.lock").read_text(encoding="utf-8"))
    for lock in (core, *locks.values()):
        assert all(everything[pin] == lines for pin, lines in lock.items())
    assert all(core.items() <= lock.items() for lock in locks.values())
