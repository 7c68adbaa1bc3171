"""Cards on the bus, and what each kernel driver shows of them: sysfs, device nodes, the kernel log."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.machines.recording_folder import Recording
from tests.machines.ubuntu import RENDER

VIDEO = 44
MIB = 1 << 20
VGA = "0x030000"


class Card(NamedTuple):
    """A board by its PCI ids; `vram` and `bar` (the window the processor sees of it) in MiB, `width` in lanes."""

    vendor: str
    device: str
    revision: str
    subsystem: tuple[str, str]
    vram: int
    bar: int = 256
    speed: str = "16.0 GT/s PCIe"
    width: int = 16
    chip: str = ""


RTX_3090 = Card("10de", "2204", "a1", ("1462", "3881"), 24576, chip="GA102 (b72000a1)")
RTX_3090_TI = Card("10de", "2203", "a1", ("10de", "1607"), 24564, chip="GA102 (b72000a1)")
RTX_6000_ADA = Card("10de", "26b1", "a1", ("10de", "16a1"), 49140, 65536, chip="AD102 (192000a1)")
RTX_5090 = Card("10de", "2b85", "a1", ("1043", "89e3"), 32607, 32768, "32.0 GT/s PCIe", chip="GB202 (1b2000a1)")
RX_7900_XTX = Card("1002", "744c", "c8", ("1da2", "471e"), 24560, 32768)
RX_7900_XT = Card("1002", "744c", "cc", ("1002", "0e3b"), 20464)
W7900 = Card("1002", "7448", "00", ("1002", "0e0d"), 46068, 65536)
RX_9070_XT = Card("1002", "7550", "c0", ("1da2", "e490"), 16304, 16384, "32.0 GT/s PCIe")
RAPHAEL = Card("1002", "164e", "cb", ("1462", "7d75"), 512)
INTEL_N100 = Card("8086", "46d1", "00", ("8086", "7270"), 0)


class Slot(NamedTuple):
    """Where a card sits: the bridges from the processor down to it, and the number that DRM gives it."""

    bridges: tuple[str, ...]
    address: str
    drm: int
    group: int = 14

    @property
    def path(self) -> str:
        return "/sys/devices/pci0000:00/" + "/".join((*self.bridges, self.address))


FIRST = Slot(("0000:00:01.0",), "0000:01:00.0", 1)
# Navi 31 and 48 have a switch of their own on the board: the slot's link is the upper bridge's
FIRST_AMD = Slot(("0000:00:01.1", "0000:01:00.0", "0000:02:00.0"), "0000:03:00.0", 1)
SECOND_AMD = Slot(("0000:00:01.2", "0000:04:00.0", "0000:05:00.0"), "0000:06:00.0", 2, 21)
IN_PROCESSOR = Slot(("0000:00:08.1",), "0000:0e:00.0", 2, 25)
INTEL_SLOT = Slot((), "0000:00:02.0", 1, 0)


def pci(
    machine: Recording,
    card: Card,
    slot: Slot,
    driver: str | None,
    *,
    boot: bool = True,
    connected: tuple[str, ...] = ("DP-1",),
    class_code: str = VGA,
) -> None:
    """The card's function and the bridges above it. `connected`: outputs with a monitor; HDMI-A-1 is always there."""
    path = slot.path
    machine.link(f"/sys/bus/pci/devices/{slot.address}", _relative(path))
    for name, value in (
        ("vendor", f"0x{card.vendor}"),
        ("device", f"0x{card.device}"),
        ("revision", f"0x{card.revision}"),
        ("class", class_code),
        ("subsystem_vendor", f"0x{card.subsystem[0]}"),
        ("subsystem_device", f"0x{card.subsystem[1]}"),
        ("boot_vga", str(int(boot))),
        ("power_state", "D0"),
        ("aer_dev_correctable", "RxErr 0\nBadTLP 0\nBadDLLP 0\nTOTAL_ERR_COR 0"),
        ("resource", _resource(card)),
    ):
        machine.file(f"{path}/{name}", value + "\n")
    links = [path] if card.vendor != "8086" else []
    if card.vendor == "1002" and len(slot.bridges) == 3:
        links.append(path.rsplit("/", 2)[0])
    for end in links:
        for name in ("current", "max"):
            machine.file(f"{end}/{name}_link_speed", card.speed + "\n")
            machine.file(f"{end}/{name}_link_width", f"{card.width}\n")
    machine.link(f"{path}/iommu_group", "../" * (len(slot.bridges) + 3) + f"kernel/iommu_groups/{slot.group}")
    machine.file(f"/sys/kernel/iommu_groups/{slot.group}/type", "DMA-FQ\n")
    machine.log.append(
        f"pci {slot.address}: [{card.vendor}:{card.device}] type 00 class {class_code} PCIe Legacy Endpoint"
    )
    if card.vendor == "10de":
        sound = path[:-1] + "1"
        machine.link(f"/sys/bus/pci/devices/{slot.address[:-1]}1", _relative(sound))
        for name, value in (("vendor", "0x10de"), ("device", "0x1aef"), ("class", "0x040300")):
            machine.file(f"{sound}/{name}", value + "\n")
    if driver is None:
        return
    machine.link(f"{path}/driver", "../" * (len(slot.bridges) + 3) + f"bus/pci/drivers/{driver}")
    machine.listing(f"/sys/bus/pci/drivers/{driver}", slot.address)
    for output in ("HDMI-A-1", *connected):
        connector = f"card{slot.drm}-{output}"
        status = "connected" if output in connected else "disconnected"
        machine.file(f"/sys/class/drm/{connector}/status", status + "\n")
    render = f"renderD{127 + slot.drm}"
    # on a machine these are links below the card's own folder, which lead back up to it: a circle that every program
    # that walks through this repository would have to survive
    for name in (f"card{slot.drm}", render):
        machine.link(f"/sys/class/drm/{name}/device", f"../../../bus/pci/devices/{slot.address}")
    machine.node(f"/dev/dri/card{slot.drm}", "char", 0o660, VIDEO)
    machine.node(f"/dev/dri/{render}", "char", 0o660, RENDER)
    if machine.seat:
        # udev's uaccess opens these to whoever sits at the machine; /dev/kfd it does not
        for name in (f"card{slot.drm}", render):
            machine.access[f"/dev/dri/{name}"] = {"r": True, "w": True}


