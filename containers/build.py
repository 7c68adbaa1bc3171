"""Builds the image with the engine's BuildKit, through its own program: the API has only the classic builder.

context = Dockerfile, torch.txt, lock.txt, worker/, wheels/   (kept, so that BuildKit sends only what changed)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from containers.connection import connect, engine_errors
from containers.dockerfile import dockerfile, image_tag
from containers.engine import no_builder_problem
from containers.errors import engine_problem
from containers.model import Engine, ImageSpec
from containers.proxies import is_proxy_local, proxy_variables
from containers.spec import lock_text
from machine.errors import BadUsage, OutsideFailed
from machine.events import Emit, Event
from machine.local import Machine
from machine.paths import Paths, make

if TYPE_CHECKING:
    from docker import APIClient

STAGE = "image"
WORKER_LABEL = "gpu-setup.worker"
TORCH_LABEL = "gpu-setup.torch-verified"
# unpacked wheels once in the environment's stage and once in the image, pip's cache, and the context: measured for the
# CPU stack (2026-11-24); torch with a GPU's libraries is about three times that
ROOM_NEEDED = {"cpu": 9 << 30, "nvidia": 28 << 30, "amd": 45 << 30}
_STEP = re.compile(r"^#(\d+) \[(?:(\S+) )?(\d+)/(\d+)\] (.*)$")
_STATE = re.compile(r"^#(\d+) (CACHED|DONE|ERROR)")
_SAID = re.compile(r"^#(\d+) \d+\.\d+ (.*)$")
# buildah (podman): the stage's number comes first where there are several
_BUILDAH_STEP = re.compile(r"^(?:\[(\d+)/\d+\] )?STEP (\d+)/\d+: (.*)$")
_BUILDAH_CACHED = "--> Using cache "


class Sources(msgspec.Struct, frozen=True):
    """What an image is built from: the worker's folder and gpu-setup's version; and what the build may use: a CA
    bundle, pip's settings, a folder of wheels. `offline`: no network at all. `own_torch`: the torch in the folder of
    wheels may be another than the locked one.
    """

    worker: Path
    tool_version: str
    ca: Path | None = None
    pip_config: Path | None = None
    wheels: Path | None = None
    offline: bool = False
    own_torch: bool = False


class BuiltImage(msgspec.Struct, frozen=True):
    """The built image. `size` in bytes; `cached`: how many of `steps` came from the engine's cache."""

    id: str
    size: int
    seconds: float
    steps: int
    cached: int
    engine: str


def build_image(
    spec: ImageSpec, engine: Engine, sources: Sources, machine: Machine, paths: Paths, emit: Emit
) -> BuiltImage:
    """Build the image and return it. Raises Problem; a failed build leaves no container and no image.

    Finished steps are kept in the engine's cache, so the same command resumes where it stopped.
    """
    if engine.builder is None:
        raise no_builder_problem(engine)
    name = image_tag(spec)
    context = write_context(spec, sources, paths)
    client = connect(engine, machine)
    before = inspect_image(client, name)
    if before is None:
        check_space(spec, engine, machine)
    emit(Event("start", STAGE, f"Building {name} with {engine.kind} {engine.version or ''}".rstrip()))
    text = (context / "Dockerfile").read_text(encoding="utf-8")
    counted = r"RUN|COPY|WORKDIR" if engine.program == "docker" else r"[A-Z]+"
    progress = BuildProgress(emit, 1 + len(re.findall(rf"(?m)^(?:{counted}) ", text)))
    log = context.with_name(f"{context.name}.log")
    log.unlink(missing_ok=True)
    begin = time.monotonic()
    outcome = machine.stream(
        build_argv(engine, name, worker_digest(sources.worker), sources, context, machine.session().environ),
        progress.line,
        env={"DOCKER_BUILDKIT": "1"} if engine.program == "docker" else {},
        log=str(log),
    )
    if not outcome.ok:
        with engine_errors(f"The build of {name} failed"):
            # an engine that stopped is the cause
            client.ping()
        raise engine_problem(outcome, f"The build of {name} failed", progress.failure_output(outcome.stdout), str(log))
    found = inspect_image(client, name)
    if found is None:
        raise OutsideFailed(
            "image.lost",
            f"The build succeeded, but {engine.kind} does not have {name}.",
            "Another builder may have kept it.",
            f"{engine.program} images lists its images; run the same command again",
        )
    if before is not None and before.id != found.id:
        # the old image lost its name to the new one: without this every change leaves an untagged image
        _remove_image(client, before.id)
    seconds = time.monotonic() - begin
    emit(
        Event(
            "end", STAGE, f"{name}: {found.size / 1e9:.2f} GB, {seconds:.0f} s, {progress.cached} steps from the cache"
        )
    )
    return BuiltImage(
        id=found.id,
        size=found.size,
        seconds=round(seconds, 1),
        steps=len(progress.steps),
        cached=progress.cached,
        engine=f"{engine.kind} {engine.version or ''}".strip(),
    )


