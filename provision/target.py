"""What the person wants for this machine: the choices that the facts cannot make."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class PlanVendor(StrEnum):
    AUTO = "auto"
    NVIDIA = "nvidia"
    AMD = "amd"


class DriverSource(StrEnum):
    """Where the kernel driver comes from: `archive` and `nvidia` for NVIDIA, `in-tree` and `dkms` for AMD."""

    AUTO = "auto"
    ARCHIVE = "archive"
    NVIDIA = "nvidia"
    IN_TREE = "in-tree"
    DKMS = "dkms"


class Rocm(StrEnum):
    """Where ROCm's libraries are: in the training image or environment, or installed on the host as well."""

    CONTAINER = "container"
    HOST = "host"


class Display(StrEnum):
    AUTO = "auto"
    DESKTOP = "desktop"
    HEADLESS = "headless"


class PlanTarget(msgspec.Struct, frozen=True, kw_only=True):
    """`toolkit`: also install the CUDA compiler on the host; `containers`: also an engine with access to the GPU.

    `docker_group` adds the person to the group `docker`, which equals root access, so only on request.
    `branch` requests one NVIDIA driver branch; new-feature branches are allowed.
    """

    vendor: PlanVendor = PlanVendor.AUTO
    source: DriverSource = DriverSource.AUTO
    display: Display = Display.AUTO
    rocm: Rocm = Rocm.CONTAINER
    branch: int | None = None
    toolkit: bool = False
    containers: bool = True
    docker_group: bool = False
