"""Builds that really fail: each is explained, leaves no container and no image, and can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.catalogue import catalogue
from tests.lab.containers.conftest import Site
from tests.lab.containers.engines import Engine, running
from tests.lab.containers.material import as_root, stand_in
from tests.lab.training import Ended, command, tool, wait_for

pytestmark = pytest.mark.lab
# a stand-in is not the locked torch
ACCEPTED = ("--accept-unverified", "--wheels")


@pytest.fixture
def untouched(site: Site, built: Ended) -> Iterator[None]:
    """Whatever the test does, it leaves the engine's images and containers as they are."""
    before = site.engine.images()
    yield
    assert site.engine.images() == before
    assert site.engine.containers() == []


def folder_of(tmp_path: Path, *extra: tuple[str, str]) -> Path:
    """A wheels folder that looks complete: torch and Axolotl are stand-ins that install at once."""
    stack = catalogue().stack("cpu")
    place = tmp_path / "wheels"
    for name, version in (("torch", stack.torch), ("axolotl", stack.axolotl), *extra):
        stand_in(place, name, version)
    return place


def failing(site: Site, wheels: Path, *more: str) -> Ended:
    words = ("image", "build", "--vendor", "cpu", "--base", site.base, "--offline", *ACCEPTED, str(wheels), *more)
    ended = site.tool(*words)
    assert ended.rc == 4, ended.document
    return ended


def test_a_package_that_is_gone(site: Site, untouched: None, tmp_path: Path) -> None:
    ended = failing(site, folder_of(tmp_path))
    assert ended.error["code"] == "image.not-offered"
    assert "accelerate" in ended.error["why"]


def test_a_package_that_is_not_the_locked_one(site: Site, untouched: None, tmp_path: Path) -> None:
    locked = [line.partition("==") for line in _lock() if line.startswith("accelerate==")]
    (name, _, version) = locked[0]
    ended = failing(site, folder_of(tmp_path, (name, version.split()[0])))
    assert ended.error["code"] == "image.hash"


def test_a_torch_that_is_not_the_locked_one(site: Site, untouched: None, tmp_path: Path) -> None:
    words = ("image", "build", "--vendor", "cpu", "--base", site.base, "--offline", "--wheels")
    ended = site.tool(*words, str(folder_of(tmp_path)))
    assert (ended.rc, ended.error["code"]) == (4, "image.hash")


def test_a_base_that_no_registry_gives(site: Site, untouched: None, tmp_path: Path) -> None:
    words = ("image", "build", "--vendor", "cpu", "--base", "localhost:1/none:1", "--python", "3.11")
    ended = site.tool(*words)
    assert (ended.rc, ended.error["code"]) == (4, "image.base-unreachable")


def test_a_base_with_another_python(site: Site, untouched: None, tmp_path: Path) -> None:
    site.engine.checked("tag", site.base, "company/base:1")
    try:
        wrong = "3.13" if "3.13" not in _python(site) else "3.12"
        words = ("image", "build", "--vendor", "cpu", "--base", "company/base:1", "--python", wrong, "--offline")
        ended = site.tool(*words, *ACCEPTED, str(folder_of(tmp_path)))
        assert (ended.rc, ended.error["code"]) == (4, "image.base-python")
    finally:
        site.engine.checked("rmi", "company/base:1")


def test_a_build_that_is_stopped(site: Site, built: Ended, untouched: None, tmp_path: Path) -> None:
    stack = catalogue().stack("cpu")
    wheels = folder_of(tmp_path)
    stand_in(wheels, "torch", stack.torch, files=15000)
    log = site.home / "cache" / "image" / f"{built.data['tag'].rpartition(':')[2]}.log"
    log.unlink(missing_ok=True)
    child = subprocess.Popen(
        command(
            *("image", "build", "--vendor", "cpu", "--base", site.base, "--offline", *ACCEPTED, str(wheels)),
        ),
        env={**os.environ, **site.engine.environ, "GPU_SETUP_HOME": str(site.home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: log.exists() and "Installing collected packages: torch" in log.read_text(), 60)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said


@pytest.fixture(scope="session")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose disk is small."""
    as_root()
    folder = tmp_path_factory.mktemp("cramped")
    data = folder / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(data)], check=True)
    try:
        with running(folder) as found:
            yield found
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=False)


def test_a_disk_that_is_too_small_is_refused_before_the_build(
    cramped: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cramped.environ.items():
        monkeypatch.setenv(name, value)
    ended = tool(tmp_path, "image", "build", "--vendor", "cpu")
    assert (ended.rc, ended.error["code"]) == (4, "image.no-room")
    assert cramped.images() == set()


def test_a_disk_that_becomes_full_is_explained(cramped: Engine, tmp_path: Path) -> None:
    from containers.errors import engine_problem
    from machine.local import Outcome
    from tests.lab.containers.engines import small_image

    small = small_image(cramped)
    before = cramped.images()
    (tmp_path / "big").write_bytes(os.urandom(80 << 20))
    (tmp_path / "Dockerfile").write_text(f"FROM {small}\nCOPY big /big\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_BUILDKIT", "1")
        result = cramped.docker("build", "--network", "none", str(tmp_path))
    assert result.returncode != 0
    outcome = Outcome((), result.returncode, result.stdout, result.stderr, 0.0)
    assert engine_problem(outcome, "The build stopped").code == "image.no-room"
    assert cramped.images() == before
    assert cramped.containers() == []


def _lock() -> list[str]:
    from containers.spec import lock_text

    return lock_text("common.txt").decode().splitlines()


def _python(site: Site) -> str:
    row = catalogue().base(site.base)
    assert row is not None
    return row.python
