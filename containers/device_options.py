"""How the cards get into a container: options for the engine's `run`, decided from the facts.

Options of a container come to nothing only when it starts, not when it is made; so they are chosen from what
`docker info` says instead of tried.
"""

from __future__ import annotations

from checks.facts.host import Host
from checks.rules.cards import place
from containers.model import Access, Vendor
from machine.errors import Refused
from machine.local import Machine, Unreadable

KINDS = {Vendor.NVIDIA: "nvidia.com/gpu", Vendor.AMD: "amd.com/gpu"}


def access(host: Host, vendor: Vendor, amd_cdi: bool = False) -> Access | None:
    """The way for this vendor's cards on this machine; None while no engine is there or answers.

    `amd_cdi`: an AMD description lies in the engine's folders, which Host does not tell.
    """
    if vendor is Vendor.CPU:
        return Access.NONE
    docker = host.docker
    if docker.kind is None or docker.answers is False or docker.kind in ("desktop", "snap"):
        return None
    if vendor is Vendor.AMD:
        if amd_cdi:
            return Access.CDI
        return None if docker.rootless or docker.kind == "podman" else Access.NODES
    folders = {_plain(folder) for folder in docker.cdi_dirs or ()}
    described = {_plain(path.rpartition("/")[0]) for path in host.nvidia.cdi_specs or ()}
    if described & folders or (described and docker.kind == "podman"):
        return Access.CDI
    return Access.GPUS if "nvidia" in (docker.runtimes or ()) else None


def amd_described(machine: Machine, folders: tuple[str, ...]) -> bool:
    """Whether AMD's toolkit (amd-ctk cdi generate) left a description in one of the engine's folders."""
    for folder in folders:
        try:
            if any("amd" in name for name in machine.list(folder)):
                return True
        except Unreadable:
            continue
    return False


def _plain(folder: str) -> str:
    # /var/run is /run on every system that this tool knows
    return folder.rstrip("/").replace("/var/run/", "/run/")


def nvidia_uuids(host: Host, chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """UUIDs of the chosen cards (by UUID, its beginning, or PCI slot), or of all; raises Refused for one not there."""
    gpus = [gpu for gpu in host.nvidia.nvml or () if gpu.uuid]
    if not chosen:
        return tuple(gpu.uuid for gpu in gpus if gpu.uuid)
    found = []
    for word in chosen:
        fit = [gpu for gpu in gpus if gpu.uuid and (gpu.uuid.startswith(word) or place(gpu.slot) == place(word))]
        if len(fit) != 1:
            raise _no_card(word, [f"{gpu.uuid} ({gpu.name} at {gpu.slot})" for gpu in gpus])
        found.append(fit[0].uuid or "")
    return tuple(dict.fromkeys(found))


def device_options(
    host: Host, vendor: Vendor, way: Access | None, slots: tuple[str, ...], chosen: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Options of `docker run` that hand over the cards: `slots` are those that can train, `chosen` narrows them.

    NVIDIA's cards by UUID, so that a container keeps its card when the order changes. AMD's by the nodes of the chosen
    cards, and by the numbers of the groups that own them: a name would be looked up inside the image.
    """
    if vendor is Vendor.CPU:
        return ()
    if way is None:
        raise no_way(host, vendor)
    if vendor is Vendor.NVIDIA:
        uuids = nvidia_uuids(host, chosen)
        if way is Access.CDI:
            return tuple(word for uuid in uuids or ("all",) for word in ("--device", f"{KINDS[vendor]}={uuid}"))
        # the client reads a comma as the end of a field, hence the quotes
        return ("--gpus", f'"device={",".join(uuids)}"' if uuids else "all")
    if chosen:
        for word in chosen:
            if place(word) not in {place(slot) for slot in slots}:
                raise _no_card(word, list(slots))
        slots = chosen
    if way is Access.CDI and not chosen:
        return ("--device", f"{KINDS[vendor]}=all")
    nodes = [node for node in host.amd.render or () if place(node.slot) in {place(slot) for slot in slots}]
    groups = [host.amd.kfd.group if host.amd.kfd else None, *(node.group for node in nodes)]
    options = [word for path in ("/dev/kfd", *(node.path for node in nodes)) for word in ("--device", path)]
    for group in dict.fromkeys(group for group in groups if group is not None):
        options += ["--group-add", str(group)]
    return tuple(options)


def no_way(host: Host, vendor: Vendor) -> Refused:
    """Why the cards do not reach containers here, and what would change it."""
    docker = host.docker
    if docker.kind == "snap":
        return Refused(
            "image.snap",
            "Docker is installed as a snap, and cards do not reach its containers.",
            "The toolkits write /etc/docker, which the snap does not read.",
            "sudo snap remove docker, then gpu-setup plan installs docker.io",
        )
    if docker.kind == "desktop":
        return Refused(
            "image.desktop",
            "Docker Desktop runs containers in a virtual machine without the card.",
            "No option hands a card through to it on Linux.",
            "Install docker.io (gpu-setup plan) and: docker context use default",
        )
    if docker.kind == "podman":
        maker = "nvidia-ctk" if vendor is Vendor.NVIDIA else "amd-ctk"
        return Refused(
            "image.podman-cdi",
            f"podman finds no CDI description of the {vendor.value.upper()} cards.",
            "It hands cards over by such a description only.",
            f"sudo {maker} cdi generate --output=/etc/cdi/{vendor.value}.yaml",
        )
    if vendor is Vendor.AMD and docker.rootless:
        return Refused(
            "image.rootless-amd",
            "A rootless engine cannot hand over /dev/kfd.",
            "In its user namespace the groups render and video are nobody's.",
            "Use the system's engine: sudo docker, or --engine docker with DOCKER_HOST unset",
        )
    return Refused(
        "image.no-device-access",
        f"The engine has no way to hand over {vendor.value.upper()} cards.",
        "`docker info` shows neither a CDI description of them nor a runtime for them.",
        "gpu-setup plan shows the toolkit's steps",
    )


def _no_card(word: str, there: list[str]) -> Refused:
    return Refused(
        "image.no-such-card",
        f"No card, or more than one, is meant by {word!r}.",
        f"There are: {', '.join(there) or 'none'}.",
        "Give a UUID or a PCI slot from: gpu-setup facts",
    )
