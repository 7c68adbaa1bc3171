"""What the kernel log says of drivers, ports and suspends. Log lines are the real tools' words."""

from __future__ import annotations

from checks.facts.host import Host, NvmlGpu
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.cases_card import UNREADABLE_LOG, said
from tests.checks.rules.hosts import (
    amd_card,
    but,
    healthy_amd,
    healthy_nvidia,
    no_gpu,
    nvidia_card,
    nvml,
    raphael,
)

N, A = healthy_nvidia(), healthy_amd()
LACT = (("amdgpu", "ppfeaturemask=0xffffffff", "/etc/modprobe.d/99-amdgpu-overdrive.conf"),)
KEEPS = (("nvidia", "NVreg_PreserveVideoMemoryAllocations=1", "/etc/modprobe.d/nvidia-power.conf"),)
NOTED = "[ 5.0] amdgpu: Overdrive is enabled, please disable it before reporting any bugs unrelated to overdrive."
SLEPT = ("[ 900.1] PM: suspend entry (deep)", "[ 950.2] PM: suspend exit")
SMALL = nvidia_card(bar_bytes=(16 << 20, 256 << 20, 0, 32 << 20))
REBOOT = (
    "[ 9.4] NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"
)
FAULT_31 = "[ 9.3] NVRM: Xid (PCI:0000:01:00): 31, pid=9121, name={}, Ch 0000004a, intr 00000000. MMU Fault"
# NVIDIA/open-gpu-kernel-modules#1134
PAST = (
    "[ 9.1] resource: resource sanity check: requesting [mem 0x6000000-0x6010ffff], which spans more than PCI Bus 1",
    "[ 9.1] caller os_map_kernel_space+0x114/0x130 [nvidia] mapping multiple BARs",
)
LOADED = "[ 99.2] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build"
APU_HUNG = "[ 9.1] amdgpu 0000:0e:00.0: amdgpu: MES ring buffer is full."
GONE = "[ 77.2] pcieport 0000:00:01.0: pciehp: Slot(0): Card not present"


def aer_lines(
    count: int, words: str = "PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)"
) -> Host:
    return said(N, *(f"[ {number}.0] pcieport 0000:00:01.0: {words}" for number in range(count)))


FAULTS = (
    Fault(
        "gpu.nvidia-errors",
        said(N, "[ 9.1] NVRM: GPU 0000:01:00.0: GPU does not have the necessary power cables connected."),
        FAIL,
        "a power cable is missing",
    ),
    Fault(
        "gpu.nvidia-errors",
        said(N, "[ 9.1] nvidia-uvm: uvm_new_thing.c:17 failed with error 0x1f"),
        WARN,
        "does not know",
    ),
    Fault("kernel.overdrive", but(said(A, NOTED), kernel={"module_options": LACT}), WARN, "99-amdgpu-overdrive.conf"),
    Fault("kernel.overdrive", said(A, NOTED), WARN, "Overdrive is on."),
    Fault("kernel.overdrive", but(A, kernel={"module_options": LACT}), PASS, "Overdrive is on"),
    Fault("kernel.overdrive", but(A, amd={"feature_mask": 0xFFF7FFFF}), PASS, "Overdrive is on."),
    Fault(
        "kernel.overdrive",
        but(A, amd={"feature_mask": 0xFFF7BFFF}, kernel={"module_options": LACT}),
        PASS,
        "from the next start",
    ),
    Fault(
        "kernel.overdrive",
        said(
            but(A, kernel={"cmdline": ("ro", "amdgpu.ppfeaturemask=0xffffffff")}),
            "[ 9.1] amdgpu 0000:03:00.0: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3",
        ),
        WARN,
        "/etc/default/grub",
    ),
    # scitix/sichek#51: an assertion, but not one of the harmless
    Fault(
        "gpu.nvidia-errors",
        said(
            N,
            "[ 9.1] NVRM: nvAssertOkFailedNoLog: Assertion failed: Reset required [NV_ERR_RESET_REQUIRED] (0x00000062)",
        ),
        FAIL,
        "asks for a reset",
    ),
    # the integrated graphics are all there is
    Fault("gpu.amdgpu-errors", but(said(no_gpu(), APU_HUNG), cards=(raphael(),)), FAIL, "MES"),
    Fault("driver.suspend", said(N, *SLEPT, *SLEPT), WARN, "suspended 2 times"),
    # 154 is the driver's own word, and about the Xid before it
    Fault(
        "gpu.xid",
        but(said(N, *PAST, FAULT_31.format("chromium"), REBOOT), cards=(SMALL,)),
        FAIL,
        "Node Reboot Required (Xid 154), after Xid 31",
    ),
    Fault(
        "gpu.xid",
        said(
            N, "[ 9.4] NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x3 (Drain P2P)"
        ),
        WARN,
        "Drain P2P",
    ),
    # one program's fault is informational; the same in several, or after a suspend, is not
    Fault("gpu.xid", said(N, FAULT_31.format("python3"), FAULT_31.format("python3")), PASS, "(2 times since boot)"),
    Fault("gpu.xid", said(N, FAULT_31.format("python3"), FAULT_31.format("Xorg")), WARN, "Xid 31"),
    Fault("gpu.xid", said(N, *SLEPT, FAULT_31.format("python3")), WARN, "Xid 31"),
    Fault(
        "gpu.xid", said(N, "[ 9.1] NVRM: Xid (PCI:0000:01:00): 32, pid=4711, name=python3, intr0 00040000"), WARN, "32"
    ),
    Fault("gpu.xid", said(N, "[ 9.1] NVRM: Xid (PCI:0000:01:00): 54, power cable"), WARN, "power is not connected"),
    # leptonai/gpud#1133
    Fault("driver.nvml", but(N, nvidia={"nvml": (nvml(problem="GPU requires reset"),)}), FAIL, "GPU requires reset"),
    Fault(
        "driver.nvml",
        but(
            N,
            cards=(nvidia_card(), nvidia_card(slot="0000:41:00.0")),
            nvidia={"nvml": (nvml(), NvmlGpu(problem="Unknown Error"))},
        ),
        FAIL,
        "NVML cannot use the card: Unknown Error",
    ),
    # the counters show 0
    Fault("gpu.aer", aer_lines(12), WARN, "logged 12 times since boot"),
    Fault(
        "gpu.aer", aer_lines(12, "AER: PCIe Bus Error: severity=Correctable, type=Data Link Layer"), WARN, "12 times"
    ),
    Fault(
        "gpu.aer",
        said(N, "[ 9.1] nvidia 0000:01:00.0: AER: can't recover (no error_detected callback)"),
        WARN,
        "could not be corrected",
    ),
    Fault(
        "gpu.aer",
        aer_lines(1, "PCIe Bus Error: severity=Uncorrectable (Fatal), type=Transaction Layer"),
        FAIL,
        "could not",
    ),
    # a card that left without an Xid 79: its port's last word, with the card listed and gone
    Fault("gpu.fell-off-bus", said(N, GONE), FAIL, "fallen off"),
    Fault(
        "gpu.fell-off-bus",
        said(no_gpu(), "[ 3.1] [drm] Initialized amdgpu 3.64.0 for 0000:03:00.0 on minor 1", GONE),
        FAIL,
        "fallen off",
    ),
    Fault(
        "gpu.power-state",
        said(A, "[ 9.1] amdgpu 0000:03:00.0: Unable to change power state from D3hot to D0, device inaccessible"),
        FAIL,
        "did not wake up from D3hot",
    ),
)

