"""The Dockerfile of every recorded machine equals the stored one and passes the linter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from containers.dockerfile import dockerfile
from containers.model import ImageVendor
from containers.spec import image_spec
from tests.containers.golden import FOLDER, cases, render
from tests.containers.hosts import host
from tests.subjects import for_each


@for_each(("name", "vendor"), cases())
def test_the_dockerfile_is_the_one_that_is_kept(name: str, vendor: ImageVendor) -> None:
    file, content = render(name, vendor)
    kept = FOLDER / file
    assert kept.is_file(), f"{file} is new: python -m tests.containers.golden writes it"
    assert content == kept.read_text(encoding="utf-8"), "look at the difference of: python -m tests.containers.golden"


@pytest.mark.long
def test_no_file_without_a_machine() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {render(*case)[0] for case in cases()}


@pytest.mark.long
def test_the_kept_files_and_those_on_another_base_pass_the_linter(tmp_path: Path) -> None:
    files = sorted(str(file) for file in FOLDER.glob("*.Dockerfile"))
    assert len(files) > 20
    for base, python in (("debian:bookworm", None), ("registry.example:5000/team/base:7", "3.12")):
        named = tmp_path / f"{len(files)}.Dockerfile"
        named.write_text(dockerfile(image_spec(host("no-gpu"), catalogue(), base=base, python=python), "1"))
        files.append(str(named))
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([str(hadolint), "--no-color", *files], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_linter_sees_what_is_wrong(tmp_path: Path) -> None:
    """A linter that is not there, or that looks at nothing, would pass everything."""
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM ubuntu\nRUN sudo apt-get install gcc\n", encoding="utf-8")
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run([str(hadolint), "--no-color", str(wrong)], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert "DL3006" in result.stdout
