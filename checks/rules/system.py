"""The operating system, and whether it stands on the metal."""

from __future__ import annotations

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Verdict, check
from checks.rules import cards
from checks.rules.finding import by_hand, hardware, info, unread, warning
from checks.rules.installed import nvidia_packages

_CONTAINERS = ("docker", "podman", "lxc", "container", "systemd-nspawn", "oci")


@check(
    "os.supported",
    "The system is one that the plan knows",
    about="The doctor judges any Linux. Package names and repositories of `gpu-setup plan` hold for Ubuntu 24.04 "
    "on amd64 only, so on another system it refuses and changes nothing. From /etc/os-release.",
    by_hand="On other systems follow the vendor's install guide, then let the doctor check the result.",
)
def supported(host: Host, catalogue: Catalogue) -> Verdict:
    if host.os.id is None:
        return unread(host, "Which system this is", ("os-release",), "Make /etc/os-release readable.")
    name = host.os.pretty or f"{host.os.id} {host.os.version_id or ''}".strip()
    if any(
        row.id == host.os.id
        and row.version_id == host.os.version_id
        and (host.os.arch is None or host.os.arch in row.architectures)
        for row in catalogue.systems
    ):
        return Ok(f"{name}.")
    systems = ", ".join(row.name for row in catalogue.systems) or "Ubuntu 24.04 on amd64"
    return (
        info(
            name,
            f"gpu-setup plan knows only {systems}.",
            "The checks hold here too, but nothing would be installed.",
            [("/etc/os-release", f"{host.os.id} {host.os.version_id or ''}".strip()), ("machine", host.os.arch or "?")],
            by_hand("Install the driver by the vendor's guide for this system; the doctor then checks it."),
        ),
    )


@check(
    "os.virtual",
    "The card is within reach of this system",
    about="In a virtual machine, in WSL or in a container the card is there only if the host passes it through. "
    "Read from systemd's own signs: /proc/version, DMI, /run/systemd/container. Only said, except for a Linux "
    "driver in WSL: it replaces the one that Windows lends and breaks CUDA.",
    by_hand="Virtual machine: pass the PCI device through (VFIO). Container: `--gpus all`, or `--device=/dev/kfd "
    "--device=/dev/dri`. WSL: install the driver in Windows, and no NVIDIA driver package inside.",
)
def virtual(host: Host, catalogue: Catalogue) -> Verdict:
    kind = host.os.virtualisation
    if kind is None:
        return unread(host, "Whether this is a virtual machine", ("/proc/version", "dmi", "virt"), "Run it with sudo.")
    if kind == "none":
        return Ok("The system runs on the machine itself.")
    seen: list[tuple[str, object]] = [("virtualisation", kind)]
    if kind == "wsl":
        strangers = nvidia_packages(host)
        if strangers:
            return (_driver_in_wsl(host, [*seen, *(("/var/lib/dpkg/status", row.name) for row in strangers[:4])]),)
        return (
            info(
                "WSL",
                "This is WSL: the card belongs to Windows.",
                "The driver is the one in Windows; gpu-setup installs none here.",
                seen,
                by_hand("Keep the Windows driver new, and install no Linux driver."),
            ),
        )
    if cards.training(host, catalogue):
        return Ok(f"{kind}, and the card is passed through.")
    container = kind.startswith(_CONTAINERS)
    return (
        info(
            kind,
            "This is a container, and it sees no card." if container else "This is a virtual machine without a card.",
            "A card of the host is visible here only if the host hands it through.",
            seen,
            by_hand("Start the container with --gpus all, or --device=/dev/kfd --device=/dev/dri.")
            if container
            else hardware("If the host has a card, pass it through to this machine (VFIO)."),
        ),
    )


def _driver_in_wsl(host: Host, seen: list[tuple[str, object]]) -> Finding:
    return warning(
        "WSL",
        "A Linux NVIDIA driver is installed inside WSL.",
        "It replaces the libcuda that Windows lends, and CUDA no longer finds the card.",
        seen,
        by_hand("Remove the nvidia-driver packages (keep CUDA toolkits): sudo apt-get remove 'nvidia-driver-*'."),
    )


@check(
    "os.vgpu",
    "The card is a whole one",
    about="A vGPU guest sees a slice of a card under NVIDIA's GRID, with a driver that must come from the host's "
    "vendor and a licence. The plan refuses such machines. Recognised by NVML's name of the card.",
    by_hand="Ask whoever runs the host for the guest driver of the same GRID release.",
)
def vgpu(host: Host, catalogue: Catalogue) -> Verdict:
    if not cards.training(host, catalogue, cards.NVIDIA):
        return Skip(cards.none_of(host, catalogue, cards.NVIDIA))
    slices = [gpu for gpu in host.nvidia.nvml or () if (gpu.name or "").startswith(("GRID ", "NVIDIA GRID"))]
    if not slices:
        return Ok("Not a vGPU guest, as far as the driver says.")
    return (
        info(
            slices[0].name or "vGPU",
            "The card is a slice that the host hands out (vGPU).",
            "Its driver has to match the host's GRID release; one from the archive would not work.",
            [("NVML name", slices[0].name)],
            by_hand("Leave the driver to whoever runs the host; gpu-setup installs none here."),
        ),
    )
