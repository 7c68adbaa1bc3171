"""The image to build, the engine, and how containers get the GPUs. Frozen; None: not known."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec


class ImageVendor(StrEnum):
    AUTO = "auto"
    NVIDIA = "nvidia"
    AMD = "amd"
    CPU = "cpu"


class Access(StrEnum):
    """How a container gets the GPUs: with CDI, the engine's --gpus, device nodes, or not at all."""

    CDI = "cdi"
    GPUS = "gpus"
    NODES = "nodes"
    NONE = "none"


class ImageSpec(msgspec.Struct, frozen=True):
    """Everything that determines the Dockerfile.

    `base` is written as in FROM, with its digest where one is known. `torch` is the version, `torch_requirement` pip's
    argument; `torch_locks` are the locks of its right wheels (empty: no sha256 is known). torch.version.cuda and .hip
    must start with `cuda` and `hip`; None: they must be None. `targets` are the compute capabilities or gfx names of
    the GPUs, `cards` their names. `access`: None without an engine. `because`: why this stack; `notes`: what a person
    should know; `verified`: how the stack was verified.
    """

    stack: str
    vendor: Literal["nvidia", "amd", "cpu"]
    runtime: str
    base: str
    base_known: bool
    python: str
    packages: tuple[str, ...]
    build_packages: tuple[str, ...]
    torch: str
    torch_requirement: str
    torch_index: str
    torch_locks: tuple[str, ...]
    torch_brings: bool
    cuda: str | None
    hip: str | None
    axolotl: str
    bitsandbytes: str
    lock: str
    lock_digest: str
    verified: str
    because: str
    targets: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    access: Access | None = None
    notes: tuple[str, ...] = ()


class Engine(msgspec.Struct, frozen=True):
    """The chosen container engine: its program, and in `can` and `cannot` its abilities on this machine, as sentences.

    `kind` as in Host.docker. `builder`: the first words of a build command (`docker buildx build`); None: it cannot
    build. `root_dir`: where it keeps images.
    """

    kind: str
    program: Literal["docker", "podman"]
    version: str | None
    rootless: bool
    cdi: tuple[str, ...]
    nvidia_runtime: bool
    builder: tuple[str, ...] | None
    root_dir: str | None = None
    can: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()
