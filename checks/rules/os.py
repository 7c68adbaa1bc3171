"""The operating system: known, on the metal, at the right time, and awake."""

from __future__ import annotations

import re

from checks.catalogue import Catalogue
from checks.facts.host import Host
from checks.model import Finding, Ok, Skip, Unknown, Verdict, check
from checks.rules import cards, needs
from checks.rules.finding import by_hand, command, error, hardware, info, unread, warning
from checks.rules.installed import nvidia_packages
from checks.rules.session import in_container

# NVML's name of a slice: `GRID P4-8Q`, since vGPU software 13 `NVIDIA A40-48Q` (NVIDIA vGPU user guide)
_SLICE = r"^(?:NVIDIA )?GRID |-[0-9]{1,3}[ABCQ](?:-[0-9]+)?$"


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
    container = in_container(host)
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
    needs=(needs.NVIDIA_CARD,),
)
def vgpu(host: Host, catalogue: Catalogue) -> Verdict:
    slices = [gpu for gpu in host.nvidia.nvml or () if re.search(_SLICE, gpu.name or "")]
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


# seconds that timesyncd gets after a start
_TIME_TO_SYNCHRONISE = 600
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _built(version: str | None) -> str | None:
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
    "The clock is right",
    about="With a clock that is behind (an empty board battery, a resumed virtual machine) certificates and "
    "repositories are `not yet valid`: apt, pip and downloads fail. A clock before the day on which the running "
    "kernel was built is wrong for sure. Whether timesyncd has reached a time server is only said.",
    by_hand="`timedatectl` shows it. `sudo timedatectl set-ntp true`; without network `sudo timedatectl set-time "
    "'2026-11-24 12:00:00'`. Renew the board's battery if it comes back.",
)
def clock(host: Host, catalogue: Catalogue) -> Verdict:
    built, now = _built(host.kernel.version), host.taken_at[:10]
    if built and now and now < built:
        return (
            error(
                "clock",
                f"The clock says {now}, but the running kernel was built on {built}.",
                "Certificates and repositories are not yet valid then: downloads of any kind fail.",
                [("clock", host.taken_at), ("/proc/version", built)],
                command("Let it be set over the network.", "timedatectl", "set-ntp", "true", sudo=True),
            ),
        )
    late = (host.kernel.uptime_seconds or 0) > _TIME_TO_SYNCHRONISE
    if host.os.clock_synchronised is False and late:
        return (
            info(
                "clock",
                "The clock has not been set by a time server since the machine started.",
                "It may be right all the same; logs and certificates suffer if it drifts.",
                [("/run/systemd/timesync/synchronized", "absent")],
                command("See why.", "timedatectl", "timesync-status"),
            ),
        )
    return (
        Ok(
            "The clock is later than the kernel's build"
            + (", and set over the network." if host.os.clock_synchronised else ".")
        )
        if built
        else Ok("Nothing says that the clock is wrong.")
    )


@check(
    "os.sleep",
    "The login screen does not send the machine to sleep",
    about="GDM, the desktop's login screen, may suspend a machine at which nobody sits, whatever runs on it over SSH "
    "or in the background. Ubuntu's default on mains power is never, GNOME's is 15 minutes. Read from GDM's "
    "settings, overrides and schema; a warning in an SSH session, else only said.",
    by_hand="In /etc/gdm3/greeter.dconf-defaults, section [org/gnome/settings-daemon/plugins/power], write "
    "`sleep-inactive-ac-type='nothing'`, then `sudo systemctl restart gdm3` (it ends the desktop). Or for good: "
    "`sudo systemctl mask suspend.target`.",
    needs=(needs.CARD,),
)
def sleep(host: Host, catalogue: Catalogue) -> Verdict:
    if host.os.graphical is None and not in_container(host):
        return Unknown("Whether the machine has a login screen is not known: systemd's default target was not found.")
    if not host.os.graphical:
        return Skip("The machine has no graphical login.")
    seconds = host.os.login_sleep
    if seconds is None:
        return Ok("No setting of the login screen's sends the machine to sleep.")
    if not seconds:
        return Ok(f"It never does ({host.os.login_sleep_source}).")
    return (
        (warning if host.person.ssh else info)(
            "login screen",
            f"The login screen suspends the machine after {seconds // 60} minutes without anybody at it.",
            "A run over SSH or in the background stops there, and the machine is no longer reachable.",
            [(host.os.login_sleep_source or "GDM", f"sleep-inactive-ac-timeout {seconds}")],
            command(
                "Forbid suspending, or set sleep-inactive-ac-type to nothing for GDM.",
                *("systemctl", "mask", "suspend.target"),
                sudo=True,
                verify=("systemctl", "status", "suspend.target"),
            ),
        ),
    )
