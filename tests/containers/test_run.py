"""A container's command: its permissions, its user, its mounts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from containers.model import Engine
from containers.orphans import owner, remove_orphans
from containers.run import (
    Container,
    ContainerMachine,
    Mount,
    container_user,
    run_argv,
    run_attached,
    with_token,
)
from machine.local import LocalMachine, Outcome, Session

ENGINE = Engine("docker.io", "docker", "20.10.24", False, (), False, ("docker", "build"))
ROOTLESS = Engine("docker-ce", "docker", "29.1.3", True, (), False, ("docker", "build"))
PODMAN = Engine("podman", "podman", "5.4.2", True, (), False, ("podman", "build"))
CARD = ("--gpus", '"device=GPU-1"')


def made(**changed: object) -> Container:
    return Container(engine=ENGINE, image="gpu-setup:cpu", user="1000:1000")._replace(**changed)  # type: ignore[arg-type]


def argv(container: Container, **more: object) -> list[str]:
    return list(run_argv(container, "name", ("python", "-V"), **more))  # type: ignore[arg-type]


def after(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_it_may_nothing_that_it_does_not_need() -> None:
    words = argv(made())
    assert after(words, "--cap-drop") == ["ALL"]
    assert after(words, "--security-opt") == ["no-new-privileges"]
    assert after(words, "--network") == ["none"]
    assert "--read-only" in words and "--rm" in words
    assert not {"--privileged", "--cap-add", "--ipc", "--pid"} & set(words)
    assert not any("seccomp" in word for word in words)


def test_the_image_and_the_program_come_last() -> None:
    assert argv(made())[-3:] == ["gpu-setup:cpu", "python", "-V"]


def test_folders_lie_inside_where_they_lie_outside() -> None:
    words = argv(made(mounts=(Mount(Path("/data")), Mount(Path("/out"), writable=True))), cwd="/out")
    assert after(words, "--mount") == [
        "type=bind,source=/data,target=/data,readonly",
        "type=bind,source=/out,target=/out",
    ]
    assert after(words, "--workdir") == ["/out"]


def test_a_comma_in_a_path_ends_no_field() -> None:
    words = argv(made(mounts=(Mount(Path('/data/a,b "c"')),)))
    assert after(words, "--mount") == [
        'type=bind,"source=/data/a,b ""c""","target=/data/a,b ""c""",readonly',
    ]


class Left(LocalMachine):
    """An engine with containers of these owners; `removed` are those that it was told to remove."""

    def __init__(self, *owners: str) -> None:
        self.owners, self.removed = owners, tuple[str, ...]()

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        said = ""
        if argv[1] == "ps":
            said = "\n".join(f"c{number}" for number, _ in enumerate(self.owners))
        elif argv[1:3] == ("container", "inspect"):
            said = "\n".join(f"c{number} {owner}" for number, owner in enumerate(self.owners))
        else:
            assert argv[1:3] == ("rm", "--force"), argv
            self.removed = tuple(argv[3:])
        return Outcome(tuple(argv), 0, said, "", 0.0)


def test_only_what_nobody_owns_any_more_is_removed(tmp_path: Path) -> None:
    here = owner().rpartition("-")[2]
    elsewhere = f"{os.getpid()}-0-0123456789ab"  # another machine on the same engine
    engine = Left(owner(), f"{os.getpid()}-0-{here}", f"999999999-7-{here}", elsewhere)
    for name in (owner(), f"1-0-{here}", elsewhere):
        (tmp_path / f"hub-token-{name}-abc123").write_text("hf_x")
    assert remove_orphans(ENGINE, engine, tmp_path) == 2
    assert engine.removed == ("c1", "c2")
    assert [file.name for file in tmp_path.iterdir()] == [f"hub-token-{owner()}-abc123"]


def test_locked_memory_is_for_cards_and_not_for_rootless_engines() -> None:
    assert "--ulimit" not in argv(made())
    assert after(argv(made(devices=CARD)), "--ulimit") == ["memlock=-1", "stack=67108864"]
    assert "--ulimit" not in argv(made(devices=CARD, engine=ROOTLESS))


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


def test_a_proxys_password_stays_out_of_the_command() -> None:
    words = argv(made(network=True, passed=("https_proxy",)))
    assert after(words, "--env") == ["HOME=/tmp", "https_proxy"]
    assert "--network" not in words
    assert after(argv(made(network=True, host_network=True)), "--network") == ["host"]


def test_podman_keeps_the_persons_number() -> None:
    assert after(argv(made(engine=PODMAN)), "--userns") == ["keep-id"]


def test_every_container_names_the_process_that_owns_it() -> None:
    assert after(argv(made()), "--label") == [f"gpu-setup.owner={owner()}"]
    assert owner().startswith(f"{os.getpid()}-")


class WithToken(LocalMachine):
    def __init__(self, **environ: str) -> None:
        self.environ = environ

    def session(self) -> Session:
        return Session(1000, "alex", (1000,), self.environ)


