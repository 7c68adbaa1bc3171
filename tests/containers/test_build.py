"""The build's folder and the engine's command, without an engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from checks.catalogue import catalogue
from containers.build import Sources, build_argv, check_space, worker_digest, write_context
from containers.model import Engine, ImageSpec
from containers.spec import image_spec
from machine.errors import BadUsage, OutsideFailed
from machine.local import LocalMachine, Space
from machine.paths import Paths
from tests.containers.hosts import host

ENGINE = Engine("docker.io", "docker", "29.1.3", False, (), False, ("docker", "buildx", "build", "--load"))
SOURCES = Sources(Path("/worker"), "1")


@pytest.fixture
def spec() -> ImageSpec:
    return image_spec(host("no-gpu"), catalogue())


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "data", tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    folder = tmp_path / "worker"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "one.py").write_text("1\n")
    (folder / "package" / "one.pyc").write_bytes(b"no")
    return folder


def argv(sources: Sources = SOURCES, **environ: str) -> list[str]:
    return list(build_argv(ENGINE, "gpu-setup:x", "digest", sources, Path("/context"), environ))


def test_proxies_are_named_and_their_passwords_stay_out_of_argv() -> None:
    words = argv(https_proxy="http://me:secret@proxy.example:3128", NO_PROXY="localhost", http_proxy="")
    assert [words[at + 1] for at, word in enumerate(words) if word == "--build-arg"] == ["NO_PROXY", "https_proxy"]
    assert "secret" not in " ".join(words)
    assert "--network" not in words


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:3128", "http://localhost:3128"])
def test_a_proxy_on_this_machine_is_reached_over_its_own_network(proxy: str) -> None:
    words = argv(http_proxy=proxy)
    assert words[words.index("--network") + 1] == "host"


def test_offline_means_no_network_whatever_proxies_say() -> None:
    words = argv(replace(SOURCES, offline=True), http_proxy="http://127.0.0.1:3128")
    assert words[words.index("--network") + 1] == "none"
    assert words.count("--network") == 1


def test_certificates_and_pips_settings_go_in_as_secrets(tmp_path: Path) -> None:
    words = argv(replace(SOURCES, ca=tmp_path / "ca.pem", pip_config=tmp_path / "pip.conf"))
    assert f"id=ca,src={tmp_path / 'ca.pem'}" in words
    assert f"id=pip,src={tmp_path / 'pip.conf'}" in words


def test_the_folder_is_whole_and_keeps_the_times_of_what_did_not_change(
    spec: ImageSpec, places: Paths, worker: Path, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"a")
    context = write_context(spec, Sources(worker, "1", wheels=wheels), places)
    found = sorted(str(file.relative_to(context)) for file in context.rglob("*") if file.is_file())
    assert found == ["Dockerfile", "lock.txt", "torch.txt", "wheels/a-1-py3-none-any.whl", "worker/package/one.py"]
    before = {file: file.stat().st_mtime_ns for file in context.rglob("*") if file.is_file()}
    write_context(spec, Sources(worker, "1", wheels=wheels), places)
    assert {file: file.stat().st_mtime_ns for file in before} == before

    (worker / "package" / "one.py").unlink()
    (worker / "package" / "two.py").write_text("2\n")
    context = write_context(spec, Sources(worker, "1"), places)
    assert [file.name for file in (context / "worker").rglob("*.py")] == ["two.py"]
    assert list((context / "wheels").iterdir()) == []


def test_a_checkouts_umask_is_no_part_of_the_image(spec: ImageSpec, places: Paths, worker: Path) -> None:
    (worker / "package" / "one.py").chmod(0o600)
    context = write_context(spec, Sources(worker, "1"), places)
    assert (context / "worker" / "package" / "one.py").stat().st_mode & 0o777 == 0o644


def test_a_replaced_wheel_is_copied_again(spec: ImageSpec, places: Paths, worker: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel = wheels / "a-1-py3-none-any.whl"
    wheel.write_bytes(b"old")
    write_context(spec, Sources(worker, "1", wheels=wheels), places)
    wheel.unlink()
    wheel.write_bytes(b"new")
    os.utime(wheel, (1, 1))
    context = write_context(spec, Sources(worker, "1", wheels=wheels), places)
    assert (context / "wheels" / wheel.name).read_bytes() == b"new"


@pytest.mark.parametrize("option", ["ca", "pip_config"])
def test_a_missing_file_is_refused(option: str, spec: ImageSpec, places: Paths, worker: Path, tmp_path: Path) -> None:
    with pytest.raises(BadUsage):
        write_context(spec, Sources(worker, "1", **{option: tmp_path / "none"}), places)


def test_a_wheels_folder_without_wheels(spec: ImageSpec, places: Paths, worker: Path, tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="contains no wheels"):
        write_context(spec, Sources(worker, "1", wheels=tmp_path), places)


def test_a_changed_worker_has_another_digest(worker: Path) -> None:
    before = worker_digest(worker)
    (worker / "package" / "one.py").write_text("2\n")
    assert worker_digest(worker) != before


class Full(LocalMachine):
    def space(self, path: str) -> Space | None:
        return Space(1 << 30, 10 << 30, None, "ext4", ())


def test_a_full_disk_is_refused_before_the_build(spec: ImageSpec) -> None:
    with pytest.raises(OutsideFailed) as caught:
        check_space(spec, replace(ENGINE, root_dir="/var/lib/docker"), Full())
    assert caught.value.code == "image.no-room"
    assert "docker builder prune" in caught.value.next
    check_space(spec, ENGINE, Full())  # where it keeps images is not known: nothing is refused
