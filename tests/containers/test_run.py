"""A container's permissions, user and mounts, as the engine is asked for them; and its secrets."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from containers.connection import api_problem, connect
from containers.container import Container, Mount, container_user, create_body, run_argv
from containers.device_options import Devices
from containers.model import Engine
from containers.orphans import owner, remove_orphans
from containers.run import ContainerMachine, _lines, run_attached
from containers.run_secrets import with_secrets
from machine.errors import Problem
from machine.local import LocalMachine, Session

ENGINE = Engine("docker.io", "docker", "20.10.24", False, (), False, ("docker", "build"))
ROOTLESS = Engine("docker-ce", "docker", "29.1.3", True, (), False, ("docker", "build"))
PODMAN = Engine("podman", "podman", "5.4.2", True, (), False, ("podman", "build"))
CARD = Devices(gpus=("GPU-1",))


def made(**changed: object) -> Container:
    return Container(engine=ENGINE, image="gpu-setup:cpu", user="1000:1000")._replace(**changed)  # type: ignore[arg-type]


def argv(container: Container, **more: object) -> list[str]:
    return list(run_argv(container, "name", ("python", "-V"), **more))  # type: ignore[arg-type]


def body(container: Container, **more: object) -> dict[str, Any]:
    return create_body(container, ("python", "-V"), **more)  # type: ignore[arg-type]


def after(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_it_may_nothing_that_it_does_not_need() -> None:
    words, host = argv(made()), body(made())["HostConfig"]
    assert after(words, "--cap-drop") == host["CapDrop"] == ["ALL"]
    assert after(words, "--security-opt") == host["SecurityOpt"] == ["no-new-privileges"]
    assert after(words, "--network") == [host["NetworkMode"]] == ["none"]
    assert "--read-only" in words and "--rm" in words
    assert host["ReadonlyRootfs"] and host["AutoRemove"]
    assert not {"--privileged", "--cap-add", "--ipc", "--pid"} & set(words)
    assert not {"Privileged", "CapAdd", "IpcMode", "PidMode"} & set(host)


def test_the_image_and_the_program_come_last() -> None:
    assert argv(made())[-3:] == ["gpu-setup:cpu", "python", "-V"]
    assert (body(made())["Image"], body(made())["Cmd"]) == ("gpu-setup:cpu", ["python", "-V"])


def test_folders_lie_inside_where_they_lie_outside() -> None:
    container = made(
        mounts=(Mount(Path("/data")), Mount(Path("/out"), writable=True), Mount(Path("/a"), inside=Path("/b")))
    )
    words, asked = argv(container, cwd="/out"), body(container, cwd="/out")
    assert after(words, "--mount") == [
        "type=bind,source=/data,target=/data,readonly",
        "type=bind,source=/out,target=/out",
        "type=bind,source=/a,target=/b,readonly",
    ]
    assert asked["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": "/data", "Target": "/data", "ReadOnly": True},
        {"Type": "bind", "Source": "/out", "Target": "/out", "ReadOnly": False},
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
    ]
    assert after(words, "--workdir") == [asked["WorkingDir"]] == ["/out"]


def test_a_comma_in_a_path_ends_no_field() -> None:
    words = argv(made(mounts=(Mount(Path('/data/a,b "c"')),)))
    assert after(words, "--mount") == [
        'type=bind,"source=/data/a,b ""c""","target=/data/a,b ""c""",readonly',
    ]


def test_locked_memory_is_for_cards_and_not_for_rootless_engines() -> None:
    assert "--ulimit" not in argv(made())
    assert after(argv(made(devices=CARD)), "--ulimit") == ["memlock=-1", "stack=67108864"]
    assert [each["Name"] for each in body(made(devices=CARD))["HostConfig"]["Ulimits"]] == ["memlock", "stack"]
    assert "--ulimit" not in argv(made(devices=CARD, engine=ROOTLESS))
    assert body(made(devices=CARD, engine=ROOTLESS))["HostConfig"]["Ulimits"] == []


