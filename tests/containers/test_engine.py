"""Engines: what each can and cannot do, and why one cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checks.facts.host import Docker
from containers.device_options import device_access, no_access_problem
from containers.engine import choose_engine, docker_engine, host_for_engine
from containers.engine_report import CardAccess, EngineReport
from containers.model import Access, ImageVendor
from gpu_setup.render.image import engine_text
from machine.errors import Problem
from machine.local import ABSENT, LocalMachine, Outcome
from tests.containers.hosts import host, with_docker


class Answering(LocalMachine):
    """A machine whose engine's commands answer as recorded; any other command fails the test."""

    def __init__(self, **answers: str | None) -> None:
        self.answers = {"docker version": None, "docker buildx": None, "docker context": "default", **answers}

    def run(self, argv: Any, timeout: float = 5.0, env: Any = None) -> Outcome:
        answer = self.answers[" ".join(argv[:2])]
        if answer is None:
            return Outcome(tuple(argv), None, "", "", 0.0, ABSENT)
        return Outcome(tuple(argv), 0, answer, "", 0.0)


BUILDX = "github.com/docker/buildx v0.21.3 abc"


def test_a_new_docker_builds_through_buildx_in_its_own_context() -> None:
    machine = Answering(**{"docker version": "29.1.3", "docker buildx": BUILDX, "docker context": "rootless"})
    engine = choose_engine(host("rtx3090-healthy"), machine)
    assert engine.builder == ("docker", "buildx", "build", "--builder", "rootless", "--load")
    assert "build them" in engine.can


def test_a_new_docker_without_buildx_cannot_build() -> None:
    engine = choose_engine(host("rtx3090-healthy"), Answering(**{"docker version": "28.2.2"}))
    assert engine.builder is None
    assert any("buildx is missing" in word for word in engine.cannot)


def test_an_old_docker_has_buildkit_in_itself() -> None:
    engine = choose_engine(host("rtx3090-healthy"), Answering(**{"docker version": "20.10.24+dfsg1"}))
    assert engine.builder == ("docker", "build")


@pytest.mark.parametrize(
    ("docker", "cannot"),
    [
        (Docker(kind="desktop", answers=True, version="29.1.0", cdi_dirs=("/etc/cdi",)), "virtual machine"),
        (Docker(kind="snap", answers=True, version="28.4.0"), "snap"),
        (Docker(kind="docker-ce", answers=True, version="29.1.0", rootless=True), "/dev/kfd"),
        (Docker(kind="docker.io", answers=True, version="20.10.24"), "use CDI"),
        (Docker(kind="docker.io", answers=True, version="29.1.0", runtimes=("runc",)), "--gpus: no such runtime"),
    ],
)
def test_what_an_engine_cannot_do_is_said(docker: Docker, cannot: str) -> None:
    engine = docker_engine(docker, docker.version, True, "default")
    assert any(cannot in word for word in engine.cannot)
    assert "run images" in engine.can


def test_a_virtual_machine_never_claims_a_card() -> None:
    docker = Docker(kind="desktop", answers=True, cdi_dirs=("/etc/cdi",), runtimes=("nvidia", "runc"))
    engine = docker_engine(docker, "29.1.0", True, "desktop-linux")
    assert (engine.cdi, engine.nvidia_runtime) == ((), False)


@pytest.mark.parametrize(
    ("docker", "wanted", "code"),
    [
        ({"kind": None}, None, "image.no-engine"),
        ({"kind": "podman"}, "docker", "image.no-engine"),
        ({"answers": False, "problem": "permission-denied"}, None, "image.engine-denied"),
        ({"answers": False, "problem": "not-running"}, None, "image.engine-not-running"),
        ({"answers": False, "problem": "timed-out"}, None, "image.engine-silent"),
    ],
)
def test_an_engine_that_cannot_be_used(docker: dict[str, object], wanted: str | None, code: str) -> None:
    machine = Answering(**{"podman version": None})
    with pytest.raises(Problem) as caught:
        choose_engine(with_docker(host("rtx3090-healthy"), **docker), machine, wanted)
    assert caught.value.code == code
    assert caught.value.next


def test_podman_takes_over_where_docker_is_not() -> None:
    engine = choose_engine(with_docker(host("no-gpu"), kind=None), Answering(**{"podman version": "5.4.2"}))
    assert (engine.kind, engine.program, engine.version) == ("podman", "podman", "5.4.2")
    assert "give containers GPUs with CDI (unverified)" in engine.can


def test_podman_beside_docker_is_judged_by_itself() -> None:
    """Docker's runtimes are not podman's."""
    machine = host("rtx3090-healthy")
    docker = with_docker(machine, runtimes=("nvidia", "runc"), cdi_dirs=())
    bare = replace(docker, nvidia=replace(docker.nvidia, cdi_specs=()))
    podman = choose_engine(bare, Answering(**{"podman version": "5.4.2"}), "podman")
    assert device_access(bare, ImageVendor.NVIDIA) is Access.GPUS
    assert device_access(host_for_engine(bare, podman), ImageVendor.NVIDIA) is None
    assert no_access_problem(host_for_engine(bare, podman), ImageVendor.NVIDIA).code == "image.podman-cdi"
    described = replace(docker, nvidia=replace(docker.nvidia, cdi_specs=("/etc/cdi/nvidia.yaml",)))
    assert device_access(host_for_engine(described, podman), ImageVendor.NVIDIA) is Access.CDI


ENGINES = [
    (Docker(kind="docker.io", answers=True, version="20.10.24", runtimes=("nvidia", "runc")), True, "gpus"),
    (Docker(kind="docker-ce", answers=True, version="29.1.3", cdi_dirs=("/etc/cdi",), rootless=True), True, "CDI"),
    (Docker(kind="snap", answers=True, version="28.4.0"), True, "toolkits"),
    (Docker(kind="desktop", answers=True, version="29.1.0"), True, "virtual machine"),
    (Docker(kind="podman"), False, "CDI"),
]


@pytest.mark.parametrize(("docker", "buildx", "word"), ENGINES, ids=[docker.kind for docker, _, _ in ENGINES])
def test_every_kind_of_engine_says_what_it_can_and_cannot(docker: Docker, buildx: bool, word: str) -> None:
    machine = Answering(**{"docker version": docker.version, "docker buildx": BUILDX, "podman version": "5.4.2"})
    engine = choose_engine(replace(host("rtx3090-healthy"), docker=docker), machine)
    text = engine_text(EngineReport(engine, (CardAccess("nvidia", None, "why", "next"), CardAccess("amd", Access.CDI))))
    assert all(sentence in text for sentence in (*engine.can, *engine.cannot))
    assert any("build" in sentence for sentence in engine.can)
    assert engine.cannot and word in text
    assert (
        "nvidia cards cannot be used in containers: why" in text
        and "amd cards are passed to containers through CDI" in text
    )
