"""Computers: CPU, memory, board and firmware, as DMI and /proc name them; and the kernels of Ubuntu 24.04."""

from __future__ import annotations

from typing import NamedTuple


class Hardware(NamedTuple):
    """`memory` and `swap` in GiB; `vendor`, `product` and `board` as DMI has them; `virtual`: under a hypervisor."""

    cpu: str
    cores: int
    memory: int
    vendor: str
    board: str
    bios: str = "American Megatrends Inc."
    product: str = "System Product Name"
    virtual: bool = False
    swap: int = 8


GAMING = Hardware("AMD Ryzen 9 5950X 16-Core Processor", 32, 64, "ASUSTeK COMPUTER INC.", "ROG STRIX X570-E GAMING")
AM5 = Hardware(
    "AMD Ryzen 7 7800X3D 8-Core Processor", 16, 32, "Micro-Star International Co., Ltd.", "MAG B650 TOMAHAWK"
)
AM5_16 = Hardware("AMD Ryzen 9 9950X 16-Core Processor", 32, 96, "Gigabyte Technology Co., Ltd.", "X870E AORUS PRO")
INTEL_PC = Hardware("13th Gen Intel(R) Core(TM) i7-13700F", 24, 64, "ASRock", "Z790 Pro RS")
OLD_PC = Hardware("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 12, 16, "Gigabyte Technology Co., Ltd.", "Z370 HD3-CF")
WORKSTATION = Hardware("AMD Ryzen Threadripper PRO 5975WX 32-Cores", 64, 128, "Dell Inc.", "0X5GHK", "Dell Inc.")
XEON = Hardware("Intel(R) Xeon(R) w5-2465X", 32, 128, "ASUSTeK COMPUTER INC.", "Pro WS W790-ACE")
EPYC = Hardware("AMD EPYC 7543 32-Core Processor", 64, 512, "Supermicro", "H12SSL-NT", product="AS -2014TP-HTR", swap=0)
RACK = Hardware("Intel(R) Xeon(R) Gold 6226R CPU @ 2.90GHz", 32, 192, "HPE", "ProLiant DL380 Gen10", "HPE", "", swap=2)
GENOA = Hardware("AMD EPYC 9654 96-Core Processor", 96, 1152, "Supermicro", "H13DSG-O-CPU", product="AS -8125GS-TNMR2")
MINI_PC = Hardware("Intel(R) N100", 4, 16, "AZW", "EQ12", "AMI")
LAPTOP = Hardware(
    "Intel(R) Core(TM) Ultra 9 275HX", 24, 64, "ASUSTeK COMPUTER INC.", "G835LX", product="ROG Strix SCAR 18 G835LX"
)
KVM = Hardware(
    "AMD EPYC-Rome Processor", 12, 48, "QEMU", "", "EFI Development Kit II / OVMF",
    "Standard PC (Q35 + ICH9, 2009)", virtual=True, swap=4,
)  # fmt: skip
VMWARE = Hardware(
    "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 16, 96, "VMware, Inc.", "440BX Desktop Reference Platform",
    "VMware, Inc.", "VMware20,1", virtual=True,
)  # fmt: skip
AWS_G4DN = Hardware(
    "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", 8, 32, "Amazon EC2", "", "Amazon EC2", "g4dn.2xlarge",
    virtual=True, swap=0,
)  # fmt: skip
WINDOWS_PC = Hardware("AMD Ryzen 7 5800X 8-Core Processor", 16, 32, "", "", "", "", virtual=True)


class Kernel(NamedTuple):
    """`meta` is the flavour of the meta package that follows updates; `kind` ends the release's name."""

    release: str
    version: str
    meta: str

    @property
    def banner(self) -> str:
        build = self.version.split("-", 1)[1].partition(".")[2]
        return f"#{build}-Ubuntu SMP PREEMPT_DYNAMIC"

    @property
    def kind(self) -> str:
        return self.release.rpartition("-")[2]


HWE = "generic-hwe-24.04"
GA_6_8_31 = Kernel("6.8.0-31-generic", "6.8.0-31.31", "generic")
GA_6_8_41 = Kernel("6.8.0-41-generic", "6.8.0-41.41", "generic")
GA_6_8_60 = Kernel("6.8.0-60-generic", "6.8.0-60.63", "generic")
GA_6_8_88 = Kernel("6.8.0-88-generic", "6.8.0-88.89", "generic")
GA_6_8_117 = Kernel("6.8.0-117-generic", "6.8.0-117.117", "generic")
GA_6_8 = Kernel("6.8.0-134-generic", "6.8.0-134.134", "generic")
LOW_6_8 = Kernel("6.8.0-117-lowlatency", "6.8.0-117.117.1", "lowlatency")
HWE_6_11 = Kernel("6.11.0-29-generic", "6.11.0-29.29~24.04.1", HWE)
HWE_6_14_24 = Kernel("6.14.0-24-generic", "6.14.0-24.24~24.04.3", HWE)
HWE_6_14 = Kernel("6.14.0-37-generic", "6.14.0-37.37~24.04.1", HWE)
OEM_6_14 = Kernel("6.14.0-1018-oem", "6.14.0-1018.18", "oem-24.04c")
HWE_6_17_14 = Kernel("6.17.0-14-generic", "6.17.0-14.14~24.04.1", HWE)
HWE_6_17 = Kernel("6.17.0-35-generic", "6.17.0-35.35~24.04.1", HWE)
AWS_6_17 = Kernel("6.17.0-1009-aws", "6.17.0-1009.9~24.04.1", "aws")
HWE_7_0_14 = Kernel("7.0.0-14-generic", "7.0.0-14.14~24.04.1", HWE)
HWE_7_0_28 = Kernel("7.0.0-28-generic", "7.0.0-28.28~24.04.1", HWE)
HWE_7_0 = Kernel("7.0.0-31-generic", "7.0.0-31.31~24.04.1", HWE)