@pytest.mark.parametrize(
    ("uid", "engine", "user"),
    [
        (1000, ENGINE, f"1000:{os.getegid()}"),
        (0, ENGINE, None),  # the image's own user
        (1000, ROOTLESS, "0:0"),  # which is the person
        (1000, PODMAN, f"1000:{os.getegid()}"),
    ],
)
def test_who_runs_inside(uid: int, engine: Engine, user: str | None) -> None:
    assert container_user(Session(uid, "alex", (uid,), {}), engine) == user


@pytest.mark.parametrize(
    ("environ", "engine", "user"),
    [
        ({"SUDO_UID": "1000", "SUDO_GID": "1001"}, ENGINE, "1000:1001"),
        ({"SUDO_UID": "0", "SUDO_GID": "0"}, ENGINE, None),
        ({"SUDO_UID": "x; id", "SUDO_GID": "1"}, ENGINE, None),
        ({"SUDO_UID": "1000", "SUDO_GID": "1001"}, PODMAN, None),
    ],
)
def test_behind_sudo_it_is_the_person_who_called(environ: dict[str, str], engine: Engine, user: str | None) -> None:
    assert container_user(Session(0, "root", (0,), environ), engine) == user


def test_podman_keeps_the_persons_number() -> None:
    assert after(argv(made(engine=PODMAN)), "--userns") == ["keep-id"]
    assert body(made(engine=PODMAN))["HostConfig"]["UsernsMode"] == "keep-id"


def test_every_container_names_the_process_that_owns_it() -> None:
    assert after(argv(made()), "--label") == [f"gpu-setup.owner={owner()}"]
    assert body(made())["Labels"] == {"gpu-setup.owner": owner()}
    assert owner().startswith(f"{os.getpid()}-")


class Left:
    """An engine's API with containers of these owners; `removed` are those that it was asked to remove."""

    def __init__(self, *owners: str) -> None:
        self.owners, self.removed = owners, list[str]()

    def containers(self, **_wanted: object) -> list[dict[str, Any]]:
        return [{"Id": f"c{at}", "Labels": {"gpu-setup.owner": each}} for at, each in enumerate(self.owners)]

    def remove_container(self, name: str, **_how: object) -> None:
        self.removed.append(name)


def test_only_what_nobody_owns_any_more_is_removed(tmp_path: Path) -> None:
    here = owner().rpartition("-")[2]
    elsewhere = f"{os.getpid()}-0-0123456789ab"  # another machine on the same engine
    engine = Left(owner(), f"{os.getpid()}-0-{here}", f"999999999-7-{here}", elsewhere)
    for name in (owner(), f"1-0-{here}", elsewhere):
        (tmp_path / f"container-secret-{name}-abc123").write_text("hf_x")
    assert remove_orphans(engine, tmp_path) == 2
    assert engine.removed == ["c1", "c2"]
    assert [file.name for file in tmp_path.iterdir()] == [f"container-secret-{owner()}-abc123"]


# Secrets


class Person(LocalMachine):
    def __init__(self, **environ: str) -> None:
        self.environ = environ

    def session(self) -> Session:
        return Session(1000, "alex", (1000,), self.environ)


def all_texts(container: Container, **more: object) -> str:
    """Everything that the engine and other processes see of a container."""
    return json.dumps(body(container, **more)) + " ".join(argv(container))


def test_a_token_is_a_file_for_this_run_and_no_argument(tmp_path: Path) -> None:
    online = made(network=True, private=tmp_path)
    with with_secrets(online, Person(HF_TOKEN="hf_secret")) as given:
        (mount,) = given.mounts
        assert mount.path.read_text() == "hf_secret"
        assert mount.path.stat().st_mode & 0o777 == 0o600
        assert not mount.writable
        assert given.env["HF_TOKEN_PATH"] == mount.target
        assert "hf_secret" not in all_texts(given)
    assert list(tmp_path.iterdir()) == []


