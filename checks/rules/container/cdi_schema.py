"""Which container engine here can read CDI descriptions of which version."""

from __future__ import annotations

from typing import NamedTuple

from checks.catalogue import Catalogue, CdiReader
from checks.facts.host import Host
from checks.rules.cards import numbers
from checks.rules.installed import packages

# keeps the toolkit (1.19.1 or newer) to CDI 0.5.0 (its release notes, known issues)
FLAG = "no-additional-gids-for-device-nodes"
VARIABLE = "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS"


# what it writes then, and without devices that need groups
_WITH_FLAG = (0, 5, 0)


class OldEngine(NamedTuple):
    """An engine that finds cards with CDI only, or also, and is older than the version that `reader` names."""

    name: str
    version: str
    reader: CdiReader

    @property
    def has_cdi(self) -> bool:
        """Whether it reads at least what the toolkit writes with the flag."""
        return numbers(self.reader.schema) > _WITH_FLAG


def old_engines(host: Host, catalogue: Catalogue) -> tuple[OldEngine, ...]:
    """Engines here that find cards with CDI and cannot read each version of it, each with the first row that it misses.

    One of unknown version is left out.
    """
    docker, found = host.docker, dict[str, str | None]()
    podman = [row.version for row in packages(host, "podman") if row.name == "podman"]
    if docker.kind == "podman" or podman:
        found["podman"] = podman[0] if podman else docker.version
    if docker.kind not in (None, "podman") and docker.cdi_dirs:
        found["docker"] = docker.version
    old = []
    for name, version in found.items():
        rows = (row for row in catalogue.cdi_readers if row.engine == name)
        if version and _release(version):
            missed = next((row for row in rows if _release(version) < _release(row.since)), None)
            old += [OldEngine(name, version, missed)] if missed else []
    return tuple(old)


def engine_in_use(host: Host) -> str:
    """The engine of `Host.docker`, by its name in the catalogue."""
    return "podman" if host.docker.kind == "podman" else "docker"


def lacks_cdi(host: Host, catalogue: Catalogue) -> OldEngine | None:
    """The engine in use, if it is older than CDI."""
    old = (engine for engine in old_engines(host, catalogue) if engine.name == engine_in_use(host))
    return next((engine for engine in old if not engine.has_cdi), None)


def gpus_by_cdi(host: Host) -> bool:
    """Docker's --gpus uses CDI, and not NVIDIA's hook, from 29.2 on."""
    return bool(host.nvidia.cdi_specs) and numbers(host.docker.version) >= (29, 2)


def is_refreshed(path: str) -> bool:
    """Whether the toolkit's unit writes this description, at each boot and driver change; others a person wrote."""
    return path.startswith("/run/cdi/")


def unreadable(
    host: Host, catalogue: Catalogue, engines: tuple[str, ...] = ("docker", "podman")
) -> tuple[tuple[OldEngine, str, str], ...]:
    """(engine, path, version) of each CDI description that one of these engines refuses."""
    return tuple(
        (engine, path, schema)
        for engine in old_engines(host, catalogue)
        if engine.name in engines
        for path, schema in host.nvidia.cdi_schemas or ()
        if numbers(schema) >= numbers(engine.reader.schema)
    )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number: an epoch may come before, and a packager's number after (`5:28.5.2-1`, `4.9.3+ds1`)."""
    return numbers(version.rpartition(":")[2])[:2]


def generate(host: Host, catalogue: Catalogue, path: str) -> tuple[str, ...]:
    """The command that writes a description which the engine in use can read."""
    old = any(engine.has_cdi and engine.name == engine_in_use(host) for engine in old_engines(host, catalogue))
    flag = (f"--feature-flag={FLAG}",) if old and numbers(host.nvidia.container_toolkit)[:2] >= (1, 19) else ()
    return ("nvidia-ctk", "cdi", "generate", *flag, f"--output={path}")