LOOK_ALIKES = (
    LookAlike("gpu.nvidia-errors", said(N, FAULT_31.format("python3")), "another check judges it"),
    LookAlike(
        "gpu.nvidia-errors",
        said(N, "[ 9.1] [drm:nv_drm_master_set [nvidia_drm]] *ERROR* [GPU ID 0x100] Failed to grab modeset ownership"),
        "a desktop's start",
    ),
    LookAlike("kernel.overdrive", A, "no option"),
    LookAlike("kernel.overdrive", but(A, amd={"feature_mask": 0xFFF7BFFF}), "amdgpu's default mask"),
    LookAlike(
        "kernel.overdrive",
        but(A, kernel={"module_options": (("amdgpu", "ppfeaturemask=0xfff73fff", LACT[0][2]),)}),
        "the mask without bit 0x4000",
    ),
    # ROCm/legacy-rocm-build#2197: the kernel only noticed something
    LookAlike(
        "gpu.amdgpu-errors",
        said(
            A,
            "[ 10.3] WARNING: CPU: 24 PID: 440 at drivers/gpu/drm/amd/amdgpu/amdgpu_irq.c:656 amdgpu_irq_put [amdgpu]",
            "[ 10.3] RIP: 0010:amdgpu_irq_put+0x45/0x70 [amdgpu]",
        ),
        "a warning of the kernel, not a crash",
    ),
    LookAlike("driver.suspend", N, "never suspended"),
    LookAlike("driver.suspend", but(said(N, *SLEPT), kernel={"module_options": KEEPS}), "the memory is kept"),
    LookAlike(
        "driver.suspend",
        said(N, *SLEPT, "[ 960.1] nvidia-uvm: Loaded the UVM driver, major device number 511."),
        "loaded again afterwards",
    ),
    LookAlike(
        "gpu.xid",
        said(
            N,
            REBOOT.replace("0x0 (None)", "0x1 (Reset)").replace("0x2 (Node Reboot Required)", "0x0 (None)"),
        ),
        "the card was reset since",
    ),
    LookAlike(
        "gpu.xid",
        said(N, "[ 9.1] NVRM: Xid (PCI:0000:01:00): 109, pid=4711, CTX SWITCH TIMEOUT", LOADED),
        "the driver was loaded again since",
    ),
    LookAlike(
        "gpu.amdgpu-errors",
        but(said(A, APU_HUNG), cards=(amd_card(), raphael())),
        "the integrated graphics beside a card that trains",
    ),
    LookAlike(
        "gpu.amdgpu-errors",
        but(said(N, APU_HUNG), cards=(nvidia_card(), raphael())),
        "the integrated graphics beside NVIDIA's card",
    ),
    LookAlike("gpu.aer", aer_lines(2), "two after a wake-up"),
    LookAlike(
        "gpu.aer",
        said(N, *(f"[ {n}.0] pcieport 0000:00:1c.5: PCIe Bus Error: severity=Corrected" for n in range(50))),
        "the wireless card's port",
    ),
    LookAlike(
        "gpu.fell-off-bus",
        said(N, GONE, "[ 77.9] pcieport 0000:00:01.0: pciehp: Slot(0): Card present"),
        "the port found its card again",
    ),
    LookAlike(
        "gpu.fell-off-bus",
        said(N, "[ 0.2] pcieport 0000:00:1c.0: pciehp: Slot(0): Card not present"),
        "another port, empty at boot",
    ),
)

BLIND = (
    Blind("gpu.nvidia-errors", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("driver.suspend", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind(
        "kernel.overdrive",
        but(A, kernel={"log": None, "module_options": None}, unread=UNREADABLE_LOG),
        "whether overdrive is on",
    ),
)
