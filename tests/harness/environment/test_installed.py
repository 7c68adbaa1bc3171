"""What lies in an environment's folder: absent, at another version, shortened, cut by a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.environment.lock_file import Lock
from harness.environment.packages import installed_packages, missing_packages, remove_broken

LOCK = Lock("x.txt", "", {"alpha": "1.0", "ruamel-yaml": "0.18.6"}, "digest")
BUILDS = ("2.13.0+cpu",)
Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "lib" / "python3.12" / "site-packages"
    folder.mkdir(parents=True)
    return folder


def install(site: Path, name: str, version: str, files: dict[str, str] | None = None) -> Path:
    """A package as pip leaves it: its files, and a RECORD with their sizes."""
    files = files or {f"{name}.py": "answer = 42\n"}
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    rows = ""
    for path, text in files.items():
        (site / path).parent.mkdir(exist_ok=True, parents=True)
        (site / path).write_text(text)
        rows += f'"{path}",sha256=x,{len(text)}\n'
    (info / "RECORD").write_text(rows + f"__pycache__/{name}.pyc,,\n{info.name}/RECORD,,\n")
    return info


def everything(site: Path) -> None:
    install(site, "alpha", "1.0")
    install(site, "ruamel.yaml", "0.18.6")
    install(site, "torch", "2.13.0+cpu")


def test_whole(site: Path, tmp_path: Path) -> None:
    everything(site)
    assert installed_packages(tmp_path) == ({"alpha": "1.0", "ruamel-yaml": "0.18.6", "torch": "2.13.0+cpu"}, set())
    assert missing_packages(tmp_path, LOCK, BUILDS) == set()


def test_nothing_there(tmp_path: Path) -> None:
    assert installed_packages(tmp_path) == ({}, set())
    assert missing_packages(tmp_path, LOCK, BUILDS) == {"alpha", "ruamel-yaml", "torch"}


def test_absent_and_at_another_version(site: Path, tmp_path: Path) -> None:
    install(site, "alpha", "1.1")
    install(site, "torch", "2.12.0+cpu")
    assert missing_packages(tmp_path, LOCK, BUILDS) == {"alpha", "ruamel-yaml", "torch"}


@pytest.mark.parametrize("wrong", ["2.13.0", "2.13.0+cu130", "2.13.0+rocm7.2", "2.13.0+cpu.1"])
def test_another_build_of_the_same_torch_is_not_the_stacks(site: Path, tmp_path: Path, wrong: str) -> None:
    everything(site)
    (site / "torch-2.13.0+cpu.dist-info").rename(site / f"torch-{wrong}.dist-info")
    assert "torch" in missing_packages(tmp_path, LOCK, BUILDS)


def test_a_package_that_nobody_asked_for_does_not_matter(site: Path, tmp_path: Path) -> None:
    everything(site)
    (install(site, "stranger", "3") / "RECORD").unlink()
    assert missing_packages(tmp_path, LOCK, BUILDS) == set()


@pytest.mark.parametrize(
    "harm",
    [
        lambda site: (site / "alpha.py").unlink(),
        lambda site: (site / "alpha.py").write_text("answer ="),
        lambda site: (site / "alpha.py").write_text(""),
        lambda site: (site / "alpha-1.0.dist-info" / "RECORD").unlink(),
        lambda site: (site / "alpha-1.0.dist-info" / "RECORD").write_text(""),
        lambda site: (site / "alpha-1.0.dist-info" / "RECORD").write_text("alpha.py,sha256=x,many\n"),
        lambda site: (site / "alpha-1.0.dist-info" / "RECORD").write_text("alpha.py\n"),
        lambda site: (site / "alpha-1.0.dist-info" / "RECORD").write_bytes(b"\xff\xfe\x00"),
        lambda site: install(site, "Alpha", "1.0"),
    ],
    ids=[
        *("file-deleted", "file-shortened", "file-emptied", "no-record", "empty-record"),
        *("size-is-no-number", "row-cut-short", "record-not-text", "two-entries"),
    ],
)
def test_a_broken_package_is_found(site: Path, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    everything(site)
    harm(site)
    assert missing_packages(tmp_path, LOCK, BUILDS) == {"alpha"}


def test_remains_of_a_killed_pip_are_cleared(site: Path, tmp_path: Path) -> None:
    everything(site)
    (site / "~lpha").mkdir()
    (site / "~lpha-1.0.dist-info").mkdir()
    remove_broken(tmp_path, {"alpha"})
    assert sorted(place.name for place in site.iterdir()) == [
        *("alpha.py", "ruamel.yaml-0.18.6.dist-info", "ruamel.yaml.py", "torch-2.13.0+cpu.dist-info", "torch.py"),
    ]