def test_a_token_is_a_file_for_this_run_and_no_argument(tmp_path: Path) -> None:
    online = made(network=True, private=tmp_path)
    with with_token(online, WithToken(HF_TOKEN="hf_secret")) as given:
        (mount,) = given.mounts
        assert mount.path.read_text() == "hf_secret"
        assert mount.path.stat().st_mode & 0o777 == 0o600
        assert not mount.writable
        assert given.env["HF_TOKEN_PATH"] == str(mount.path)
        assert "hf_secret" not in " ".join(argv(given))
    assert list(tmp_path.iterdir()) == []


def test_a_token_file_is_removed_when_the_run_fails(tmp_path: Path) -> None:
    online = made(network=True, private=tmp_path)
    with pytest.raises(KeyboardInterrupt), with_token(online, WithToken(HF_TOKEN="hf_secret")):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_persons_token_file_is_mounted_from_its_place(tmp_path: Path) -> None:
    own = tmp_path / ".cache" / "huggingface" / "token"
    own.parent.mkdir(parents=True)
    own.write_text("hf_x")
    myself = made(network=True, private=tmp_path, user=f"{os.geteuid()}:{os.getegid()}")
    with with_token(myself, WithToken(HOME=str(tmp_path))) as given:
        assert given.mounts == (Mount(own),)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_token_file_that_only_root_reads_is_copied_for_the_person(tmp_path: Path) -> None:
    own = tmp_path / ".cache" / "huggingface" / "token"
    own.parent.mkdir(parents=True)
    own.write_text("hf_x")
    with with_token(made(network=True, private=tmp_path, user="1000:1001"), WithToken(HOME=str(tmp_path))) as given:
        (mount,) = given.mounts
        assert mount.path != own
        assert (mount.path.stat().st_uid, mount.path.stat().st_mode & 0o777) == (1000, 0o600)
    assert not mount.path.exists()


@pytest.mark.parametrize("changed", [{"network": False}, {"network": True}])
def test_no_token_without_a_network_or_without_one(changed: dict[str, object], tmp_path: Path) -> None:
    container = made(private=tmp_path, **changed)
    environ = {} if changed["network"] else {"HF_TOKEN": "hf_secret"}
    with with_token(container, WithToken(**environ)) as given:
        assert given == container


def test_only_the_environments_programs_run_inside() -> None:
    machine = ContainerMachine(LocalMachine(), made(), "/opt/gpu-setup/env", frozenset())
    assert machine.run(("echo", "outside")).stdout == "outside\n"


def test_a_token_among_the_variables_never_reaches_the_command(tmp_path: Path) -> None:
    """The bare environment gets it as a variable; a container must not."""
    noted = tmp_path / "argv"
    engine = tmp_path / "docker"
    engine.write_text(f'#!/bin/sh\necho "$@" >>{noted}\n')
    engine.chmod(0o755)
    container = made(engine=replace(ENGINE, program=str(engine)), user="1000:1000")
    machine = ContainerMachine(LocalMachine(), container, "/opt/gpu-setup/env", frozenset({"PATH"}))
    machine.run(("/opt/gpu-setup/env/bin/python",), env={"HF_TOKEN": "hf_secret", "PATH": "/x", "HF_HUB_OFFLINE": "1"})
    assert "hf_secret" not in noted.read_text()
    assert "PATH=/x" not in noted.read_text()
    assert "HF_HUB_OFFLINE=1" in noted.read_text()


class MayNotLift(LocalMachine):
    """An engine inside a container of its own: it starts nothing that asks for more locked memory than it has."""

    SAID = "OCI runtime create failed: error setting rlimits for ready process: error setting rlimit type 8"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout: float = 5.0, env: Mapping[str, str] | None = None) -> Outcome:
        return self.stream(argv, lambda _line: None)

    def run_in_foreground(self, argv: Sequence[str]) -> Outcome:
        return self.stream(argv, lambda _line: None)

    def stream(self, argv: Sequence[str], on_line: Callable[[str], None], *_more: Any, **_named: Any) -> Outcome:
        if argv[1] == "run":
            self.asked.append(tuple(argv))
        refused = "--ulimit" in argv
        return Outcome(tuple(argv), 125 if refused else 0, "", self.SAID if refused else "", 0.0)


def test_where_no_limit_may_be_lifted_the_container_starts_without() -> None:
    machine, said = MayNotLift(), list[str]()
    assert run_attached(made(devices=CARD), ("true",), machine, said.append, "/work") == 0
    assert [("--ulimit" in argv) for argv in machine.asked] == [True, False]
    assert "may not raise" in said[0]


def test_a_training_asks_for_no_limit_again_after_it_was_refused() -> None:
    machine = MayNotLift()
    inside = ContainerMachine(machine, made(devices=CARD), "/opt/env", frozenset())
    for _ in range(2):
        assert inside.run(("/opt/env/bin/python", "-V")).ok
        assert inside.stream(("/opt/env/bin/python", "-V"), lambda _line: None).ok
    assert [("--ulimit" in argv) for argv in machine.asked] == [True, False, False, False, False]
