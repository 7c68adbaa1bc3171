"""How containers get access to the GPUs, decided from the facts.

Wrong options fail only when the container starts, not when it is created; so they are chosen from `docker info` instead
of by trying.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from checks.catalogue import catalogue
from checks.facts.host import Host
from checks.rules.cards import bus_address
from checks.rules.container.cdi_schema import engine_in_use, generate, unreadable
from containers.model import Access, ImageVendor
from machine.errors import Refused
from machine.local import Machine, Unreadable

KINDS = {ImageVendor.NVIDIA: "nvidia.com/gpu", ImageVendor.AMD: "amd.com/gpu"}


class Devices(NamedTuple):
    """The devices of a container: `cdi` names; `gpus`, NVIDIA UUIDs or "all" for the engine's --gpus; `nodes`, paths of
    device files (or PATH:PATH_INSIDE), with the numbers of their `groups`.
    """

    cdi: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        """As a part of HostConfig in the engine's API."""
        requests: list[dict[str, Any]] = [{"Driver": "cdi", "DeviceIDs": list(self.cdi)}] if self.cdi else []
        if self.gpus:
            which = {"Count": -1} if self.gpus == ("all",) else {"DeviceIDs": list(self.gpus)}
            requests.append({"Driver": "", "Capabilities": [["gpu"]], "Options": {}, **which})
        paths = [node.partition(":") for node in self.nodes]
        return {
            "DeviceRequests": requests,
            "Devices": [
                {"PathOnHost": outside, "PathInContainer": inside or outside, "CgroupPermissions": "rwm"}
                for outside, _, inside in paths
            ],
            "GroupAdd": list(self.groups),
        }

    def argv(self) -> list[str]:
        """As options of the engine's program."""
        words = [word for name in (*self.cdi, *self.nodes) for word in ("--device", name)]
        if self.gpus:
            # the program reads a comma as the end of a field, hence the quotes
            words += ["--gpus", "all" if self.gpus == ("all",) else f'"device={",".join(self.gpus)}"']
        return words + [word for group in self.groups for word in ("--group-add", group)]


NO_DEVICES = Devices()


def device_access(host: Host, vendor: ImageVendor, amd_cdi: bool = False) -> Access | None:
    """How containers get this vendor's GPUs on this machine; None without an engine that answers.

    `amd_cdi`: the engine's folders contain an AMD description, which Host does not show.
    """
    if vendor is ImageVendor.CPU:
        return Access.NONE
    docker = host.docker
    if docker.kind is None or docker.answers is False or docker.kind == "snap":
        return None
    if docker.kind == "desktop":
        # on Windows its VM has the driver of Windows, as every WSL system
        return Access.GPUS if host.wsl is not None and vendor is ImageVendor.NVIDIA else None
    if vendor is ImageVendor.AMD:
        if amd_cdi:
            return Access.CDI
        return None if docker.rootless or docker.kind == "podman" else Access.NODES
    folders = {_plain(folder) for folder in docker.cdi_dirs or ()}
    refused = {path for _, path, _ in unreadable(host, catalogue(), (engine_in_use(host),))}
    described = {_plain(path.rpartition("/")[0]) for path in host.nvidia.cdi_specs or () if path not in refused}
    if described & folders or (described and docker.kind == "podman"):
        return Access.CDI
    return Access.GPUS if "nvidia" in (docker.runtimes or ()) else None


def has_amd_cdi(machine: Machine, folders: tuple[str, ...]) -> bool:
    """Whether one of the engine's folders has a description by AMD's toolkit (amd-ctk cdi generate)."""
    for folder in folders:
        try:
            if any("amd" in name for name in machine.list(folder)):
                return True
        except Unreadable:
            continue
    return False


def _plain(folder: str) -> str:
    # /var/run is /run on every system that this tool supports
    return folder.rstrip("/").replace("/var/run/", "/run/")


