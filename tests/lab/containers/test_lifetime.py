"""Containers end with their command in every case, and leave nothing; a missing engine is explained."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from checks.facts.host import Docker
from containers.connection import connect
from containers.container import Container
from containers.engine import docker_engine
from containers.run import started as started_container
from harness.jobs.image_runtime import INSIDE
from harness.recipe.loader import SAMPLES
from tests.lab.containers.argv_tracer import arguments_of_processes
from tests.lab.containers.conftest import Site, copy_models
from tests.lab.containers.engines import AtEngine
from tests.lab.containers.persons import as_person
from tests.lab.training import Ended, Training, at_step, command, runs, status, tool, wait_for

pytestmark = pytest.mark.lab

ALEX = 1234


def started(
    site: Site,
    home: Path,
    *words: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("image", "run", "--vendor", "cpu", *words),
        env={**os.environ, **site.engine.environ, "GPU_SETUP_HOME": str(home)},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=home,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    place = tmp_path / "own"
    place.mkdir()
    return place


def ended(child: subprocess.Popen[str]) -> int:
    child.communicate(timeout=60)
    return child.returncode


def running_count(site: Site, number: int) -> Callable[[], bool]:
    return lambda: len(site.engine.containers()) == number


PLANTED = {
    "HF_TOKEN": "hf_very_secret",
    "HF_ENDPOINT": "https://me:endpoint_secret@127.0.0.1:1",
    "https_proxy": "http://me:proxy_secret@127.0.0.1:1",
    "ALL_PROXY": "http://me:all_secret@127.0.0.1:1",
}


def with_secrets(texts: Iterable[str]) -> list[str]:
    """Those of the texts that hold a planted password."""
    passwords = ("hf_very_secret", "endpoint_secret", "proxy_secret", "all_secret")
    return [text for text in texts if any(word in text for word in passwords)]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stopping_the_tool_stops_the_container(site: Site, built: Ended, own: Path, sign: signal.Signals) -> None:
    before = site.engine.containers()
    child = started(site, own, "--", "sleep", "300")
    try:
        wait_for(running_count(site, len(before) + 1), 30)
        child.send_signal(sign)
        child.communicate(timeout=30)
        assert child.returncode == 130
        assert set(site.engine.containers()) <= set(before)
    finally:
        child.kill()


def test_ctrl_c_in_a_training_stops_its_container(site: Site, built: Ended, training: Training, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_models(training, home)
    environ = {**os.environ, **site.engine.environ, **PLANTED, "GPU_SETUP_HOME": str(home)}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "rows.json").write_bytes((SAMPLES / "house-style.json").read_bytes())
    (mine / "token").write_text("hf_secret")
    child = subprocess.Popen(
        # a relative path: it means the same inside
        command("smoke", "--recipe", "tiny", "--runtime", "image", "--data", "../mine/rows.json"),
        env=environ,
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        with arguments_of_processes() as arguments:
            wait_for(at_step(home, 2), 120)
        (container,) = site.engine.containers()
        text = site.engine.checked("inspect", container)
        assert any("axolotl" in each for each in arguments)
        assert with_secrets((*arguments, text)) == []
        (inspected,) = json.loads(text)
        mounted = [each["Source"] for each in inspected["HostConfig"]["Mounts"]]
        assert [each for each in mounted if Path(each).is_relative_to(mine)] == [str(mine / "rows.json")]
        assert not [each for each in mounted if mine.is_relative_to(each)]
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 130, said
        assert site.engine.containers() == []
        (run,) = runs(home)
        assert status(run)["status"] == "interrupted"
    finally:
        child.kill()


def test_what_a_killed_tool_leaves_the_next_one_removes(site: Site, built: Ended, own: Path) -> None:
    child = started(site, own, "--", "sleep", "300")
    wait_for(running_count(site, 1), 30)
    child.kill()
    # to the end of its output: nothing lives on that holds it
    child.communicate(timeout=10)
    (left,) = site.engine.containers()
    assert ended(started(site, own, "--", "true")) == 0
    assert left not in site.engine.containers()
    assert site.engine.containers() == []


def test_a_training_in_a_container_ends_with_a_killed_tool(site: Site, built: Ended) -> None:
    """The kernel closes a killed process's connections; nobody has to come by and clean up."""
    found = docker_engine(Docker(kind="docker.io", answers=True), "20.10", False, "default")
    container = Container(engine=found, image=built.data["tag"], user=None, env=INSIDE)
    script = (
        "import time; from gpu_setup_worker.parent import end_with_parent; end_with_parent(); print(1); time.sleep(300)"
    )
    with (
        closing(connect(found, AtEngine(site.engine.environ))) as client,
        started_container(client, container, ("python", "-uc", script), stdin=True) as run,
    ):
        assert next(run.output)[1].startswith(b"1")
        run.stdin.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: site.engine.containers() == [], 10)


def test_the_container_of_another_running_tool_is_kept(site: Site, built: Ended, own: Path) -> None:
    child = started(site, own, "--", "sleep", "300")
    try:
        wait_for(running_count(site, 1), 30)
        (working,) = site.engine.containers()
        assert ended(started(site, own, "--", "true")) == 0
        assert site.engine.containers() == [working]
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)


def test_a_programs_own_exit_code_comes_through(site: Site, built: Ended, own: Path) -> None:
    child = started(site, own, "--", "sh", "-c", "echo heard; echo told >&2; exit 7")
    out, said = child.communicate(timeout=60)
    assert (child.returncode, out, said) == (7, "heard\n", "told\n")