def build_argv(
    engine: Engine, name: str, worker: str, sources: Sources, context: Path, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """The engine's command. It has only the names of proxy variables: their values stay out of argv and history."""
    assert engine.builder is not None
    argv = [*engine.builder, "--tag", name, "--label", f"{WORKER_LABEL}={worker}"]
    if sources.own_torch:
        argv += ["--label", f"{TORCH_LABEL}=unverified"]
    if engine.program == "docker":
        argv += ["--progress", "plain"]
    for secret, file in (("ca", sources.ca), ("pip", sources.pip_config)):
        if file is not None:
            argv += ["--secret", f"id={secret},src={file.absolute()}"]
    for word in proxy_variables(environ):
        argv += ["--build-arg", word]
    if sources.offline:
        argv += ["--network", "none"]
    elif is_proxy_local(environ):
        argv += ["--network", "host"]
    return (*argv, str(context))


def write_context(spec: ImageSpec, sources: Sources, paths: Paths) -> Path:
    """The build's folder: always complete; unchanged files keep their times."""
    for what, file in (("--ca", sources.ca), ("--pip-config", sources.pip_config)):
        if file is not None and not file.is_file():
            raise BadUsage("image.no-file", f"{what}: {file} not found.", "", "Correct the path.")
    if sources.wheels is not None and not any(sources.wheels.glob("*.whl")):
        raise BadUsage(
            "image.no-wheels",
            f"--wheels: {sources.wheels} contains no wheels.",
            "",
            "docs/guides/containers.md shows how to fill it",
        )
    context = make(paths.cache / "image" / image_tag(spec).rpartition(":")[2])
    try:
        _write(context / "Dockerfile", dockerfile(spec, sources.tool_version).encode())
        _write(context / "torch.txt", torch_requirements(spec, sources).encode())
        _write(context / "lock.txt", lock_text(spec.lock))
        worker = sources.worker
        _mirror({file.relative_to(worker): file for file in sorted(worker.rglob("*.py"))}, context / "worker")
        wheels = sorted(sources.wheels.iterdir()) if sources.wheels else []
        _mirror({Path(file.name): file for file in wheels if file.is_file()}, context / "wheels")
    except OSError as error:
        raise OutsideFailed(
            "image.context",
            f"The build's folder {context} cannot be written.",
            f"The system says: {error.strerror or error}.",
            "Free some space or correct its owner, or set GPU_SETUP_HOME to another folder",
        ) from error
    return context


def torch_requirements(spec: ImageSpec, sources: Sources) -> str:
    """pip's requirement for torch; with the sha256 of every right wheel, where they are known, pip takes no other."""
    own = sources.own_torch and sources.wheels is not None and any(sources.wheels.glob(f"torch-{spec.torch}*.whl"))
    if own or not spec.torch_locks:
        return f"{f'torch=={spec.torch}' if own else spec.torch_requirement}\n"
    hashes = [word for lock in spec.torch_locks for word in re.findall(rb"--hash=sha256:[0-9a-f]{64}", lock_text(lock))]
    return " \\\n    ".join([f"torch=={spec.torch}", *(word.decode() for word in hashes)]) + "\n"


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)
    path.chmod(0o644)


