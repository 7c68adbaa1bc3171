"""Boards by their PCI ids, and the slots that they sit in."""

from __future__ import annotations

from typing import Any, NamedTuple

VGA = "0x030000"
# cards without an output
COMPUTE = "0x030200"
# Instinct
ACCELERATOR = "0x120000"


class Card(NamedTuple):
    """`vram` and `bar` (the window that the CPU sees of it) in MiB, `width` in lanes, `watts` the default limit.

    `name` is NVML's, `target` the compute capability or the number that KFD writes for the gfx (110000: gfx1100).
    """

    vendor: str
    device: str
    revision: str
    subsystem: tuple[str, str]
    vram: int
    bar: int = 256
    speed: str = "16.0 GT/s PCIe"
    width: int = 16
    chip: str = ""
    name: str = ""
    watts: int = 0
    target: str = ""
    class_code: str = VGA


def _geforce(device: str, board: tuple[str, str], vram: int, chip: str, name: str, watts: int, **more: Any) -> Card:
    card = Card("10de", device, "a1", board, vram, 32768, chip=chip, name=f"NVIDIA GeForce {name}", watts=watts)
    fields: dict[str, Any] = {"target": "8.6" if chip.startswith("GA") else "8.9", **more}
    return card._replace(**fields)


def _server(device: str, board: str, vram: int, name: str, watts: int, target: str, **more: Any) -> Card:
    card = Card("10de", device, "a1", ("10de", board), vram, 131072, name=name, watts=watts, target=target)
    fields: dict[str, Any] = {"class_code": COMPUTE, **more}
    return card._replace(**fields)


GEN5, GEN3 = "32.0 GT/s PCIe", "8.0 GT/s PCIe"

RTX_3060 = _geforce("2504", ("1458", "4074"), 12288, "GA106 (b76000a1)", "RTX 3060", 170, bar=16384)
RTX_3090 = _geforce("2204", ("1462", "3881"), 24576, "GA102 (b72000a1)", "RTX 3090", 350, bar=256)
RTX_3090_TI = _geforce("2203", ("10de", "1607"), 24564, "GA102 (b72000a1)", "RTX 3090 Ti", 450, bar=256)
RTX_4060_TI_8 = _geforce("2803", ("1043", "88f3"), 8188, "AD106 (196000a1)", "RTX 4060 Ti", 160, width=8, bar=8192)
RTX_4060_TI_16 = _geforce("2805", ("1462", "5174"), 16380, "AD106 (196000a1)", "RTX 4060 Ti", 165, width=8, bar=16384)
RTX_4090 = _geforce("2684", ("1043", "889a"), 24564, "AD102 (192000a1)", "RTX 4090", 450)
RTX_5090 = _geforce("2b85", ("1043", "89e3"), 32607, "GB202 (1b2000a1)", "RTX 5090", 575, speed=GEN5, target="12.0")
RTX_5090_LAPTOP = _geforce(
    "2c18", ("1043", "2988"), 24463, "GB203 (1b3000a1)", "RTX 5090 Laptop GPU", 150, speed=GEN5, target="12.0", width=8
)
RTX_6000_ADA = _geforce("26b1", ("10de", "16a1"), 49140, "AD102 (192000a1)", "", 300, bar=65536)._replace(
    name="NVIDIA RTX 6000 Ada Generation"
)
T4 = _server("1eb8", "12a2", 15360, "Tesla T4", 70, "7.5", speed=GEN3, bar=256)
V100 = _server("1db6", "124a", 32768, "Tesla V100-PCIE-32GB", 250, "7.0", speed=GEN3, bar=32768)
A100 = _server("20b5", "1533", 81920, "NVIDIA A100 80GB PCIe", 300, "8.0")
H100 = _server("2331", "1626", 81559, "NVIDIA H100 PCIe", 350, "9.0", speed=GEN5)
# a guest sees the whole card's device id; its slice is in the name and the board id
A40_SLICE = _server("2235", "14fd", 49152, "NVIDIA A40-48Q", 0, "8.6", bar=65536)


def _radeon(device: str, revision: str, board: tuple[str, str], vram: int, bar: int, watts: int, gfx: str) -> Card:
    return Card("1002", device, revision, board, vram, bar, watts=watts, target=gfx)


RX_7900_XTX = _radeon("744c", "c8", ("1da2", "471e"), 24560, 32768, 303, "110000")
RX_7900_XT = _radeon("744c", "cc", ("1002", "0e3b"), 20464, 256, 265, "110000")
RX_7900_GRE = _radeon("744c", "ce", ("1849", "5341"), 16368, 16384, 220, "110000")
RX_7800_XT = _radeon("747e", "c8", ("1da2", "475e"), 16368, 16384, 212, "110001")
RX_9070_XT = _radeon("7550", "c0", ("1da2", "e490"), 16304, 16384, 304, "120001")._replace(speed=GEN5)
RX_6900_XT = _radeon("73bf", "c0", ("1002", "0e3a"), 16368, 16384, 255, "100300")
RADEON_VII = _radeon("66af", "c1", ("1002", "081e"), 16368, 16384, 250, "90006")._replace(speed=GEN3)
W7900 = _radeon("7448", "00", ("1002", "0e0d"), 46068, 65536, 241, "110000")
MI210 = _radeon("740f", "02", ("1002", "0c34"), 65520, 65536, 300, "90010")._replace(class_code="0x038000")
MI300X = _radeon("74a1", "00", ("1002", "74a1"), 196592, 262144, 750, "90402")._replace(
    class_code=ACCELERATOR, speed=GEN5
)
RAPHAEL = Card("1002", "164e", "cb", ("1462", "7d75"), 512, target="100306")

INTEL_N100 = Card("8086", "46d1", "00", ("8086", "7270"), 0)
INTEL_LAPTOP = Card("8086", "7d67", "06", ("1043", "1b4d"), 0)
ASPEED = Card("1a03", "2000", "52", ("15d9", "1b95"), 0)
# Hyper-V's card, behind which WSL reaches the one of Windows
MICROSOFT = Card("1414", "008e", "00", ("0000", "0000"), 0, class_code=COMPUTE)


class Slot(NamedTuple):
    """Where a card sits: the bridges from the CPU down to it, and the number that DRM gives it."""

    bridges: tuple[str, ...]
    address: str
    drm: int
    group: int = 14

    @property
    def path(self) -> str:
        return "/sys/devices/pci0000:00/" + "/".join((*self.bridges, self.address))


FIRST = Slot(("0000:00:01.0",), "0000:01:00.0", 1)
SECOND = Slot(("0000:00:03.1",), "0000:41:00.0", 2, 33)
# Navi 31 and 48 have a switch of their own on the board: the slot's link is the upper bridge's
FIRST_AMD = Slot(("0000:00:01.1", "0000:01:00.0", "0000:02:00.0"), "0000:03:00.0", 1)
SECOND_AMD = Slot(("0000:00:01.2", "0000:04:00.0", "0000:05:00.0"), "0000:06:00.0", 2, 21)
SERVER_AMD = Slot(("0000:00:03.1", "0000:c1:00.0", "0000:c2:00.0"), "0000:c3:00.0", 1, 41)
SERVER_AMD_2 = Slot(("0000:00:05.1", "0000:e1:00.0", "0000:e2:00.0"), "0000:e3:00.0", 2, 52)
IN_PROCESSOR = Slot(("0000:00:08.1",), "0000:0e:00.0", 2, 25)
INTEL_SLOT = Slot((), "0000:00:02.0", 1, 0)
# a cloud's machine has no bridges
CLOUD_SLOT = Slot((), "0000:00:1e.0", 1, 7)
