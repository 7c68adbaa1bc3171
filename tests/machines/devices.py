"""Cards on the bus, and what each kernel driver shows of them: sysfs, device nodes, the kernel log."""

from __future__ import annotations

from typing import Any

from tests.machines.cards import VGA, Card, Slot
from tests.machines.synthetic import Recording
from tests.machines.ubuntu import RENDER

VIDEO = 44
MIB = 1 << 20


def pci(
    machine: Recording,
    card: Card,
    slot: Slot,
    driver: str | None,
    *,
    boot: bool = True,
    connected: tuple[str, ...] = ("DP-1",),
    power_state: str = "D0",
    lanes: int | None = None,
) -> None:
    """The card's function and the bridges above it. `connected`: outputs with a monitor; HDMI-A-1 is always there."""
    path = slot.path
    machine.link(f"/sys/bus/pci/devices/{slot.address}", _relative(path))
    for name, value in (
        ("vendor", f"0x{card.vendor}"),
        ("device", f"0x{card.device}"),
        ("revision", f"0x{card.revision}"),
        ("class", card.class_code),
        ("subsystem_vendor", f"0x{card.subsystem[0]}"),
        ("subsystem_device", f"0x{card.subsystem[1]}"),
        *([("boot_vga", str(int(boot)))] if card.class_code == VGA else []),
        ("power_state", power_state),
        ("aer_dev_correctable", "RxErr 0\nBadTLP 0\nBadDLLP 0\nTOTAL_ERR_COR 0"),
        ("resource", _resource(card)),
    ):
        machine.file(f"{path}/{name}", value + "\n")
    if card.vendor in ("10de", "1002"):
        _links(machine, card, slot, lanes or card.width)
    machine.link(f"{path}/iommu_group", "../" * (len(slot.bridges) + 3) + f"kernel/iommu_groups/{slot.group}")
    machine.file(f"/sys/kernel/iommu_groups/{slot.group}/type", "DMA-FQ\n")
    machine.log.append(
        f"pci {slot.address}: [{card.vendor}:{card.device}] type 00 class {card.class_code} PCIe Legacy Endpoint"
    )
    if card.vendor == "10de" and card.class_code == VGA:
        sound = path[:-1] + "1"
        machine.link(f"/sys/bus/pci/devices/{slot.address[:-1]}1", _relative(sound))
        for name, value in (("vendor", "0x10de"), ("device", "0x1aef"), ("class", "0x040300")):
            machine.file(f"{sound}/{name}", value + "\n")
    if driver is None:
        return
    machine.link(f"{path}/driver", "../" * (len(slot.bridges) + 3) + f"bus/pci/drivers/{driver}")
    machine.listing(f"/sys/bus/pci/drivers/{driver}", slot.address)
    if driver == "vfio-pci":
        return
    for output in ("HDMI-A-1", *connected) if card.class_code == VGA else ():
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


def _links(machine: Recording, card: Card, slot: Slot, lanes: int) -> None:
    """Links of the card, the root port, and the switch on AMD's boards, where the slot's own link is."""
    ports = [slot.path.split("/0000:", 2)[0] + f"/{slot.bridges[0]}"] if slot.bridges else []
    if len(slot.bridges) == 3:
        ports.append(slot.path.rsplit("/", 2)[0])
    for port in ports:
        machine.link(f"/sys/bus/pci/devices/{port.rsplit('/', 1)[1]}", _relative(port))
        machine.file(f"{port}/class", "0x060400\n")
    for end in (slot.path, *ports):
        for name, width in (("current", lanes), ("max", card.width)):
            machine.file(f"{end}/{name}_link_speed", card.speed + "\n")
            machine.file(f"{end}/{name}_link_width", f"{width}\n")


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


def amdgpu(machine: Recording, card: Card, slot: Slot, node: int, **more: Any) -> None:
    """An AMD card with amdgpu bound: memory, heat and power in sysfs, and its node of the KFD topology."""
    pci(machine, card, slot, "amdgpu", **more)
    path, total = slot.path, card.vram * MIB
    machine.file(f"{path}/mem_info_vram_total", f"{total}\n")
    machine.file(f"{path}/mem_info_vis_vram_total", f"{min(card.bar * MIB, total)}\n")
    # a desktop's share, or what an idle card keeps for itself
    machine.file(
        f"{path}/mem_info_vram_used", f"{(680 if more.get('connected', True) and machine.seat else 27) * MIB}\n"
    )
    sensors = [("name", "amdgpu"), ("temp1_label", "edge"), ("temp1_input", "41000")]
    if card.watts:
        watts = f"{card.watts}000000"
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
        f"cpu_cores_count 0\nsimd_count 192\ngfx_target_version {card.target}\n"
        f"vendor_id 4098\ndevice_id {int(card.device, 16)}\n"
        f"location_id {location}\ndomain 0\ndrm_render_minor {127 + slot.drm}\n",
    )
    machine.node("/dev/kfd", "char", 0o660, RENDER)
    if "amdgpu" not in machine.modules:
        machine.modules.append("amdgpu")
        machine.log.append("[drm] amdgpu kernel modesetting enabled.")
        machine.file("/sys/module/amdgpu/srcversion", "6E2F0A4B7D9C1538A6F4E2B\n")
    # kernel 7.0 says the driver's name once
    at = f"amdgpu {slot.address}:" + ("" if machine.release.startswith("7.") else " amdgpu:")
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