def _mirror(wanted: dict[Path, Path], folder: Path) -> None:
    """Make `folder` contain exactly these files: links where the file system allows it, else copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.rglob("*"), reverse=True):
        if old.is_dir():
            if not any(old.iterdir()):
                old.rmdir()
        elif old.relative_to(folder) not in wanted:
            old.unlink()
    for name, source in wanted.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            new, old_stat = source.stat(), place.stat()
            if (new.st_size, new.st_mtime_ns) == (old_stat.st_size, old_stat.st_mtime_ns):
                continue
            place.unlink()
        if source.suffix == ".py":
            # its mode is part of the layer: another umask must not cause a rebuild
            shutil.copyfile(source, place)
            place.chmod(0o644)
            os.utime(place, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
            continue
        try:
            os.link(source.resolve(), place)
        except OSError:
            shutil.copy2(source, place)


def worker_digest(worker: Path) -> str:
    """sha256 over the worker's files: an image with another digest is out of date."""
    digest = hashlib.sha256()
    for file in sorted(worker.rglob("*.py")):
        digest.update(f"{file.relative_to(worker)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def check_space(spec: ImageSpec, engine: Engine, machine: Machine) -> None:
    """Refuse a build for which the disk is too small; if the engine's disk is not known, nothing is refused."""
    needed = ROOM_NEEDED[spec.vendor]
    space = machine.space(engine.root_dir) if engine.root_dir else None
    if space is not None and space.free < needed:
        raise OutsideFailed(
            "image.no-room",
            f"{space.free / 1e9:.1f} GB are free at {engine.root_dir}; the build needs about {needed / 1e9:.0f} GB.",
            "The build temporarily needs twice the space, and pip's downloads.",
            "Free some space (docker system df, docker builder prune), or move the engine's data-root",
        )


def _remove_image(client: APIClient, image: str) -> None:
    """Remove an image that has no name any more; it stays where something else uses it."""
    from docker.errors import APIError

    with suppress(APIError):
        client.remove_image(image)


class EngineImage(NamedTuple):
    """An image on the engine. `size` in bytes; `name`: its first tag, None where it has none; `created`: ISO 8601."""

    id: str
    size: int
    labels: dict[str, str]
    name: str | None
    created: str


def inspect_image(client: APIClient, name: str) -> EngineImage | None:
    """What the engine reports about an image; None when it has none with this name."""
    from docker.errors import NotFound

    with engine_errors(f"The engine cannot inspect {name}"):
        try:
            found = client.inspect_image(name)
        except NotFound:
            return None
    tags, labels = found.get("RepoTags") or (), (found.get("Config") or {}).get("Labels")
    return EngineImage(
        found["Id"], found.get("Size", 0), labels or {}, next(iter(tags), None), found.get("Created") or ""
    )


class BuildProgress:
    """Reads the plain output of BuildKit or buildah, and reports each step; keeps the output of failed steps."""

    def __init__(self, emit: Emit, total: int | None = None) -> None:
        self._emit, self._total = emit, total
        self.steps: dict[str, str] = {}
        self._ended: set[str] = set()
        self._said: dict[str, list[str]] = {}
        self._errors: list[str] = []
        self.cached = 0

    def line(self, line: str) -> None:
        if found := _STEP.match(line):
            number, stage, at, of, what = found.groups()
            if number not in self.steps:
                self.steps[number] = f"{stage or 'image'} {at}/{of}: {_short(what)}"
                self._report(self.steps[number])
        elif found := _STATE.match(line):
            number, state = found.groups()
            if state == "ERROR":
                self._errors.append(number)
            elif number in self.steps and number not in self._ended:
                self._ended.add(number)
                self.cached += state == "CACHED"
                self._report(self.steps[number])
        elif found := _SAID.match(line):
            number, words = found.groups()
            self._said[number] = [*self._said.get(number, [])[-79:], words]
            self._report_line(words)
        elif found := _BUILDAH_STEP.match(line):
            stage, step, what = found.groups()
            self._ended = set(self.steps)
            self.steps[f"{stage or 1}.{step}"] = _short(what)
            self._report(_short(what))
        elif line.startswith(_BUILDAH_CACHED):
            self.cached += 1
        else:
            self._report_line(line)

    def _report_line(self, words: str) -> None:
        """pip's and apt's own progress."""
        if words.startswith(("Collecting ", "Downloading ", "Processing ", "Installing collected", "Get:")):
            self._report(_short(words.split(" (from")[0]))

    def failure_output(self, end: str) -> str:
        """The output that explains a failure: the last lines of the failed steps, then the end of the whole output."""
        return "\n".join([*(word for number in self._errors for word in self._said.get(number, [])), end])

    def _report(self, text: str) -> None:
        self._emit(Event("progress", STAGE, text, len(self._ended), self._total, "steps"))


def _short(words: str, width: int = 90) -> str:
    # the mounts of a RUN do not help a person
    plain = re.sub(r"--mount=\S+\s*", "", " ".join(words.split())).replace("set -eu; ", "")
    return plain if len(plain) <= width else f"{plain[:width]}…"
