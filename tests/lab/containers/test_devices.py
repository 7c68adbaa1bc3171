"""GPUs in real containers: the options that the tool chooses, on Docker 20.10 and 26.1, with stand-ins."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from checks.facts.docker import parse_info
from checks.facts.host import DeviceNode, Docker, Host, NvmlGpu
from containers.connection import connect
from containers.container import LIMITS, Container, Mount, create_body, run_argv
from containers.device_options import Devices, device_access, device_options
from containers.engine import choose_engine, docker_engine
from containers.errors import engine_problem
from containers.model import Access, ImageVendor
from containers.run import started
from machine.errors import Problem
from machine.local import LocalMachine, Outcome
from tests.containers.hosts import host, with_gpus
from tests.lab.containers.engines import SYSTEM_PATH, AtEngine, Engine, run_inside, running, small_image
from tests.lab.containers.material import as_root, starter, unpacked

pytestmark = pytest.mark.lab

SLOTS = ("0000:01:00.0", "0000:41:00.0")


def nvidia() -> Host:
    return with_gpus(
        host("rtx3090-healthy"),
        NvmlGpu(uuid="GPU-aaaa-1", slot="00000000:01:00.0", name="NVIDIA GeForce RTX 3090"),
        NvmlGpu(uuid="GPU-bbbb-2", slot="00000000:41:00.0", name="NVIDIA GeForce RTX 3090"),
    )


def radeons(group: int) -> Host:
    machine = host("rx7900xtx-healthy")
    nodes = tuple(
        DeviceNode(f"/dev/dri/renderD{number}", group=group, slot=slot)
        for number, slot in zip((128, 129), SLOTS, strict=True)
    )
    return replace(machine, amd=replace(machine.amd, render=nodes, kfd=DeviceNode("/dev/kfd", group=group)))


def as_it_says(machine: Host, engine: Engine) -> Host:
    """The machine with this real engine's `docker info`."""
    info = parse_info(engine.checked("info", "--format", "{{json .}}"))
    assert info is not None
    docker = replace(
        machine.docker,
        kind="docker.io",
        version=info.server_version,
        answers=True,
        problem=None,
        runtimes=tuple(sorted(info.runtimes or ())),
        cdi_dirs=info.cdi_dirs or (),
        rootless="name=rootless" in (info.security or ()),
    )
    return replace(machine, docker=docker)


def with_devices(image: str, machine: Host, devices: Devices) -> Container:
    """Without limits: a test machine may not raise them."""
    found = docker_engine(machine.docker, machine.docker.version, False, "default")
    return Container(engine=found, image=image, user="1234:1234", devices=devices, limits=())


def start(engine: Engine, image: str, machine: Host, devices: Devices, script: str) -> Outcome:
    try:
        return run_inside(engine.environ, with_devices(image, machine, devices), "/bin/sh", "-c", script)
    finally:
        assert engine.containers() == []


def test_the_shown_command_and_the_api_make_the_same_container(engine: Engine, small: str, tmp_path: Path) -> None:
    """`docker inspect` of both: what a person copies from --print is what gpu-setup itself starts."""
    machine = as_it_says(radeons(group=4321), engine)
    devices = Devices(gpus=("GPU-aaaa-1", "GPU-bbbb-2"), nodes=("/dev/kfd",), groups=("4321",))
    mounts = (Mount(tmp_path, writable=True), Mount(Path("/bin/sh"), inside=Path('/other, "sh"')))
    container = with_devices(small, machine, devices)._replace(
        mounts=mounts, limits=(("stack", 1024),), env={"A": "b c"}
    )
    words = run_argv(container, "by-command", ("/bin/sh", "-c", "x"), str(tmp_path))
    engine.checked("create", *(word for word in words[2:] if not word.startswith("--sig-proxy")))
    with closing(connect(container.engine, AtEngine(engine.environ))) as client:
        try:
            body = create_body(container, ("/bin/sh", "-c", "x"), cwd=str(tmp_path))
            client.create_container_from_config(body, "by-api")
            one, other = (client.inspect_container(name) for name in ("by-command", "by-api"))
        finally:
            for name in ("by-command", "by-api"):
                client.remove_container(name)
    # an empty value and a missing one are the same
    differences = {
        (part, key): (one[part].get(key), other[part].get(key))
        for part in ("HostConfig", "Config")
        for key in {*one[part], *other[part]} - {"Hostname", "RestartPolicy"}
        if (one[part].get(key) or None) != (other[part].get(key) or None)
    }
    assert differences == {}