def _relative(path: str) -> str:
    return "../../.." + path.removeprefix("/sys")


def _resource(card: Card) -> str:
    """Six BARs, start, end and flags: NVIDIA's memory window is BAR 1, AMD's BAR 0."""
    big = (0x6000000000, card.bar * MIB, 0x14220C)
    if card.vendor == "10de":
        rows = [(0x82000000, 16 * MIB, 0x40200), big, (0, 0, 0), (0x6800000000, 32 * MIB, 0x14220C), (0, 0, 0)]
    else:
        rows = [big, (0, 0, 0), (0x6800000000, 2 * MIB, 0x14220C), (0, 0, 0), (0xF000, 256, 0x40101)]
    rows.append((0x83000000, MIB, 0x40200))
    return "\n".join(
        f"0x{start:016x} 0x{start + size - 1 if size else 0:016x} 0x{flags:016x}" for start, size, flags in rows
    )


def nouveau(machine: Recording, card: Card, slot: Slot, **more: Any) -> None:
    """An NVIDIA card on a fresh Ubuntu: the kernel's own driver has it, and it cannot compute."""
    pci(machine, card, slot, "nouveau", **more)
    at = slot.address
    machine.modules.append("nouveau")
    machine.log += [
        f"nouveau {at}: NVIDIA {card.chip}",
        f"nouveau {at}: bios: version 94.02.4b.00.0b",
        *([f"nouveau {at}: gsp: RM version: 570.144"] if card.chip.startswith(("AD", "GB")) else []),
        f"nouveau {at}: fb: {card.vram} MiB GDDR6X",
        f"nouveau {at}: DRM: VRAM: {card.vram} MiB",
        f"nouveau {at}: DRM: MM: using COPY for buffer copies",
        f"[drm] Initialized nouveau 1.4.0 for {at} on minor {slot.drm}",
    ]


