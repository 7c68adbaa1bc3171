"""The tool with podman: its report, a container, and (in the full tests) the CPU image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from checks.facts.host import Docker
from containers.connection import connect
from containers.container import Container, Mount
from containers.engine import podman_engine
from containers.orphans import OWNER_LABEL, owner, remove_orphans
from tests.lab.containers.conftest import Site
from tests.lab.containers.engines import AtEngine, run_inside, small_archive
from tests.lab.containers.material import Distribution, unpacked
from tests.lab.containers.podman import Podman, podman_in
from tests.lab.training import Ended, tool

pytestmark = [pytest.mark.lab, pytest.mark.full]


@pytest.fixture(scope="module")
def podman(material: Path, like_here: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    root = unpacked(material / "podman", like_here.suite, ("podman", "conmon", "golang-github-containers-common"))
    with podman_in(tmp_path_factory.mktemp("podman"), root) as found:
        yield found


def asked(podman: Podman, home: Path, *arguments: str, timeout: float = 400) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in podman.environ.items():
            patch.setenv(name, value)
        return tool(home, *arguments, "--engine", "podman", timeout=timeout)


def test_what_it_can_and_cannot_do_is_said(podman: Podman, tmp_path: Path) -> None:
    ended = asked(podman, tmp_path, "image", "engine")
    assert ended.rc == 0, ended.document
    engine = ended.data["engine"]
    assert (engine["kind"], engine["program"]) == ("podman", "podman")
    assert engine["version"]
    assert any("CDI" in word for word in engine["can"]) and any("CDI" in word for word in engine["cannot"])


def test_the_tool_starts_a_container(podman: Podman, tmp_path: Path) -> None:
    archive = tmp_path / "small.tar"
    archive.write_bytes(small_archive())
    podman.checked("import", str(archive), "small:1")
    os.chown(tmp_path, 10001, 10001)
    container = Container(
        engine=podman_engine(Docker(kind="podman"), "", rootless=False), image="small:1", user="10001:10001",
        mounts=(Mount(tmp_path, writable=True),),
    )  # fmt: skip
    script = "id -u; touch mine; touch /x"
    result = run_inside(podman.environ, container, "/bin/sh", "-c", f"cd {tmp_path}; {script}")
    assert result.stdout == "10001\n", result.stderr
    assert "Read-only file system" in result.stderr
    assert (tmp_path / "mine").stat().st_uid == 10001
    assert podman.containers() == []


def test_what_a_killed_tool_left_is_removed(podman: Podman, tmp_path: Path) -> None:
    archive = tmp_path / "small.tar"
    archive.write_bytes(small_archive())
    podman.checked("import", str(archive), "small:1")
    words = ("run", "--detach", "--network", "none", "--label")
    nobody = f"{OWNER_LABEL}=1-0-{owner().rpartition('-')[2]}"
    podman.checked(*words, nobody, "--pull", "never", "small:1", "/bin/sleep", "100")
    assert len(podman.containers()) == 1
    engine = podman_engine(Docker(kind="podman"), "", rootless=False)
    with closing(connect(engine, AtEngine(podman.environ))) as client:
        assert remove_orphans(client, tmp_path) == 1
    assert podman.containers() == []


def test_a_failed_build_is_explained_and_leaves_nothing(podman: Podman, site: Site, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for file in site.wheels.glob("torch-*.whl"):
        (wheels / file.name).symlink_to(file)
    (wheels / "axolotl-0.19.0-py3-none-any.whl").write_bytes(b"no wheel")
    podman.checked("import", str(site.system), site.base)
    before = podman.images()
    words = ("image", "build", "--vendor", "cpu", "--base", site.base, "--offline", "--wheels", str(wheels))
    ended = asked(podman, tmp_path / "home", *words)
    assert (ended.rc, ended.error["code"]) == (4, "image.not-offered"), ended.document
    assert podman.containers() == []
    assert before <= podman.images()


def test_the_cpu_image_is_built_verified_and_run(podman: Podman, site: Site, tmp_path: Path) -> None:
    podman.checked("import", str(site.system), site.base)
    home = tmp_path / "home"
    words = ("image", "build", "--vendor", "cpu", "--base", site.base, "--offline", "--wheels", str(site.wheels))
    built = asked(podman, home, *words, timeout=1500)
    assert built.rc == 0, json.dumps(built.document)[-3000:]
    again = asked(podman, home, *words, timeout=1500)
    assert again.data["built"]["id"] == built.data["built"]["id"]
    proven = asked(podman, home, "image", "verify", "--vendor", "cpu")
    assert (proven.rc, proven.data["verdict"]) == (0, "pass"), proven.document
    assert podman.containers() == []