def test_nvidia_by_gpus_on_an_old_engine(engine: Engine, small: str) -> None:
    machine = as_it_says(nvidia(), engine)
    way = device_access(machine, ImageVendor.NVIDIA)
    assert way is Access.GPUS
    options = device_options(machine, ImageVendor.NVIDIA, way, SLOTS, ("GPU-bbbb",))
    assert start(engine, small, machine, options, "echo $NVIDIA_VISIBLE_DEVICES").stdout == "GPU-bbbb-2\n"
    both = device_options(machine, ImageVendor.NVIDIA, way, SLOTS)
    assert start(engine, small, machine, both, "echo $NVIDIA_VISIBLE_DEVICES").stdout == "GPU-aaaa-1,GPU-bbbb-2\n"


def test_amd_by_nodes_and_numeric_groups(engine: Engine, small: str) -> None:
    machine = as_it_says(radeons(group=4321), engine)
    way = device_access(machine, ImageVendor.AMD)
    assert way is Access.NODES
    options = device_options(machine, ImageVendor.AMD, way, SLOTS, (SLOTS[1],))
    seen = start(engine, small, machine, options, "id -G; ls /dev/dri; stat -c '%F %t:%T' /dev/kfd").stdout
    assert seen.splitlines() == ["1234 4321", "renderD129", "character special file 1:3"]


