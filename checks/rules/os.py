"""The operating system: supported, virtual or not, its clock, and whether it is suspended."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, cannot_determine, command, error, hardware, info, warning
from checks.rules.installed import nvidia_packages
from checks.rules.other_systems import plan_supports
from checks.rules.session import in_container
from checks.rules.wsl import linux_driver

# NVML's name of a vGPU slice: `GRID P4-8Q`, since vGPU software 13 `NVIDIA A40-48Q` (NVIDIA vGPU user guide)
# what whoever starts the container must do, by its manager
_START_WITH_CARD = {
    "docker": "Start it with `--gpus all`; the machine needs NVIDIA's container toolkit (gpu-setup doctor there).",
    "podman": "Start it with `--device nvidia.com/gpu=all` (distrobox: create it with `--nvidia`); the machine needs a "
    "CDI specification (gpu-setup doctor there).",
    "lxc": "On its machine, pass the device files: Incus and LXD `config device add NAME gpu gpu` and "
    "`nvidia.runtime=true`, Proxmox `pct set ID -dev0 /dev/nvidia0 -dev1 /dev/nvidiactl -dev2 /dev/nvidia-uvm`; in "
    "here install the libraries of the same driver version, without its kernel module.",
}
_START_WITH_CARD_ANYWHERE = "Start it with the card: Docker `--gpus all`, podman `--device nvidia.com/gpu=all`."
_SLICE = r"^(?:NVIDIA )?GRID |-[0-9]{1,3}[ABCQ](?:-[0-9]+)?$"


@check(
    "os.supported",
    "gpu-setup plan supports this system",
    about="The doctor checks any Linux. `gpu-setup plan` has package names and repositories for Ubuntu 24.04 on amd64 "
    "only; on other systems it refuses and changes nothing. Read from /etc/os-release.",
    by_hand="On other systems follow the vendor's installation guide, then run the doctor again.",
)
def supported(host: Host, catalogue: Catalogue) -> Verdict:
    if host.os.id is None:
        return cannot_determine(host, "which system this is", ("os-release",), "Make /etc/os-release readable.")
    name = host.os.pretty or f"{host.os.id} {host.os.version_id or ''}".strip()
    if plan_supports(host, catalogue):
        return Ok(f"{name}.")
    systems = ", ".join(row.name for row in catalogue.systems) or "Ubuntu 24.04 on amd64"
    return (
        info(
            name,
            f"gpu-setup plan supports only {systems}.",
            "The checks work here too, but gpu-setup installs nothing on this system.",
            [("/etc/os-release", f"{host.os.id} {host.os.version_id or ''}".strip()), ("machine", host.os.arch or "?")],
            by_hand("Install the driver as the vendor's guide for this system says, then run the doctor again."),
        ),
    )


@check(
    "os.virtual",
    "This system has access to the card",
    about="A virtual machine, WSL or a container sees the card only if the host passes it through. Detected as systemd "
    "does: from /proc/version, DMI and /run/systemd/container. Informational only, except for a Linux driver in WSL: "
    "it replaces the driver that Windows provides and breaks CUDA.",
    by_hand="Virtual machine: pass the PCI device through (VFIO). Container: `--gpus all`, or `--device=/dev/kfd "
    "--device=/dev/dri`. WSL: install the driver in Windows, and no NVIDIA driver package inside WSL.",
)
def virtual(host: Host, catalogue: Catalogue) -> Verdict:
    kind = host.os.virtualisation
    if kind is None:
        return cannot_determine(
            host, "whether this is a virtual machine", ("/proc/version", "dmi", "virt"), "Run it with sudo."
        )
    if kind == "none":
        return Ok("Not a virtual machine, container or WSL.")
    seen: list[tuple[str, object]] = [("virtualisation", kind)]
    if kind == "wsl":
        libraries, names = linux_driver(host)
        modules = tuple(row.name for row in nvidia_packages(host))
        if libraries or modules:
            seen += [*(("/var/lib/dpkg/status", name) for name in modules[:4] if name not in names), *libraries]
            return (_driver_in_wsl(host, seen, tuple(dict.fromkeys((*modules, *names)))),)
        return (
            info(
                "WSL",
                "This is WSL: Windows controls the card.",
                "WSL uses the driver in Windows; gpu-setup installs none here.",
                seen,
                by_hand("Keep the Windows driver up to date, and install no Linux driver."),
            ),
        )
    container = in_container(host)
    if ours := cards.training(host, catalogue):
        if container and any(card.vendor == cards.NVIDIA for card in ours) and _has_no_card(host):
            return (_container_without_card(host, kind),)
        if container and "unknown error" in (host.nvidia.nvml_problem or "").lower():
            return (_container_lost_card(host, kind),)
        return Ok(f"Virtualisation: {kind}; the card is passed through.")
    return (
        info(
            kind,
            "This is a container without a card." if container else "This is a virtual machine without a card.",
            "It sees a card of the host only if the host passes it through.",
            seen,
            by_hand("Start the container with --gpus all, or --device=/dev/kfd --device=/dev/dri.")
            if container
            else hardware("If the host has a card, pass it through to this machine (VFIO)."),
        ),
    )


def _has_no_card(host: Host) -> bool:
    """A container sees the machine's bus, also where it was started without the card's device files and libraries."""
    nodes = host.nvidia.device_nodes
    return not host.nvidia.nvml and nodes is not None and not any(re.fullmatch(r"/dev/nvidia\d+", n) for n in nodes)


def _container_without_card(host: Host, kind: str) -> Finding:
    loaded = host.nvidia.module_version
    summary = f"This is a {kind} container, started without the NVIDIA card."
    fix = by_hand(_START_WITH_CARD.get(kind, _START_WITH_CARD_ANYWHERE), verify=("nvidia-smi",))
    if not loaded:
        summary = f"This is a {kind} container, and its machine has not loaded NVIDIA's driver."
        fix = by_hand("On the machine that runs this container: gpu-setup doctor.", verify=("nvidia-smi",))
    return error(
        kind,
        summary,
        "A container uses the driver of its machine; nothing that is installed in here replaces that.",
        [
            ("/dev", ", ".join(host.nvidia.device_nodes or ()) or "no nvidia0"),
            ("/proc/driver/nvidia/version", loaded or "not loaded"),
            ("NVML", host.nvidia.nvml_problem),
        ],
        fix,
    )


def _container_lost_card(host: Host, kind: str) -> Finding:
    """NVIDIA/nvidia-container-toolkit#48: device rules that systemd wrote again without the card."""
    return error(
        kind,
        f"This {kind} container has lost access to the card: NVML answers {host.nvidia.nvml_problem}.",
        "Its machine's systemd has written the container's device rules again (`systemctl daemon-reload`, an update), "
        "without the card.",
        [("NVML", host.nvidia.nvml_problem), ("/dev", ", ".join(host.nvidia.device_nodes or ()))],
        by_hand(
            "Restart the container. If it never worked: remove `no-cgroups = true` from "
            "/etc/nvidia-container-runtime/config.toml on its machine. To prevent it: start it with CDI, `--device "
            "nvidia.com/gpu=all` (see container.cgroup-driver on its machine).",
            verify=("nvidia-smi",),
        ),
    )


