"""What an image is to be, which engine is there, and how the cards get into its containers. Frozen; None: not known."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Vendor(StrEnum):
    AUTO = "auto"
    NVIDIA = "nvidia"
    AMD = "amd"
    CPU = "cpu"


class Access(StrEnum):
    """How a container gets the cards: by CDI, by the engine's --gpus, by device nodes, or not at all."""

    CDI = "cdi"
    GPUS = "gpus"
    NODES = "nodes"
    NONE = "none"


class ImageSpec(msgspec.Struct, frozen=True):
    """Everything that the Dockerfile says.

    `base` is written as in FROM, with its digest where one is known. `torch` is the version, `torch_requirement` what
    pip is asked for. `cuda` and `hip` are how torch.version.cuda and .hip must begin; None: must not be there.
    `targets` are the compute capabilities or gfx names of the cards, `cards` their names. `access`: None while no
    engine is there. `because` says why this stack, `notes` what is to be known. `verified` is the stack's word.
    """

    stack: str
    vendor: str
    runtime: str
    base: str
    base_known: bool
    python: str
    packages: tuple[str, ...]
    build_packages: tuple[str, ...]
    torch: str
    torch_requirement: str
    torch_index: str
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
    """A container engine that was chosen: its program, and what it can and cannot do here, in sentences.

    `kind` as in Host.docker. `builder` is the argv that begins a BuildKit build (`docker buildx build`), None: none;
    `buildkit` is what DOCKER_BUILDKIT must be for it. `root_dir`: where it keeps images.
    """

    kind: str
    program: str
    version: str | None
    rootless: bool
    cdi: tuple[str, ...]
    nvidia_runtime: bool
    builder: tuple[str, ...] | None
    root_dir: str | None = None
    can: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()
