"""What prevents a driver change or a reboot: logged-in users, processes, disks that ask for a passphrase."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from checks.facts.host import Host
from machine.errors import Refused
from machine.local import Machine, Unreadable
from provision.model import AptInstall, AptRemove, Plan, State

GPU_NODES = re.compile(r"/dev/(?:nvidia[0-9]+|nvidia-uvm|kfd)$")
DISPLAYS = ("Xorg", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "sway", "weston", "gdm-wayland-ses")
# the desktop has the device nodes open too; it is listed separately from compute programs
DRIVER_STEPS = (
    "nvidia-driver",
    "update",
    "amdgpu",
    "amdgpu-dkms-remove",
    "kernel",
    "rocm-remove-old",
    "nvidia-branch-lock",
)


class GpuUsers(NamedTuple):
    """Processes as `name (pid)`: those that use a GPU, and display servers."""

    computing: tuple[str, ...]
    displaying: tuple[str, ...]


def gpu_users(machine: Machine, host: Host | None = None) -> GpuUsers:
    """Processes that have the GPU's device nodes open, as far as this session may see, and those that NVML lists."""
    computing: list[str] = []
    displaying: list[str] = []
    gpus = host.nvidia.nvml if host is not None else None
    named = {pid for gpu in gpus or () for pid, _ in gpu.processes or ()}
    for name in _names(machine, "/proc"):
        if not name.isdecimal():
            continue
        comm = _word(machine, f"/proc/{name}/comm")
        if comm in DISPLAYS:
            displaying.append(f"{comm} ({name})")
        elif int(name) in named or _has_gpu_open(machine, name):
            computing.append(f"{comm or 'a process'} ({name})")
    return GpuUsers(tuple(computing), tuple(displaying))


def gpu_in_use(programs: tuple[str, ...]) -> Refused:
    return Refused(
        "apply.busy",
        f"The GPU is in use by {', '.join(programs[:4])}.",
        "Its libraries would be replaced while the program runs.",
        "Wait until it has finished or stop it; or: gpu-setup apply --while-busy",
    )


def changes_driver(plan: Plan) -> bool:
    """Whether an open step changes the driver's packages."""
    return any(
        step.id in DRIVER_STEPS and step.state is State.TODO and isinstance(step.action, (AptInstall, AptRemove))
        for step in plan.steps
    )


def reboot_blockers(machine: Machine, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Why this machine should not be rebooted unattended now, each as a sentence."""
    found = []
    if environ.get("SSH_CONNECTION") and (disk := locked_root_disk(machine)):
        found.append(
            f"The root file system is on the encrypted disk {disk}, which asks for its passphrase at the console, and "
            "you are connected over SSH: the machine would wait for a person at the console."
        )
    if resync := re.search(r"\b(resync|recovery|reshape)\b\s*=\s*([0-9.]+%)", _text(machine, "/proc/mdstat")):
        found.append(f"A RAID array is in {resync[1]} ({resync[2]}).")
    others = sorted(
        {line.split()[0] for line in _logins(machine)} - {machine.session().user, environ.get("SUDO_USER", "")}
    )
    if others:
        found.append(f"Other users are logged in: {', '.join(others)}.")
    running = machine.run(("docker", "ps", "--quiet"), timeout=10)
    if running.ok and running.stdout.split():
        found.append(f"{len(running.stdout.split())} containers are running.")
    inhibitors = machine.run(("systemd-inhibit", "--list", "--no-legend", "--mode=block"), timeout=10)
    if inhibitors.ok:
        blocking = [line for line in inhibitors.stdout.splitlines() if "shutdown" in line]
        if blocking:
            found.append(f"A program blocks the shutdown now: {blocking[0].split()[0]}.")
    return tuple(found)


def locked_root_disk(machine: Machine) -> str | None:
    """The encrypted disk under / that only a person can unlock; None where there is none."""
    source = next(
        (line.split()[0] for line in _text(machine, "/proc/self/mounts").splitlines() if line.split()[1:2] == ["/"]), ""
    )
    if not source.startswith("/dev/"):
        return None
    under = _encrypted_below(machine, source)
    if under is None:
        return None
    options = ""
    for line in _text(machine, "/etc/crypttab").splitlines():
        words = line.split()
        if len(words) >= 2 and not words[0].startswith("#"):
            keyed = len(words) > 2 and words[2] not in ("none", "-")
            options += " keyfile" if keyed else ""
            options += " " + (words[3] if len(words) > 3 else "")
    unattended = "keyfile" in options or any(
        word in options for word in ("tpm2-device=", "fido2-device=", "pkcs11-uri=")
    )
    helpers = ("/usr/share/initramfs-tools/hooks/clevis", "/etc/dropbear/initramfs/authorized_keys")
    return None if unattended or any(_exists(machine, path) for path in helpers) else under


def _encrypted_below(machine: Machine, source: str) -> str | None:
    """Follows /sys/class/block from the mounted device through its slaves to a dm-crypt device."""
    try:
        name = machine.link(source).rpartition("/")[2] if source.startswith("/dev/mapper/") else source[5:]
    except Unreadable:
        name = source[5:]
    waiting, seen = [name], set()
    while waiting:
        block = waiting.pop()
        if block in seen:
            continue
        seen.add(block)
        if _word(machine, f"/sys/class/block/{block}/dm/uuid").startswith("CRYPT-"):
            return _word(machine, f"/sys/class/block/{block}/dm/name") or block
        waiting += _names(machine, f"/sys/class/block/{block}/slaves")
    return None


def _has_gpu_open(machine: Machine, pid: str) -> bool:
    for fd in _names(machine, f"/proc/{pid}/fd"):
        try:
            if GPU_NODES.search(machine.link(f"/proc/{pid}/fd/{fd}")):
                return True
        except Unreadable:
            continue
    return False


def _logins(machine: Machine) -> list[str]:
    outcome = machine.run(("who",), timeout=5)
    return [line for line in outcome.stdout.splitlines() if line.split()] if outcome.ok else []


def _names(machine: Machine, path: str) -> tuple[str, ...]:
    try:
        return machine.list(path)
    except Unreadable:
        return ()


def _text(machine: Machine, path: str) -> str:
    try:
        return machine.read(path).decode("utf-8", "replace")
    except Unreadable:
        return ""


def _word(machine: Machine, path: str) -> str:
    return _text(machine, path).strip()


def _exists(machine: Machine, path: str) -> bool:
    try:
        machine.stat(path)
    except Unreadable:
        return False
    return True