def _driver_in_wsl(host: Host, seen: list[tuple[str, object]], names: tuple[str, ...]) -> Finding:
    return (warning if host.nvidia.nvml else error)(
        "WSL",
        "A Linux NVIDIA driver is installed inside WSL.",
        "It replaces the libcuda that Windows provides, and CUDA no longer finds the card.",
        seen,
        command(
            "Remove it (CUDA toolkits can stay), then `wsl --shutdown` in Windows.",
            *("apt-get", "remove", *names),
            sudo=True,
        )
        if names
        else by_hand("Remove these files, which no package owns, then run `sudo ldconfig`."),
    )


@check(
    "os.vgpu",
    "The GPU is passed through whole (no vGPU slice)",
    about="A vGPU guest gets a slice of a card (NVIDIA GRID). It needs a licence and the guest driver that matches the "
    "host. The plan refuses such machines. Recognised by the card's name in NVML.",
    by_hand="Ask the administrator of the host for the guest driver of the same GRID release.",
    needs=(needs.NVIDIA_CARD,),
)
def vgpu(host: Host, catalogue: Catalogue) -> Verdict:
    slices = [gpu for gpu in host.nvidia.nvml or () if re.search(_SLICE, gpu.name or "")]
    if not slices:
        return Ok("The driver reports no vGPU.")
    return (
        info(
            slices[0].name or "vGPU",
            "The card is a vGPU slice that the host provides.",
            "Its driver must match the host's GRID release; a driver from Ubuntu's archive does not work.",
            [("NVML name", slices[0].name)],
            by_hand("Ask the administrator of the host for the driver; gpu-setup installs none here."),
        ),
    )