def test_what_is_piped_in_is_read_inside(site: Site, built: Ended, own: Path) -> None:
    child = started(site, own, "--", "sha256sum", stdin=subprocess.PIPE)
    out, _ = child.communicate("words\n" * 100_000, timeout=60)
    assert out.split()[0] == sha256(b"words\n" * 100_000).hexdigest()


def test_at_a_terminal_the_program_has_one(site: Site, built: Ended, own: Path) -> None:
    """Python's prompt: what is typed is answered, Ctrl-C reaches the program, Ctrl-D ends it."""
    ours, theirs = os.openpty()
    child = started(site, own, "--", "python", "-q", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        _type(ours, b"", until=b">>> ")
        assert b"42" in _type(ours, b"6 * 7\n", until=b">>> ")
        assert b"KeyboardInterrupt" in _type(ours, b"\x03", until=b">>> ")
        os.write(ours, b"\x04")
        assert child.wait(30) == 0
        assert site.engine.containers() == []
    finally:
        child.kill()
        os.close(ours)


def _type(terminal: int, words: bytes, until: bytes) -> bytes:
    """Type words, and read what appears up to the next `until`.

    Python's prompt loses a Ctrl-C that comes before it waits for input: without an answer it is pressed again.
    """
    os.write(terminal, words)
    seen = b""
    limit = time.monotonic() + 60
    while until not in seen.removeprefix(words) and time.monotonic() < limit:
        if select.select([terminal], [], [], 2)[0]:
            seen += os.read(terminal, 4096)
        elif words == b"\x03":
            os.write(terminal, words)
    return seen


def test_files_come_out_as_ones_own(site: Site, built: Ended, tmp_path: Path) -> None:
    """Started by a person without root, who may use the engine through a group."""
    home, work = tmp_path / "home", tmp_path / "work"
    for place in (home, work):
        place.mkdir()
        os.chown(place, ALEX, ALEX)
    for place in (tmp_path, *tmp_path.parents, site.engine.folder, site.engine.folder / "client"):
        if place.stat().st_uid == 0 and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    socket = Path(site.engine.environ["DOCKER_HOST"].removeprefix("unix://"))
    group = socket.stat().st_gid
    settings = site.engine.environ["DOCKER_CONFIG"]
    script = "id -u; id -G; touch mine; touch /opt/x"
    result = subprocess.run(
        as_person(ALEX, command("image", "run", "--vendor", "cpu", "--", "sh", "-c", script), groups=(group,)),
        env={
            **os.environ,
            **site.engine.environ,
            "GPU_SETUP_HOME": str(home),
            "HOME": str(home),
            "DOCKER_CONFIG": settings,
        },
        cwd=work,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.splitlines()[:2] == [str(ALEX), str(ALEX)], result.stdout + result.stderr
    assert "Read-only file system" in result.stderr
    assert (work / "mine").stat().st_uid == ALEX
    assert {place.stat().st_uid for place in home.rglob("*")} == {ALEX}


def test_without_the_group_the_engine_refuses_and_it_is_said(site: Site, built: Ended, tmp_path: Path) -> None:
    os.chown(tmp_path, ALEX, ALEX)
    result = subprocess.run(
        as_person(ALEX, command("image", "verify", "--vendor", "cpu", "--json")),
        env={**os.environ, **site.engine.environ, "GPU_SETUP_HOME": str(tmp_path), "HOME": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 3
    assert "image.engine-denied" in result.stdout


def test_an_engine_that_does_not_run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", site.engine.environ["PATH"])
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")
    for words in (("image", "build", "--vendor", "cpu"), ("smoke", "--recipe", "tiny", "--runtime", "image")):
        ended = tool(tmp_path, *words)
        assert (ended.rc, ended.error["code"]) == (4, "image.engine-not-running")


def test_an_image_that_is_not_built_is_named_with_the_way_to_it(site: Site) -> None:
    ended = site.tool("image", "verify", "--vendor", "cpu", "--image", "gpu-setup:none")
    assert (ended.rc, ended.error["code"]) == (3, "image.not-built")
    assert ended.error["next"].startswith("gpu-setup image build")


def test_secrets_reach_the_program_and_nobody_else(
    site: Site, built: Ended, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither arguments of any process, nor `docker inspect`, nor the image, nor a file that stays."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    with arguments_of_processes() as arguments:
        child = started(site, own, "--network", "--", "sh", "-c", "cat $HF_TOKEN_PATH; echo; env; sleep 300")
        try:
            wait_for(running_count(site, 1), 30)
            (container,) = site.engine.containers()
            wait_for(lambda: "hf_very_secret" in site.engine.checked("logs", container), 20)
            printed = site.engine.checked("logs", container).splitlines()
            inspected = site.engine.checked("inspect", container)
        finally:
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=30)
    assert printed[0] == PLANTED["HF_TOKEN"]
    assert {f"{name}={value}" for name, value in PLANTED.items() if name != "HF_TOKEN"} <= set(printed)
    assert not any(line.startswith("HF_TOKEN=") for line in printed)
    history = site.engine.checked("history", "--no-trunc", built.data["tag"])
    assert any("image run" in each for each in arguments)
    assert with_secrets((*arguments, inspected, history)) == []
    assert not list(own.rglob("container-secret-*"))