@pytest.fixture(scope="session")
def newer(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Debian 13's Docker (26.1, CDI and buildx), unpacked beside this system, with CDI descriptions of stand-ins."""
    as_root()
    root = unpacked(material / "docker-26", "trixie", ("docker.io", "docker-cli", "docker-buildx", "ca-certificates"))
    folder = tmp_path_factory.mktemp("newer")
    described = folder / "cdi"
    described.mkdir()
    for kind, names, node in (
        ("nvidia.com/gpu", ("GPU-aaaa-1", "GPU-bbbb-2", "all"), "/dev/nvidia0"),
        ("amd.com/gpu", ("0", "all"), "/dev/kfd"),
    ):
        rows = "".join(
            f"- name: {name}\n  containerEdits:\n    env: [CARD={name}]\n"
            f"    deviceNodes: [{{path: {node}, hostPath: /dev/null}}]\n"
            for name in names
        )
        (described / f"{kind.partition('.')[0]}.yaml").write_text(
            f'cdiVersion: "0.5.0"\nkind: {kind}\ndevices:\n{rows}'
        )
    starter(folder / "bin" / "docker", root, "/usr/bin/docker")
    starter(folder / "client" / "cli-plugins" / "docker-buildx", root, "/usr/libexec/docker/cli-plugins/docker-buildx")
    configuration: dict[str, object] = {"features": {"cdi": True}, "cdi-spec-dirs": [str(described)]}
    environ = {"PATH": f"{folder / 'bin'}:{SYSTEM_PATH}:{os.environ['PATH']}"}
    with running(folder, root=root, configuration=configuration, environ=environ) as found:
        yield found


@pytest.fixture(scope="session")
def newer_small(newer: Engine) -> str:
    return small_image(newer)


def described(machine: Host, engine: Engine) -> Host:
    specs = (str(engine.folder / "cdi" / "nvidia.yaml"),)
    return as_it_says(replace(machine, nvidia=replace(machine.nvidia, cdi_specs=specs)), engine)


def test_nvidia_by_cdi_on_a_newer_engine(newer: Engine, newer_small: str) -> None:
    machine = described(nvidia(), newer)
    assert machine.docker.version and machine.docker.version.startswith("26.")
    way = device_access(machine, ImageVendor.NVIDIA)
    assert way is Access.CDI
    options = device_options(machine, ImageVendor.NVIDIA, way, SLOTS, (SLOTS[1],))
    seen = start(newer, newer_small, machine, options, "echo $CARD; stat -c '%F %t:%T' /dev/nvidia0")
    assert seen.stdout.splitlines() == ["GPU-bbbb-2", "character special file 1:3"], seen.stderr


def test_amd_by_cdi_on_a_newer_engine(newer: Engine, newer_small: str) -> None:
    machine = described(radeons(group=4321), newer)
    options = device_options(machine, ImageVendor.AMD, device_access(machine, ImageVendor.AMD, amd_cdi=True), SLOTS)
    seen = start(newer, newer_small, machine, options, "echo $CARD; stat -c '%F' /dev/kfd")
    assert seen.stdout.splitlines() == ["all", "character special file"], seen.stderr


def test_a_card_that_the_description_does_not_know(newer: Engine, newer_small: str) -> None:
    machine = described(nvidia(), newer)
    with pytest.raises(Problem) as caught:
        start(newer, newer_small, machine, Devices(cdi=("nvidia.com/gpu=GPU-cccc-3",)), "true")
    assert caught.value.code == "image.cdi-unknown"


def test_the_newer_engine_builds_through_its_own_buildx(
    newer: Engine, newer_small: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in newer.environ.items():
        monkeypatch.setenv(name, value)
    found = choose_engine(described(nvidia(), newer), LocalMachine())
    assert found.builder == ("docker", "buildx", "build", "--builder", "default", "--load")
    (tmp_path / "Dockerfile").write_text(f'FROM {newer_small}\nRUN --network=none ["/bin/touch", "/made"]\n')
    made = newer.docker(*found.builder[1:], "--tag", "made:1", str(tmp_path))
    assert made.returncode == 0, made.stderr
    assert newer.docker("run", "--rm", "--network", "none", "made:1", "/bin/ls", "/made").stdout == "/made\n"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine without hook, runtime and cards."""
    as_root()
    with running(tmp_path_factory.mktemp("bare")) as found:
        yield found


@pytest.fixture(scope="session")
def bare_small(bare: Engine) -> str:
    return small_image(bare)


@pytest.mark.parametrize(
    ("devices", "code"),
    [
        (Devices(gpus=("all",)), "toolkit-missing"),
        (Devices(nodes=("/dev/kfd",)), "device-absent"),
        (Devices(groups=("render",)), "group-name"),
    ],
)
def test_what_fails_when_a_container_starts_is_explained(
    bare: Engine, bare_small: str, devices: Devices, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        start(bare, bare_small, as_it_says(nvidia(), bare), devices, "true")
    assert caught.value.code == f"image.{code}"
    assert caught.value.next


def test_the_engine_of_a_context_is_found_as_the_command_finds_it(
    bare: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", bare.environ["PATH"])
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    make = ("docker", "context", "create", "lab", "--docker", f"host={bare.environ['DOCKER_HOST']}")
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(("docker", "context", "use", "lab"), check=True, capture_output=True)
    found = docker_engine(Docker(kind="docker.io", answers=True), "20.10", False, "lab")
    with closing(connect(found, LocalMachine())) as client:
        assert client.info()["DockerRootDir"] == str(bare.folder / "data")


def test_a_file_that_the_engine_does_not_see_is_explained(bare: Engine, bare_small: str, tmp_path: Path) -> None:
    container = with_devices(bare_small, as_it_says(nvidia(), bare), Devices())
    with pytest.raises(Problem) as caught:
        run_inside(bare.environ, container._replace(mounts=(Mount(tmp_path / "none"),)), "/bin/true")
    assert caught.value.code == "image.not-shared"


def test_a_file_is_mounted_wherever_it_is(bare: Engine, bare_small: str, tmp_path: Path) -> None:
    """Below / and below /tmp, which is a file system of the container's own; nothing beside it is seen."""
    files = [Path(f"/gpu-setup-test-{os.getpid()}.json"), tmp_path / 'a, "b": c.json', Path(f"/tmp/{os.getpid()}.json")]
    (tmp_path / "token").write_text("hf_secret")
    try:
        for file in files:
            file.write_text("rows\n")
            file.chmod(0o644)
        container = with_devices(bare_small, as_it_says(nvidia(), bare), Devices())
        container = container._replace(mounts=tuple(Mount(file) for file in files))
        script = 'for file in "$@"; do cat "$file"; done; ls "$0"; touch "$1" 2>/dev/null || echo read-only'
        seen = run_inside(bare.environ, container, "/bin/sh", "-c", script, str(tmp_path), *map(str, files))
        assert seen.stdout.splitlines() == ["rows"] * 3 + [files[1].name, "read-only"], seen
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def test_the_classic_builder_is_explained(
    bare: Engine, bare_small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docker-py and DOCKER_BUILDKIT=0 give: gpu-setup never builds so, and explains it all the same."""
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    (tmp_path / "Dockerfile").write_text(f'FROM {bare_small}\nRUN --mount=type=cache,target=/x ["/bin/touch", "/y"]\n')
    result = bare.docker("build", "--network", "none", str(tmp_path))
    outcome = Outcome((), result.returncode, result.stdout, result.stderr, 0.0)
    if "buildx component is missing" not in result.stderr:
        assert "requires BuildKit" in result.stderr
    assert engine_problem(outcome, "The build stopped").code == "image.no-buildkit"


def test_limits_that_the_engine_may_not_raise_are_left_out(bare: Engine, bare_small: str) -> None:
    """Where it may, the container has them."""
    machine = as_it_says(nvidia(), bare)
    container = with_devices(bare_small, machine, Devices(nodes=("/dev/null",)))._replace(limits=LIMITS)
    outcome = run_inside(bare.environ, container, "/bin/sh", "-c", "ulimit -l")
    assert outcome.ok and outcome.stdout.strip()
    with closing(connect(container.engine, AtEngine(bare.environ))) as client:
        try:
            with started(client, container, ("/bin/true",)) as run:
                run.wait()
        except Problem as problem:
            assert problem.code == "image.rlimit"
        else:
            assert outcome.stdout == "unlimited\n"
