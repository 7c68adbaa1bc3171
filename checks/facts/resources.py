"""CPU, memory, disks, and services that may kill a large process early."""

from __future__ import annotations

import re

from checks.facts.gaps import Gaps, names, text, word
from checks.facts.host import Disk, DiskPurpose, Resources
from checks.facts.hub import cache_folder
from machine.local import Machine, Space
from machine.paths import folders

UNITS = "/run/systemd/units"
# services that kill processes before the kernel's own out-of-memory killer does
_OOM_KILLERS = ("systemd-oomd.service", "earlyoom.service", "nohang.service", "nohang-desktop.service")
CGROUP = "/sys/fs/cgroup"


NO_DISKS: tuple[tuple[Disk, ...], int | None] = ((), None)


def parse_meminfo(content: str) -> dict[str, int]:
    """Bytes by name; the file says kB and means KiB."""
    found = re.findall(r"^(\w+(?:\(\w+\))?):\s+([0-9]{1,15}) kB$", content, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def parse_cpuinfo(content: str) -> tuple[int | None, str | None]:
    """Logical CPUs, and the model's name (Arm's cpuinfo has none)."""
    count = len(re.findall(r"^processor\s*:", content, re.MULTILINE))
    model = re.search(r"^model name\s*:\s*(.+)$", content, re.MULTILINE)
    return count or None, " ".join(model[1].split()) if model else None


def parse_cgroup(content: str) -> tuple[str | None, str | None]:
    """This process's group: the path in the unified tree, and in version 1's memory tree (/proc/self/cgroup)."""
    unified = re.search(r"^0::(/.*)$", content, re.MULTILINE)
    memory = re.search(r"^[0-9]+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(/.*)$", content, re.MULTILINE)
    return (unified[1] if unified else None), (memory[1] if memory else None)


def parse_limit(content: str | None) -> int | None:
    """memory.max or memory.limit_in_bytes; None for `max`, and for a number near 2^63 (version 1's `max`)."""
    match = re.fullmatch(r"[0-9]{1,20}", (content or "").strip())
    return int(match[0]) if match and int(match[0]) < 1 << 62 else None


def read_resources(machine: Machine, gaps: Gaps) -> Resources:
    """Everything except `disks` and `shm_total`, which a dead network drive can block."""
    memory = parse_meminfo(text(machine, "/proc/meminfo", gaps) or "")
    cores, cpu = parse_cpuinfo(text(machine, "/proc/cpuinfo", gaps) or "")
    units = names(machine, UNITS, gaps)
    return Resources(
        cores=cores,
        cpu=cpu,
        memory_total=memory.get("MemTotal"),
        memory_available=memory.get("MemAvailable"),
        swap_total=memory.get("SwapTotal"),
        swap_free=memory.get("SwapFree"),
        # systemd keeps invocation:UNIT while the unit is active
        oom_killers=None if units is None else tuple(u for u in _OOM_KILLERS if f"invocation:{u}" in units),
        cgroup_memory_max=_memory_limit(machine, gaps),
    )


def read_disks(machine: Machine, gaps: Gaps) -> tuple[tuple[Disk, ...], int | None]:
    """The file systems that matter, and the size of /dev/shm."""
    environ = machine.session().environ
    ours = folders(environ)
    wanted: tuple[tuple[DiskPurpose, str], ...] = (
        ("home", environ.get("HOME") or "/root"),
        ("tmp", environ.get("TMPDIR") or "/tmp"),
        ("docker", "/var/lib/docker"),
        ("boot", "/boot"),
        ("state", ours.data),
        ("cache", ours.cache),
    )
    models = cache_folder(environ)
    if models and any(environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")):
        wanted += (("models", models),)
    shm = _space(machine, "/dev/shm", gaps)
    disks = tuple(_disk(machine, purpose, path, gaps) for purpose, path in wanted if path.startswith("/"))
    return disks, shm.total if shm else None


def docker_disk(machine: Machine, root: str | None, gaps: Gaps) -> Disk | None:
    """The disk of the engine's images, if they are not in the default folder."""
    return _disk(machine, "docker", root, gaps) if root else None


def _space(machine: Machine, path: str, gaps: Gaps) -> Space | None:
    """What the file system says of itself, where that can be: a broken FUSE driver may say anything."""
    space = machine.space(path)
    if space is None or (0 <= space.free < 1 << 63 and 0 <= space.total < 1 << 63):
        return space
    gaps.note(f"file system of {path}", "damaged: its size cannot be")
    return None


def _disk(machine: Machine, purpose: DiskPurpose, path: str, gaps: Gaps) -> Disk:
    space = _space(machine, path, gaps)
    if space is None:
        return Disk(purpose=purpose, path=path)
    return Disk(
        purpose=purpose,
        path=path,
        free=space.free,
        total=space.total,
        inodes_free=space.inodes_free,
        fstype=space.fstype or None,
        noexec="noexec" in space.options if space.options else None,
    )


def _memory_limit(machine: Machine, gaps: Gaps) -> int | None:
    """The smallest limit of this process's group and the groups above it; None without one."""
    unified, memory = parse_cgroup(text(machine, "/proc/self/cgroup", gaps) or "")
    limits = []
    for top, group, name in ((CGROUP, unified, "memory.max"), (f"{CGROUP}/memory", memory, "memory.limit_in_bytes")):
        while group:
            limits.append(parse_limit(word(machine, f"{top}{group.rstrip('/')}/{name}", gaps)))
            group = group.rpartition("/")[0]
        if group is not None:
            limits.append(parse_limit(word(machine, f"{top}/{name}", gaps)))
    return min((limit for limit in limits if limit is not None), default=None)