def amdgpu(machine: Recording, card: Card, slot: Slot, node: int, gfx: int, *, cap: int = 0, **more: Any) -> None:
    """An AMD card with amdgpu bound: memory, heat and power in sysfs, and its node of the KFD topology.

    `gfx` as the kernel writes it: 110000 is gfx1100. `cap` in watts, 0 for a processor's graphics.
    """
    pci(machine, card, slot, "amdgpu", **more)
    path, total = slot.path, card.vram * MIB
    machine.file(f"{path}/mem_info_vram_total", f"{total}\n")
    machine.file(f"{path}/mem_info_vis_vram_total", f"{min(card.bar * MIB, total)}\n")
    machine.file(f"{path}/mem_info_vram_used", f"{total // 30}\n")
    sensors = [("name", "amdgpu"), ("temp1_label", "edge"), ("temp1_input", "41000")]
    if cap:
        watts = f"{cap}000000"
        sensors += [
            ("temp2_label", "junction"),
            ("temp2_input", "47000"),
            ("temp3_label", "mem"),
            ("temp3_input", "52000"),
        ]
        sensors += [("power1_cap", watts), ("power1_cap_default", watts)]
    for name, value in sensors:
        machine.file(f"{path}/hwmon/hwmon{slot.drm + 2}/{name}", value + "\n")
    bus, rest = slot.address.split(":", 1)[1].split(":")
    location = int(bus, 16) << 8 | int(rest.split(".")[0], 16) << 3
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    machine.file(f"{nodes}/0/properties", "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\nvendor_id 0\n")
    machine.file(
        f"{nodes}/{node}/properties",
        f"cpu_cores_count 0\nsimd_count 192\ngfx_target_version {gfx}\n"
        f"vendor_id 4098\ndevice_id {int(card.device, 16)}\n"
        f"location_id {location}\ndomain 0\ndrm_render_minor {127 + slot.drm}\n",
    )
    machine.node("/dev/kfd", "char", 0o660, RENDER)
    if "amdgpu" not in machine.modules:
        machine.modules.append("amdgpu")
        machine.log.append("[drm] amdgpu kernel modesetting enabled.")
        machine.file("/sys/module/amdgpu/srcversion", "6E2F0A4B7D9C1538A6F4E2B\n")
    at = f"amdgpu {slot.address}: amdgpu:"
    machine.log += [
        f"{at} initializing kernel modesetting ({_discovered(card)}).",
        f"{at} Trusted Memory Zone (TMZ) feature not supported",
        f"{at} VRAM: {card.vram}M 0x0000008000000000 - 0x{0x8000000000 + total - 1:016X} ({card.vram}M used)",
        f"[drm] Detected VRAM RAM={card.vram}M, BAR={card.bar}M",
        f"{at} SMU is initialized successfully!",
        f"amdgpu: Topology: Add dGPU node [0x{card.device}:0x1002]",
        f"kfd kfd: amdgpu: added device 1002:{card.device}",
        f"[drm] Initialized amdgpu 3.64.0 for {slot.address} on minor {slot.drm}",
    ]


def _discovered(card: Card) -> str:
    device, vendor, board, revision = (text.upper() for text in (card.device, *card.subsystem, card.revision))
    return f"IP DISCOVERY 0x1002:0x{device} 0x{vendor}:0x{board} 0x{revision}"


def amdgpu_gives_up(machine: Recording, card: Card, slot: Slot, **more: Any) -> None:
    """RDNA4 on a kernel that is too old: amdgpu loads, fails on the card and lets go of it."""
    pci(machine, card, slot, None, **more)
    machine.modules.append("amdgpu")
    machine.file("/sys/module/amdgpu/srcversion", "6E2F0A4B7D9C1538A6F4E2B\n")
    machine.log += [
        "[drm] amdgpu kernel modesetting enabled.",
        f"[drm] initializing kernel modesetting ({_discovered(card)}).",
        f"amdgpu {slot.address}: amdgpu: Fatal error during GPU init",
        f"amdgpu {slot.address}: amdgpu: amdgpu: finishing device.",
        f"amdgpu: probe of {slot.address} failed with error -22",
    ]
