"""The facts as text: one line per fact, "not known" where it could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from checks.catalogue import Catalogue
from checks.facts.host import Amd, Apt, Docker, Firmware, Host, Kernel, Nvidia, PciCard, Resources, Wsl
from checks.rules.cards import name
from gpu_setup.render.layout import wrap_text
from gpu_setup.terminal import style

UNKNOWN = "not known"
ENGINES = {
    "docker.io": "Docker (docker.io)",
    "docker-ce": "Docker (docker-ce)",
    "snap": "Docker (snap)",
    "desktop": "Docker Desktop",
    "podman": "Podman",
    "other": "Docker",
}
ENGINE_PROBLEMS = {
    "not-running": "not running",
    "permission-denied": "you lack permission to use it",
    "timed-out": "it does not answer in time",
}
Row = tuple[str, str]


def facts_text(host: Host, catalogue: Catalogue) -> str:
    """Sections of `label  value`, then what could not be read and why."""
    lines: list[str] = []
    for title, rows in (
        ("system", _system(host)),
        ("kernel", _kernel(host.kernel)),
        ("firmware", _firmware(host.firmware)),
        ("cards", _cards(host.cards, catalogue)),
        ("NVIDIA", _nvidia(host.nvidia)),
        ("AMD", _amd(host.amd)),
        ("packages", _apt(host.apt)),
        ("containers", _docker(host.docker)),
        ("resources", _resources(host.resources)),
    ):
        lines.append(style(title, bold=True))
        for label, value in rows:
            lines += wrap_text(value, " " * 20, first=f"  {label:<18}")
    if host.unread:
        lines.append(style("could not be read", bold=True))
        for unread in host.unread:
            lines += wrap_text(f"{unread.source}: {unread.reason}", "    ", first="  ")
    return "\n".join(lines) + "\n"


def _system(host: Host) -> list[Row]:
    person = host.person
    return [
        ("system", _or_unknown(host.os.pretty)),
        ("architecture", _or_unknown(host.os.arch)),
        ("virtual machine", _or_unknown(host.os.virtualisation)),
        *([("WSL", _wsl(host.wsl))] if host.wsl is not None else []),
        ("graphical", _yes(host.os.graphical)),
        ("python3", _join_words((host.python.version, host.python.path))),
        ("C compiler", _or_none(host.python.compiler)),
        ("groups", _join_list(person.groups)),
    ]


def _wsl(wsl: Wsl) -> str:
    device = "not known whether /dev/dxg exists" if wsl.dxg is None else "/dev/dxg" if wsl.dxg else "no /dev/dxg"
    inside = f", in a {wsl.container} container" if wsl.container else ""
    return f"WSL {wsl.generation}{inside}, {device}; from Windows: {_join_list(wsl.libraries)}"


def _kernel(kernel: Kernel) -> list[Row]:
    return [
        ("running", _or_unknown(kernel.release)),
        ("next boot", _or_unknown(kernel.next_boot)),
        ("installed", _join_list(kernel.installed)),
        ("headers", _join_list(kernel.headers)),
        (
            "GPU modules",
            _join_list(None if kernel.modules is None else [f"{m.name} ({m.origin})" for m in kernel.modules]),
        ),
    ]


def _firmware(firmware: Firmware) -> list[Row]:
    return [
        ("UEFI", _yes(firmware.uefi)),
        ("Secure Boot", _yes(firmware.secure_boot)),
        ("lockdown", _or_unknown(firmware.lockdown)),
        ("board", _or_unknown(firmware.board)),
    ]


def _cards(cards: tuple[PciCard, ...] | None, catalogue: Catalogue) -> list[Row]:
    if not cards:
        return [("PCI", UNKNOWN if cards is None else "no graphics card")]
    return [(card.slot, f"{name(card, catalogue)}, driver {card.driver or 'none'}{_link(card)}") for card in cards]


def _link(card: PciCard) -> str:
    link = card.link
    if link is None or link.width is None or link.speed is None:
        return ""
    return f", link x{link.width} at {link.speed:g} GT/s"


def _nvidia(nvidia: Nvidia) -> list[Row]:
    rows = [
        ("loaded module", _or_none(nvidia.module_version)),
        ("library", _or_none(nvidia.library_version)),
        ("NVML", nvidia.nvml_problem or "works"),
    ]
    for gpu in nvidia.nvml or ():
        total = "" if gpu.memory_total is None else f", {memory(gpu.memory_total)}"
        rows.append((gpu.slot or "GPU", f"{gpu.name or UNKNOWN}{total}"))
    return rows


def _amd(amd: Amd) -> list[Row]:
    rows = [
        ("amdgpu loaded", _yes(amd.loaded)),
        ("DKMS version", _or_none(amd.module_version)),
        ("/dev/kfd usable", _yes(amd.kfd.usable) if amd.kfd else "absent"),
        ("ROCm", _join_list(None if amd.rocm is None else [f"{r.version or '?'} in {r.path}" for r in amd.rocm])),
    ]
    for gpu in amd.gpus or ():
        rows.append((gpu.slot, UNKNOWN if gpu.vram_total is None else f"{memory(gpu.vram_total)} of memory"))
    return rows


def _apt(apt: Apt) -> list[Row]:
    packages = None if apt.packages is None else f"{len(apt.packages)} relevant packages"
    return [
        ("dpkg", _or_unknown(packages)),
        ("broken", _join_list(apt.broken)),
        ("vendor sources", _join_list(None if apt.sources is None else _vendors(apt))),
        ("reboot needed", _yes(apt.reboot_required)),
    ]


def _vendors(apt: Apt) -> list[str]:
    return [source.uri for source in apt.sources or () if source.owner not in ("ubuntu", "other")]


def _docker(docker: Docker) -> list[Row]:
    if docker.kind is None:
        return [("container engine", "none")]
    if docker.problem:
        state = f"installed but {ENGINE_PROBLEMS.get(docker.problem, docker.problem)}"
    else:
        state = "running" if docker.answers else ""
    name = ENGINES.get(docker.kind, docker.kind)
    return [
        ("container engine", ", ".join(part for part in (name, docker.version, state) if part)),
        ("runtimes", _join_list(docker.runtimes)),
    ]


def _resources(resources: Resources) -> list[Row]:
    rows = [
        ("CPU", _join_words((resources.cpu, resources.cores and f"{resources.cores} cores"))),
        ("memory", _space(resources.memory_available, resources.memory_total, memory)),
        ("swap", _space(resources.swap_free, resources.swap_total, memory)),
    ]
    for disk in resources.disks or ():
        rows.append((f"disk: {disk.purpose}", f"{_space(disk.free, disk.total)} ({disk.path}, {disk.fstype or '?'})"))
    return rows


def size(count: float) -> str:
    """Disks and downloads, in decimal units: `24.0 GB`, `350 MB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def memory(count: float) -> str:
    """Memory of cards and machines: `23.9 GiB`, `512 MiB`."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def _space(free: int | None, total: int | None, unit: Callable[[float], str] = size) -> str:
    if total is None:
        return UNKNOWN
    return unit(total) if free is None else f"{unit(free)} free of {unit(total)}"


def _or_unknown(value: str | None) -> str:
    return UNKNOWN if value is None else value


def _or_none(value: str | None) -> str:
    return "none" if value is None else value


def _yes(value: bool | None) -> str:
    return UNKNOWN if value is None else ("yes" if value else "no")


def _join_list(values: Iterable[str] | None) -> str:
    return UNKNOWN if values is None else ", ".join(values) or "none"


def _join_words(parts: Iterable[object]) -> str:
    return ", ".join(str(part) for part in parts if part) or UNKNOWN
