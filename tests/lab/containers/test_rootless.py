"""A rootless Docker of a user without root: the tool's report, and what works."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.facts.docker import parse_info
from checks.facts.host import Docker
from containers.container import Container, Mount, container_user
from containers.engine import docker_engine
from machine.local import Session
from tests.lab.containers.conftest import Site
from tests.lab.containers.engines import Engine, run_inside, running_rootless, small_image
from tests.lab.containers.material import Distribution, unpacked
from tests.lab.containers.persons import as_person
from tests.lab.training import command

pytestmark = pytest.mark.lab

ALEX = 1234


@pytest.fixture(scope="module")
def rootless(material: Path, like_here: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    root = unpacked(material / "rootless", like_here.suite, ("rootlesskit", "uidmap"))
    with running_rootless(tmp_path_factory.mktemp("rootless"), root / "usr" / "bin", ALEX) as found:
        yield found


def as_alex(engine: Engine, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """`gpu-setup ARGUMENTS`, by the person whose engine it is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPU_SETUP_", "XDG_"))}
    return subprocess.run(
        as_person(ALEX, command(*arguments)),
        env={**kept, **engine.environ},
        cwd=engine.environ["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_it_is_known_as_rootless_and_its_limits_are_said(rootless: Engine) -> None:
    ended = as_alex(rootless, "image", "engine", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)["data"]["engine"]
    assert found["rootless"] is True
    assert any("/dev/kfd" in word for word in found["cannot"])
    assert any("build" in word for word in found["can"])


def test_root_inside_is_the_person_outside_and_may_nothing_more(rootless: Engine) -> None:
    small = small_image(rootless)
    info = parse_info(rootless.checked("info", "--format", "{{json .}}"))
    assert info is not None and "name=rootless" in (info.security or ())
    engine = docker_engine(Docker(kind="docker.io", answers=True, rootless=True), info.server_version, False, "default")
    work = Path(rootless.environ["HOME"]) / "work"
    work.mkdir()
    os.chown(work, ALEX, ALEX)
    user = container_user(Session(ALEX, "alex", (ALEX,), {}), engine)
    container = Container(engine=engine, image=small, user=user, mounts=(Mount(work, writable=True),))
    script = "id -u; touch mine; touch /x; cat /proc/self/status"
    result = run_inside(rootless.environ, container, "/bin/sh", "-c", f"cd {work}; {script}")
    assert result.stdout.startswith("0\n"), result.stderr
    assert (work / "mine").stat().st_uid == ALEX
    assert "Read-only file system" in result.stderr
    assert "CapEff:\t0000000000000000" in result.stdout
    assert rootless.containers() == []


@pytest.mark.full
def test_the_cpu_image_is_built_and_verified_rootless(rootless: Engine, site: Site) -> None:
    """The same image as root's engine builds, once more: minutes."""
    rootless.checked("import", str(site.system), site.base)
    for place in (site.wheels, *site.wheels.parents):
        place.chmod(place.stat().st_mode | 0o011)
    built = as_alex(
        rootless,
        *(
            "image",
            "build",
            "--vendor",
            "cpu",
            "--base",
            site.base,
            "--offline",
            "--wheels",
            str(site.wheels),
            "--json",
        ),
        timeout=1200,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-2000:]
    proven = as_alex(rootless, "image", "verify", "--vendor", "cpu", "--json", timeout=300)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    assert json.loads(proven.stdout)["data"]["verdict"] == "pass"
    assert rootless.containers() == []
