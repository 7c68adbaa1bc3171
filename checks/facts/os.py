"""The operating system: name, architecture, virtual or not, with a graphical login or not."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, exists, names, target, text, word
from checks.facts.host import Os
from checks.facts.login_screen import read_login_sleep
from checks.facts.resources import UNITS
from machine.local import Machine

# sysfs DMI vendor and product → the words of systemd-detect-virt(1); its source src/basic/virt.c has the same table
_HYPERVISORS = (
    ("kvm", "kvm"),
    ("qemu", "kvm"),
    ("amazon ec2", "amazon"),
    ("google", "google"),
    ("vmware", "vmware"),
    ("vmw", "vmware"),
    ("innotek gmbh", "oracle"),
    ("virtualbox", "oracle"),
    ("oracle", "oracle"),
    ("xen", "xen"),
    ("bochs", "bochs"),
    ("parallels", "parallels"),
    ("bhyve", "bhyve"),
    ("microsoft corporation", "microsoft"),
    ("hyper-v", "microsoft"),
)
_LOADERS = {"/lib64/ld-linux-x86-64.so.2": "x86_64", "/lib/ld-linux-aarch64.so.1": "aarch64"}
_DISPLAY_MANAGER = "/etc/systemd/system/display-manager.service"


def parse_os_release(content: str) -> dict[str, str]:
    """KEY=value lines of os-release(5), quotes taken off."""
    found = {}
    for line in content.splitlines():
        key, sign, value = line.strip().partition("=")
        if sign and re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = re.sub(r"\\([\"'$`\\])", r"\1", value[1:-1])
            found[key] = value
    return found


def is_wsl(osrelease: str) -> bool:
    """As systemd decides it (src/basic/virt.c, detect_vm_wsl)."""
    return "microsoft" in osrelease.lower() or "wsl" in osrelease.lower()


def parse_virtualisation(osrelease: str, container: str, dmi: str, cpuinfo: str) -> str:
    """`osrelease` is the kernel's, `container` the manager's name or empty, `dmi` vendor and product on one line."""
    if is_wsl(osrelease):
        return "wsl"
    if container:
        return container
    # only x86 shows the hypervisor bit; without it a machine with a hypervisor vendor's name is a rented real one
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    if flags is not None and "hypervisor" not in flags[1].split():
        return "none"
    low = dmi.lower()
    for mark, name in _HYPERVISORS:
        if mark in low and (name != "microsoft" or "virtual" in low or mark == "hyper-v"):
            return name
    return "vm" if flags is not None else "none"


def read_os(machine: Machine, gaps: Gaps) -> Os:
    release = parse_os_release(text(machine, "/etc/os-release", gaps) or "")
    graphical = _graphical(machine, gaps)
    sleep, source = read_login_sleep(machine, gaps) if graphical else (None, None)
    return Os(
        id=release.get("ID"),
        version_id=release.get("VERSION_ID"),
        codename=release.get("VERSION_CODENAME"),
        pretty=release.get("PRETTY_NAME"),
        arch=_arch(machine, gaps),
        virtualisation=_virtualisation(machine, gaps),
        graphical=graphical,
        clock_synchronised=_clock_synchronised(machine, gaps),
        virtual_networks=_virtual_networks(machine, gaps),
        login_sleep=sleep,
        login_sleep_source=source,
    )


def _virtual_networks(machine: Machine, gaps: Gaps) -> tuple[str, ...] | None:
    found = names(machine, "/sys/class/net", gaps)
    return None if found is None else tuple(name for name in found if re.match(r"(?:virbr|lxdbr|incusbr)[0-9]+$", name))


def _clock_synchronised(machine: Machine, gaps: Gaps) -> bool | None:
    """timesyncd makes the file at its first answer; other programs (chrony, ntpd) are not checked here."""
    units = names(machine, UNITS, gaps)
    if not units or "invocation:systemd-timesyncd.service" not in units:
        return None
    return exists(machine, "/run/systemd/timesync/synchronized")


def _arch(machine: Machine, gaps: Gaps) -> str | None:
    # the file exists since Linux 6.1; older kernels: the loader that every program of this architecture needs
    found = word(machine, "/proc/sys/kernel/arch", gaps)
    return found or next((arch for loader, arch in _LOADERS.items() if exists(machine, loader)), None)


def read_container(machine: Machine, gaps: Gaps) -> str | None:
    """The manager of the container that this is (docker, podman, lxc …); None outside of one."""
    container = word(machine, "/run/systemd/container", gaps)
    if container is None and exists(machine, "/.dockerenv"):
        container = "docker"
    if container is None and exists(machine, "/run/.containerenv"):
        container = "podman"
    # systemd in WSL writes its own name there
    return None if container == "wsl" else container


def _virtualisation(machine: Machine, gaps: Gaps) -> str | None:
    osrelease = word(machine, "/proc/sys/kernel/osrelease", gaps)
    cpuinfo = text(machine, "/proc/cpuinfo", gaps)
    if osrelease is None or cpuinfo is None:
        return None
    container = read_container(machine, gaps) or ""
    dmi = [word(machine, f"/sys/class/dmi/id/{name}", gaps) or "" for name in ("sys_vendor", "product_name")]
    return parse_virtualisation(osrelease, container, " ".join(dmi), cpuinfo)


def _graphical(machine: Machine, gaps: Gaps) -> bool | None:
    """Whether the machine boots to a graphical login.

    graphical.target alone is not enough: it is also the default of Ubuntu Server. The display manager's alias decides.
    """
    default = target(machine, "/etc/systemd/system/default.target", gaps)
    default = default or target(machine, "/usr/lib/systemd/system/default.target", gaps)
    if default is None:
        return None
    return default.endswith("graphical.target") and target(machine, _DISPLAY_MANAGER, gaps) is not None
