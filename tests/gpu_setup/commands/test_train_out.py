"""`train --out DIR` of a folder that has files: refused before anything in it is touched, whatever runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.recipe.loader import SAMPLES
from tests.tool import answered


def states(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Owner, mode and time of the last change of everything in the folder: a changed owner changes the time as well."""
    found = {}
    for place in (folder, *folder.rglob("*")):
        stat = place.lstat()
        found[str(place)] = (stat.st_uid, stat.st_gid, stat.st_mode, stat.st_ctime_ns)
    return found


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A person's folder: a file, a link to a file outside, and a second name of a file outside."""
    folder, outside = tmp_path / "full", tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    outside.write_text("not ours")
    (folder / "deep" / "file").write_text("mine")
    (folder / "link").symlink_to(outside)
    os.link(outside, folder / "name")
    return folder


@pytest.mark.parametrize("runtime", ["image", "venv"])
@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_a_folder_with_files_is_refused_first(
    runtime: str, fresh: tuple[str, ...], full: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = states(full.parent)
    data = str(SAMPLES / "house-style.json")
    code, out = answered(capfd, "train", data, "--json", "--runtime", runtime, "--out", str(full), *fresh)
    (error,) = json.loads(out)["errors"]
    assert (code, error["code"]) == (3, "train.out-taken")
    assert states(full.parent) == before


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/lib", "/proc", "."])
def test_a_system_folder_or_this_one_is_refused_first(
    folder: str, capfd: pytest.CaptureFixture[str], full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full)
    data = str(SAMPLES / "house-style.json")
    code, out = answered(capfd, "train", data, "--json", "--runtime", "image", "--out", folder)
    (error,) = json.loads(out)["errors"]
    assert (code, error["code"]) == (3, "train.out-taken")