def test_secret_files_are_removed_when_the_run_fails(tmp_path: Path) -> None:
    online = made(network=True, private=tmp_path, secrets={"https_proxy": "http://a:b@c"})
    with pytest.raises(KeyboardInterrupt), with_secrets(online, Person(HF_TOKEN="hf_secret")) as given:
        assert len(given.mounts) == 2
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_persons_token_file_is_mounted_at_a_place_that_names_nobody(tmp_path: Path) -> None:
    own = tmp_path / ".cache" / "huggingface" / "token"
    own.parent.mkdir(parents=True)
    own.write_text("hf_x")
    myself = made(network=True, private=tmp_path, user=f"{os.geteuid()}:{os.getegid()}")
    with with_secrets(myself, Person(HOME=str(tmp_path))) as given:
        assert [mount.path for mount in given.mounts] == [own]
        assert not given.mounts[0].target.startswith(str(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_token_file_that_only_root_reads_is_copied_for_the_person(tmp_path: Path) -> None:
    own = tmp_path / ".cache" / "huggingface" / "token"
    own.parent.mkdir(parents=True)
    own.write_text("hf_x")
    with with_secrets(made(network=True, private=tmp_path, user="1000:1001"), Person(HOME=str(tmp_path))) as given:
        (mount,) = given.mounts
        assert mount.path != own
        assert (mount.path.stat().st_uid, mount.path.stat().st_mode & 0o777) == (1000, 0o600)
    assert not mount.path.exists()


@pytest.mark.parametrize("changed", [{"network": False}, {"network": True}])
def test_no_token_without_a_network_or_without_one(changed: dict[str, object], tmp_path: Path) -> None:
    container = made(private=tmp_path, **changed)
    environ = {} if changed["network"] else {"HF_TOKEN": "hf_secret"}
    with with_secrets(container, Person(**environ)) as given:
        assert given == container


NASTY = "http://me:it's a $(pw) \"`x`\\ word@proxy.example:3128"


def test_variables_with_passwords_reach_the_program_as_they_are_and_nobody_else(tmp_path: Path) -> None:
    """The file is read by a shell: no character of a password may mean anything to it."""
    online = made(network=True, private=tmp_path, secrets={"https_proxy": NASTY, "HF_ENDPOINT": "https://u:pw@hub"})
    with with_secrets(online, Person()) as given:
        assert "pw" not in all_texts(given)
        (mount,) = given.mounts
        words = [word.replace(mount.target, str(mount.path)) for word in body(given)["Cmd"][:4]]
        seen = subprocess.run([*words, "env", "-0"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert f"https_proxy={NASTY}" in seen.stdout.split("\0")
    assert "HF_ENDPOINT=https://u:pw@hub" in seen.stdout.split("\0")


def test_a_command_that_is_only_shown_has_the_names_of_secrets() -> None:
    words = argv(made(network=True, secrets={"https_proxy": NASTY}))
    assert after(words, "--env") == ["HOME=/tmp", "https_proxy"]
    assert "--network" not in words
    assert after(argv(made(network=True, host_network=True)), "--network") == ["host"]


# What runs inside, against an engine that answers as Docker does


class Answering:
    """An engine's API that starts containers which print `lines` and end; it may refuse a limit."""

    base_url, api_version = "http://engine", "1.41"

    def __init__(self, refuses_limits: bool = False) -> None:
        self.refuses_limits, self.asked = refuses_limits, list[dict[str, Any]]()

    def create_container_from_config(self, config: dict[str, Any], _name: str) -> None:
        self.asked.append(config)

    def post(self, _address: str, **_more: object) -> Any:
        answer = {"StatusCode": 0}
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: answer, close=lambda: None)

    def attach_socket(self, _name: str, _params: dict[str, int]) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    def start(self, _name: str) -> None:
        if self.refuses_limits and self.asked[-1]["HostConfig"]["Ulimits"]:
            text = "OCI runtime create failed: error setting rlimits for ready process: error setting rlimit type 8"
            raise APIError("500 Server Error", explanation=text)

    def remove_container(self, name: str, **_how: object) -> None:
        raise NotFound(f"No such container: {name}")


def test_only_the_environments_programs_run_inside() -> None:
    machine = ContainerMachine(LocalMachine(), Answering(), made(), "/opt/gpu-setup/env", frozenset())
    assert machine.run(("echo", "outside")).stdout == "outside\n"


def test_a_token_among_the_variables_never_reaches_the_engine() -> None:
    """The bare environment gets it as a variable; a container must not."""
    engine = Answering()
    machine = ContainerMachine(LocalMachine(), engine, made(), "/opt/env", frozenset({"PATH"}))
    variables = {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "https://u:secret@x", "PATH": "/x", "HF_HUB_OFFLINE": "1"}
    assert machine.run(("/opt/env/bin/python",), env=variables).ok
    assert engine.asked[0]["Env"] == ["HF_HUB_OFFLINE=1", "HOME=/tmp"]


def test_where_no_limit_may_be_raised_the_container_starts_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.isatty", lambda _handle: False)
    engine, said = Answering(refuses_limits=True), list[str]()
    assert run_attached(engine, made(devices=CARD), ("true",), LocalMachine(), said.append, "/work") == 0
    assert [bool(asked["HostConfig"]["Ulimits"]) for asked in engine.asked] == [True, False]
    assert "may not raise" in said[0]


def test_a_training_asks_for_no_limit_again_after_it_was_refused() -> None:
    engine = Answering(refuses_limits=True)
    inside = ContainerMachine(LocalMachine(), engine, made(devices=CARD), "/opt/env", frozenset())
    for _ in range(2):
        assert inside.run(("/opt/env/bin/python", "-V")).ok
        assert inside.stream(("/opt/env/bin/python", "-V"), lambda _line: None).ok
    assert [bool(asked["HostConfig"]["Ulimits"]) for asked in engine.asked] == [True, False, False, False, False]


def test_lines_of_two_streams_stay_whole() -> None:
    parts = [(1, b'{"a": '), (2, b"10 %\r20 %\r30"), (1, b"1}\n"), (2, b" %\n\n"), (1, b"end")]
    assert list(_lines(parts)) == [b"10 %", b"20 %", b'{"a": 1}', b"30 %", b"end"]
    assert [len(line) for line in _lines([(1, b"x" * 70_000), (1, b"y\n")])] == [70_000, 1]


# An engine that does not answer


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """A socket on which somebody who is no engine hangs up at once."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()

    def hang_up() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=hang_up, daemon=True).start()
    yield f"unix://{tmp_path}/s"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


class AtAddress(LocalMachine):
    """A person with these variables, on a machine without a docker command."""

    def __init__(self, **environ: str) -> None:
        self.environ = environ

    def session(self) -> Session:
        return Session(1000, "alex", (1000,), self.environ)

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Any = None) -> Any:
        return super().run(("false",), timeout, env)


def connection_problem(engine: Engine, **environ: str) -> Problem:
    try:
        connect(engine, AtAddress(**environ))
    except Problem as problem:
        # docker-py leaves the socket open that it could not connect: it is closed with its traceback
        return type(problem)(problem.code, problem.what, problem.why, problem.next)
    finally:
        gc.collect()
    raise AssertionError("it answered")


leaves_sockets = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@leaves_sockets
def test_an_absent_engine_and_one_that_disconnects(tmp_path: Path, silent: str) -> None:
    for address, code in (
        (f"unix://{tmp_path}/none", "image.engine-not-running"),
        (silent, "image.engine-lost"),
        ("ssh://alex@lab", "image.engine-remote"),
    ):
        problem = connection_problem(ENGINE, DOCKER_HOST=address)
        assert problem.code == code
        assert problem.next


@leaves_sockets
def test_how_podmans_socket_is_enabled_is_said(tmp_path: Path) -> None:
    problem = connection_problem(PODMAN, XDG_RUNTIME_DIR=str(tmp_path))
    assert problem.code == "image.podman-socket"
    assert problem.next.startswith("systemctl --user enable --now podman.socket")


@pytest.mark.parametrize(
    ("below", "code"),
    [
        (PermissionError(13, "Permission denied"), "image.engine-denied"),
        (ConnectionRefusedError(111, "Connection refused"), "image.engine-not-running"),
        (TimeoutError("timed out"), "image.engine-silent"),
    ],
)
def test_what_the_system_says_of_the_socket_decides(below: OSError, code: str) -> None:
    from docker.errors import DockerException

    try:
        raise DockerException("Error while fetching server API version") from below
    except DockerException as error:
        assert api_problem(error, "x").code == code