# seconds that timesyncd gets after a boot
_TIME_TO_SYNCHRONISE = 600
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _build_date(version: str | None) -> str | None:
    """The day in a kernel's banner, as 2026-10-15: `… Thu Oct 15 12:00:00 UTC 2026` or Debian's `(2026-10-15)`."""
    text = (version or "")[-200:]
    if match := re.search(r"\((20[0-9]{2}-[01][0-9]-[0-3][0-9])\)", text):
        return match[1]
    match = re.search(r"\b([A-Z][a-z]{2}) +([0-9]{1,2}) [0-9:]{8} (?:[A-Z]{2,5} )?(20[0-9]{2})\b", text)
    if match is None or match[1] not in _MONTHS:
        return None
    return f"{match[3]}-{_MONTHS.index(match[1]) + 1:02d}-{int(match[2]):02d}"


@check(
    "os.clock",
    "The system clock is correct",
    about="With a slow clock (an empty battery on the mainboard, a resumed virtual machine) certificates and "
    "repositories are `not yet valid`: apt, pip and downloads fail. The clock is certainly wrong if it is before the "
    "build date of the running kernel. Whether timesyncd has reached a time server is informational only.",
    by_hand="`timedatectl` shows the state. Run `sudo timedatectl set-ntp true`; without network `sudo timedatectl "
    "set-time '2026-11-24 12:00:00'`. If the clock is wrong again after a power-off, replace the mainboard's battery.",
)
def clock(host: Host, catalogue: Catalogue) -> Verdict:
    built, now = _build_date(host.kernel.version), host.taken_at[:10]
    if built and now and now < built:
        return (
            error(
                "clock",
                f"The clock says {now}, but the running kernel was built on {built}.",
                "Certificates and repositories are then not yet valid, so all downloads fail.",
                [("clock", host.taken_at), ("/proc/version", built)],
                command("Set the clock over the network.", "timedatectl", "set-ntp", "true", sudo=True),
            ),
        )
    late = (host.kernel.uptime_seconds or 0) > _TIME_TO_SYNCHRONISE
    if host.os.clock_synchronised is False and late:
        return (
            info(
                "clock",
                "No time server has set the clock since the machine booted.",
                "The clock may still be correct; if it drifts, log times are wrong and certificates fail.",
                [("/run/systemd/timesync/synchronized", "absent")],
                command("Show why.", "timedatectl", "timesync-status"),
            ),
        )
    return (
        Ok(
            "The clock is later than the build date of the kernel"
            + (", and set over the network." if host.os.clock_synchronised else ".")
        )
        if built
        else Ok("There is no sign that the clock is wrong.")
    )


@check(
    "os.sleep",
    "The login screen does not suspend the machine",
    about="GDM, the desktop's login screen, can suspend a machine while nobody is logged in at the desktop, even if "
    "jobs run over SSH or in the background. On mains power Ubuntu's default is never, GNOME's is 15 minutes. Read "
    "from GDM's settings, overrides and schema. A warning in an SSH session, otherwise informational.",
    by_hand="In /etc/gdm3/greeter.dconf-defaults, section [org/gnome/settings-daemon/plugins/power], write "
    "`sleep-inactive-ac-type='nothing'`, then run `sudo systemctl restart gdm3` (this closes the desktop session). To "
    "disable suspend permanently: `sudo systemctl mask suspend.target`.",
    needs=(needs.CARD,),
)
def sleep(host: Host, catalogue: Catalogue) -> Verdict:
    if host.os.graphical is None and not in_container(host):
        return Unknown(
            "Cannot determine whether the machine has a login screen: systemd's default target was not found."
        )
    if not host.os.graphical:
        return Skip("The machine has no graphical login.")
    seconds = host.os.login_sleep
    if seconds is None:
        return Ok("No setting of the login screen suspends the machine.")
    if not seconds:
        return Ok(f"It never suspends the machine ({host.os.login_sleep_source}).")
    return (
        (warning if host.person.ssh else info)(
            "login screen",
            f"The login screen suspends the machine after {seconds // 60} idle minutes.",
            "A run over SSH or in the background then stops, and the machine is no longer reachable.",
            [(host.os.login_sleep_source or "GDM", f"sleep-inactive-ac-timeout {seconds}")],
            command(
                "Disable suspend, or set sleep-inactive-ac-type to nothing for GDM.",
                *("systemctl", "mask", "suspend.target"),
                sudo=True,
                verify=("systemctl", "status", "suspend.target"),
            ),
        ),
    )