def nvidia_uuids(host: Host, chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """UUIDs of the chosen GPUs (by UUID, its beginning, or PCI slot), or of all; raises Refused for one not found."""
    gpus = [gpu for gpu in host.nvidia.nvml or () if gpu.uuid]
    if not chosen:
        return tuple(gpu.uuid for gpu in gpus if gpu.uuid)
    found = []
    for word in chosen:
        fit = [
            gpu
            for gpu in gpus
            if gpu.uuid and (gpu.uuid.startswith(word) or bus_address(gpu.slot) == bus_address(word))
        ]
        if len(fit) != 1:
            raise _no_card(word, [f"{gpu.uuid} ({gpu.name} at {gpu.slot})" for gpu in gpus])
        found.append(fit[0].uuid or "")
    return tuple(dict.fromkeys(found))


def device_options(
    host: Host, vendor: ImageVendor, way: Access | None, slots: tuple[str, ...], chosen: tuple[str, ...] = ()
) -> Devices:
    """The devices that give access to the GPUs: `slots` are those that can train, `chosen` selects of them.

    NVIDIA GPUs by UUID, so that a container keeps its GPU when the order changes. AMD GPUs by their device nodes and
    the numbers of the groups that own these: the engine would look up a group's name inside the image.
    """
    if vendor is ImageVendor.CPU:
        return NO_DEVICES
    if way is None:
        raise no_access_problem(host, vendor)
    if vendor is ImageVendor.NVIDIA:
        uuids = nvidia_uuids(host, chosen)
        if way is Access.CDI:
            return Devices(cdi=tuple(f"{KINDS[vendor]}={uuid}" for uuid in uuids or ("all",)))
        return Devices(gpus=uuids or ("all",))
    if chosen:
        for word in chosen:
            if bus_address(word) not in {bus_address(slot) for slot in slots}:
                raise _no_card(word, list(slots))
        slots = chosen
    if way is Access.CDI and not chosen:
        return Devices(cdi=(f"{KINDS[vendor]}=all",))
    nodes = [node for node in host.amd.render or () if bus_address(node.slot) in {bus_address(slot) for slot in slots}]
    groups = [host.amd.kfd.group if host.amd.kfd else None, *(node.group for node in nodes)]
    numbers = dict.fromkeys(str(group) for group in groups if group is not None)
    return Devices(nodes=("/dev/kfd", *(node.path for node in nodes)), groups=tuple(numbers))


def no_access_problem(host: Host, vendor: ImageVendor) -> Refused:
    """Why containers have no access to the GPUs here, and what to do."""
    docker = host.docker
    if docker.kind == "snap":
        return Refused(
            "image.snap",
            "Docker is installed as a snap, and its containers have no access to GPUs.",
            "The toolkits write /etc/docker, which the snap does not read.",
            "sudo snap remove docker, then gpu-setup plan installs docker.io",
        )
    if docker.kind == "desktop":
        return Refused(
            "image.desktop",
            "Docker Desktop runs containers in a virtual machine without the GPU.",
            "On Linux, no option gives it access to a GPU.",
            "Install docker.io (gpu-setup plan) and: docker context use default",
        )
    for engine, path, schema in unreadable(host, catalogue(), (engine_in_use(host),)):
        return Refused(
            "image.cdi-version",
            f"{engine.name} {engine.version} cannot read {path}: it has CDI version {schema}.",
            f"{engine.name} reads {engine.reader.schema} from {engine.reader.since} on.",
            "gpu-setup plan: the toolkit then writes an older version; or train with --runtime venv",
        )
    if docker.kind == "podman":
        path = f"/etc/cdi/{vendor.value}.yaml"
        by_amd = ("amd-ctk", "cdi", "generate", f"--output={path}")
        argv = generate(host, catalogue(), path) if vendor is ImageVendor.NVIDIA else by_amd
        return Refused(
            "image.podman-cdi",
            f"podman finds no CDI description of the {vendor.value.upper()} GPUs.",
            "podman needs such a description to give containers a GPU.",
            " ".join(("sudo", *argv)),
        )
    if vendor is ImageVendor.AMD and docker.rootless:
        return Refused(
            "image.rootless-amd",
            "A rootless engine cannot give containers /dev/kfd.",
            "Its user namespace does not include the groups render and video.",
            "Use the system's engine: sudo docker, or --engine docker with DOCKER_HOST unset",
        )
    return Refused(
        "image.no-device-access",
        f"The engine cannot give containers {vendor.value.upper()} GPUs.",
        "`docker info` shows neither CDI nor a runtime for them.",
        "gpu-setup plan shows the toolkit's steps",
    )


def _no_card(word: str, there: list[str]) -> Refused:
    return Refused(
        "image.no-such-card",
        f"{word!r} matches no GPU, or more than one.",
        f"The GPUs are: {', '.join(there) or 'none'}.",
        "Give a UUID or a PCI slot from: gpu-setup facts",
    )
