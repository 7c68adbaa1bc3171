"""The machines of these tests after the installation, and the same ones with a loaded GPU driver.

Made like the recordings in tests/machines, from what the kernel, Ubuntu and the vendors' drivers are known to write:
nothing here was recorded on hardware.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.machines import cards, hardware, nvidia
from tests.machines.cards import FIRST, FIRST_AMD, IN_PROCESSOR, SECOND_AMD
from tests.machines.devices import amdgpu, nouveau
from tests.machines.nvidia import Driver
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import SECURE_BOOT, ubuntu

VERSION = Driver("@VERSION@")


class Computer(NamedTuple):
    """`free`: with the kernel's own drivers; `driven`: with the module that a package brought, by the module's name."""

    name: str
    free: Recording
    driven: dict[str, Recording]

    @property
    def secure_boot(self) -> bool:
        state = self.free.files.get(f"/sys/firmware/efi/efivars/{SECURE_BOOT}")
        return state is not None and state[4] == 1

    def kernels(self) -> tuple[str, ...]:
        """Installed releases, oldest first."""
        names = sorted(self.free.names["/lib/modules"])
        return tuple(names)


def _nvidia(name: str, card: cards.Card, *, open: bool = True, **system: Any) -> Computer:
    """One card of NVIDIA's: nouveau has it, or NVIDIA's module."""
    outputs = {} if system.get("desktop", True) else {"connected": ()}
    free = _recording(name, **system)
    nouveau(free, card, FIRST, **outputs)
    driven = _recording(name, **system)
    nvidia.loaded(driven, VERSION._replace(open=open), (card, FIRST), **outputs)
    return Computer(name, free, {"nvidia": driven})


def _recording(name: str, **system: Any) -> Recording:
    made = Recording(name, "lab")
    fields: dict[str, Any] = {"point": "24.04.5", "kernels": (hardware.HWE_7_0,), "secure_boot": False, **system}
    ubuntu(made, **fields)
    return made


def rtx3090(secure_boot: bool = False, **system: Any) -> Computer:
    return _nvidia("rtx3090", cards.RTX_3090, hardware=hardware.GAMING, secure_boot=secure_boot, **system)


def rtx5090(**system: Any) -> Computer:
    return _nvidia("rtx5090", cards.RTX_5090, hardware=hardware.AM5_16, **{"secure_boot": True, **system})


def v100(**system: Any) -> Computer:
    """A server without a desktop, started by a BIOS, on the kernel that 24.04 came with."""
    rack = {"kernels": (hardware.GA_6_8,), "secure_boot": None, "desktop": False, "cmdline": "", **system}
    return _nvidia("v100", cards.V100, open=False, hardware=hardware.RACK, **rack)


def rx7900xt(**system: Any) -> Computer:
    """Beside a Ryzen's own graphics."""
    free = _recording("rx7900xt", hardware=hardware.AM5, **{"kernels": (hardware.HWE_6_17,), **system})
    amdgpu(free, cards.RX_7900_XT, FIRST_AMD, 1)
    amdgpu(free, cards.RAPHAEL, IN_PROCESSOR, 2, boot=False, connected=())
    return Computer("rx7900xt", free, {})


def w7900(secure_boot: bool = False, **system: Any) -> Computer:
    """On the kernel that 24.04 came with, for which AMD builds its module."""
    made = []
    for _ in range(2):
        fields: dict[str, Any] = {"kernels": (hardware.GA_6_8,), "secure_boot": secure_boot, **system}
        recording = _recording("w7900", hardware=hardware.XEON, **fields)
        amdgpu(recording, cards.W7900, FIRST_AMD, 1)
        made.append(recording)
    made[1].file("/sys/module/amdgpu/version", "@VERSION@\n")
    return Computer("w7900", made[0], {"amdgpu": made[1]})


def two_vendors(**system: Any) -> Computer:
    """An RTX 3090 and an RX 7900 XT."""
    fields: dict[str, Any] = {"hardware": hardware.AM5, "kernels": (hardware.HWE_6_17,), **system}
    free, driven = _recording("two-vendors", **fields), _recording("two-vendors", **fields)
    nouveau(free, cards.RTX_3090, FIRST)
    nvidia.loaded(driven, VERSION, (cards.RTX_3090, FIRST))
    for each in (free, driven):
        amdgpu(each, cards.RX_7900_XT, SECOND_AMD, 1, boot=False)
    return Computer("two-vendors", free, {"nvidia": driven})


COMPUTERS: dict[str, Callable[[], Computer]] = {
    "rtx3090": rtx3090,
    "rtx3090-secure-boot": lambda: rtx3090(secure_boot=True)._replace(name="rtx3090-secure-boot"),
    # not upgraded for some weeks: the archive has a newer kernel of its flavour
    "rtx3090-behind": lambda: rtx3090(kernels=(hardware.HWE_7_0_28,))._replace(name="rtx3090-behind"),
    "rtx3090-two-kernels": lambda: rtx3090(kernels=(hardware.HWE_7_0_28, hardware.HWE_7_0))._replace(
        name="rtx3090-two-kernels"
    ),
    "rtx5090": rtx5090,
    "v100": v100,
    "rx7900xt": rx7900xt,
    "w7900": w7900,
    "w7900-secure-boot": lambda: w7900(secure_boot=True)._replace(name="w7900-secure-boot"),
    "two-vendors": two_vendors,
}


def write_hardware(recording: Recording, place: Path, running: str) -> None:
    """Write the recording's /sys, /proc and device nodes below `place`, for inside/boot.py; `running`: its kernel."""
    for path, content in recording.files.items():
        if path.startswith(("/sys/", "/proc/")) and path not in _LIVE:
            file = place / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            known = path in ("/proc/version", "/proc/cmdline")
            file.write_bytes(content.replace(running.encode(), b"@RELEASE@") if known else content)
    for path, target in recording.links.items():
        if path.startswith("/sys/"):
            link = place / path.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    for folder in recording.names:
        if folder.startswith("/sys/"):
            (place / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    (place / "proc").mkdir(parents=True, exist_ok=True)
    (place / "proc/modules").write_text("".join(f"{name} 16384 0 - Live 0x0\n" for name in recording.modules))
    nodes = {path: found for path, found in recording.stat.items() if path.startswith("/dev/")}
    (place / "nodes.json").write_text(json.dumps(nodes))


# what a guest has of its own, and must have: another at each start, or the truth
_LIVE = ("/proc/sys/kernel/random/boot_id", "/proc/uptime", "/proc/locks", "/proc/meminfo")
# files that an installer writes and the tool reads; users, groups and dpkg's database are the guest's own
SETTINGS = ("/etc/os-release", "/etc/apt/", "/etc/default/", "/etc/crypttab")


def settings(recording: Recording) -> dict[str, bytes]:
    return {path: content for path, content in recording.files.items() if path.startswith(SETTINGS)}


def packages(recording: Recording) -> list[tuple[str, str, str]]:
    """(name, version, architecture) of what the recording has installed."""
    found = []
    for stanza in recording.packages:
        fields = dict(line.split(": ", 1) for line in stanza.splitlines())
        found.append((fields["Package"], fields["Version"], fields["Architecture"]))
    return found
