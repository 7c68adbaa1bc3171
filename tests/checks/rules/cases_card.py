"""The card, its slot, its heat, its driver's complaints. Log lines are the real tools' words, with their sources."""

from __future__ import annotations

from checks.facts.host import Amd, Host, KfdNode, Link, Unread
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.hosts import (
    amd_card,
    amd_gpu,
    but,
    healthy_amd,
    healthy_nvidia,
    no_gpu,
    nvidia_card,
    nvml,
    raphael,
    two_vendors,
)

N, A = healthy_nvidia(), healthy_amd()
UNREADABLE_LOG = (Unread(source="kernel log", reason="needs group adm or root"),)


def said(host: Host, *lines: str) -> Host:
    """The host with these lines at the end of its kernel log."""
    return but(host, kernel={"log": (*(host.kernel.log or ()), *lines)})


def beside_raphael(card_index: int, inside_index: int, **environ: str) -> Host:
    nodes = (
        KfdNode(index=card_index, gfx="gfx1100", slot="0000:03:00.0"),
        KfdNode(index=inside_index, gfx="gfx1036", slot="0000:0e:00.0"),
    )
    return but(A, cards=(amd_card(), raphael()), amd={"nodes": nodes}, person={"environ": environ})


FAULTS = (
    # Radeon VII: known, but no wheel of bitsandbytes has gfx906
    Fault("gpu.supported", but(A, cards=(amd_card(device="66af", revision="c1"),)), WARN, "Radeon VII (gfx906)"),
    Fault(
        "gpu.vram",
        but(N, cards=(nvidia_card(device="2504"),), nvidia={"nvml": (nvml(memory_total=12288 << 20),)}),
        WARN,
        "12 GiB of memory: the reference sequence length needs a card with 16 GiB",
    ),
    Fault("gpu.vram", but(N, nvidia={"nvml": (nvml(memory_total=4096 << 20),)}), FAIL, "too little for a 7B model"),
    # 2d04 is sold with 8 and with 16 GB: the driver's word counts
    Fault(
        "gpu.vram",
        but(N, cards=(nvidia_card(device="2d04"),), nvidia={"nvml": (nvml(memory_total=8151 << 20),)}),
        WARN,
        "8 GiB",
    ),
    # the driver is installed, so this system was to use its only card
    Fault("gpu.kept-for-vm", but(N, cards=(nvidia_card(driver="vfio-pci"),)), WARN, "reserved for a virtual machine"),
    Fault(
        "gpu.kept-for-vm",
        but(no_gpu(), cards=(nvidia_card(driver="vfio-pci"),)),
        PASS,
        "reserved for a virtual machine",
    ),
    Fault(
        "gpu.kept-for-vm",
        but(N, cards=(nvidia_card(), nvidia_card(slot="0000:41:00.0", driver="vfio-pci"))),
        PASS,
        "reserved for a virtual machine",
    ),
    Fault("gpu.integrated-beside", beside_raphael(2, 1), WARN, "uses the integrated graphics as device 0"),
    Fault("gpu.integrated-beside", beside_raphael(1, 2), PASS, "also lists the integrated graphics"),
    Fault("gpu.compute-mode", but(N, nvidia={"nvml": (nvml(compute_mode="prohibited"),)}), FAIL, "refuse all compute"),
    Fault("gpu.compute-mode", but(N, nvidia={"nvml": (nvml(compute_mode="exclusive-process"),)}), PASS, "one compute"),
    Fault("gpu.mig", but(N, nvidia={"nvml": (nvml(mig=True, mig_instances=0),)}), FAIL, "no instance exists"),
    Fault(
        "gpu.busy-memory",
        but(N, nvidia={"nvml": (nvml(memory_used=9 << 30, processes=((4242, "ollama"),)),)}),
        WARN,
        "in use by other programs",
    ),
    Fault("gpu.busy-memory", but(A, amd={"gpus": (amd_gpu(vram_used=8 << 30),)}), WARN, "in use by other programs"),
    # NVIDIA/open-gpu-kernel-modules#507
    Fault(
        "gpu.fell-off-bus",
        said(
            N, "[ 8123.1] NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        ),
        FAIL,
        "fallen off",
    ),
    # Bumblebee#554, an old driver's words
    Fault(
        "gpu.fell-off-bus", said(N, "[   49.2] NVRM: GPU at 0000:01:00.0 has fallen off the bus."), FAIL, "fallen off"
    ),
    # NVIDIA/NVSentinel#155: the 570 driver breaks it over lines and writes no Xid
    Fault(
        "gpu.fell-off-bus",
        said(
            N,
            "[ 1843.3] NVRM: The NVIDIA GPU 0000:01:00.0",
            "[ 1843.3] NVRM: (PCI ID: 10de:2204) installed in this system has",
            "[ 1843.3] NVRM: fallen off the bus and is not responding to commands.",
        ),
        FAIL,
        "fallen off",
    ),
    Fault("gpu.fell-off-bus", but(N, cards=(nvidia_card(revision="ff"),)), FAIL, "fallen off"),
    Fault("gpu.fell-off-bus", but(N, nvidia={"nvml": (nvml(slot=None, problem="lost"),)}), FAIL, "fallen off"),
    Fault(
        "gpu.fell-off-bus", said(A, "[ 900.1] amdgpu 0000:03:00.0: amdgpu: device lost from bus!"), FAIL, "fallen off"
    ),
    # NVIDIA/open-gpu-kernel-modules#907
    Fault(
        "gpu.power-state",
        said(N, "[ 77.1] nvidia 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible"),
        FAIL,
        "did not wake up",
    ),
    Fault(
        "gpu.link-width",
        but(N, cards=(nvidia_card(link=Link(speed=16.0, width=4, max_speed=16.0, max_width=16)),)),
        WARN,
        "4 of 16",
    ),
    Fault(
        "gpu.link-width",
        but(N, cards=(nvidia_card(link=Link(speed=16.0, width=8, max_speed=16.0, max_width=16)),)),
        PASS,
        "8 of 16",
    ),
    # HeyMeco/Rockchip-pcie-devices#2, kernel 6.9
    Fault(
        "gpu.bar-space",
        said(
            but(N, cards=(nvidia_card(bar_bytes=(16 << 20, 0, 0, 0, 0, 0)),)),
            "[ 2.8] pci 0000:01:00.0: BAR 1 [mem size 0x10000000 64bit pref]: can't assign; no space",
            "[ 2.8] pci 0000:01:00.0: BAR 1 [mem size 0x10000000 64bit pref]: failed to assign",
        ),
        FAIL,
        "no space",
    ),
    # system76/firmware-open#66, an older kernel's words
    Fault(
        "gpu.bar-space",
        said(
            but(N, cards=(nvidia_card(bar_bytes=None),)),
            "[ 5372.3] pci 0000:01:00.0: BAR 1: no space for [mem size 0x10000000 64bit pref]",
        ),
        FAIL,
        "no space",
    ),
    Fault("gpu.aer", but(N, cards=(nvidia_card(aer_correctable=48211),)), WARN, "corrected 48211 errors"),
    Fault(
        "gpu.rebar",
        but(N, cards=(nvidia_card(bar_bytes=(16 << 20, 256 << 20, 0, 32 << 20)),)),
        PASS,
        "Resizable BAR is off",
    ),
    Fault("gpu.rebar", but(A, amd={"gpus": (amd_gpu(vram_visible=256 << 20),)}), PASS, "Resizable BAR is off"),
    Fault(
        "gpu.xid",
        said(N, "[ 99.1] NVRM: Xid (PCI:0000:01:00): 48, pid=2211, name=python3, DBE (double bit error) ECC Error"),
        FAIL,
        "Xid 48",
    ),
    Fault(
        "gpu.xid",
        said(N, "[ 99.1] NVRM: Xid (PCI:0000:01:00): 119, pid=2211, name=python3, Timeout after 6s of waiting for RPC"),
        FAIL,
        "Xid 119",
    ),
    Fault(
        "gpu.xid",
        said(
            N, "[ 99.1] NVRM: Xid (PCI:0000:01:00): 31, pid=2211, name=python3, Ch 00000008, intr 00000000. MMU Fault"
        ),
        PASS,
        "Xid 31",
    ),
    # drivers before 300 wrote no `PCI:`
    Fault("gpu.xid", said(N, "[ 99.1] NVRM: Xid (0000:01:00): 62, 1faf(2b58) 00000000 00000000"), FAIL, "Xid 62"),
    Fault(
        "gpu.xid",
        said(N, "[ 99.1] NVRM: Xid (PCI:0000:01:00): 999, something new"),
        WARN,
        "Xid 999, which is not in our catalogue",
    ),
    # ROCm/legacy-rocm-build#6273
    Fault(
        "gpu.amdgpu-errors",
        said(
            A,
            "[127033.2] amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=2662395, emitted seq=2662397",
            "[127035.4] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!",
            "[127037.5] amdgpu 0000:03:00.0: amdgpu: MES failed to respond to msg=REMOVE_QUEUE",
        ),
        FAIL,
        "the MES scheduler hung, a ring timed out, the GPU was reset",
    ),
    # ROCm/legacy-rocm-build#2196, words of kernel 6.5
    Fault(
        "gpu.amdgpu-errors",
        said(
            A, "[31327.7] [drm:mes_v11_0_submit_pkt_and_poll_completion [amdgpu]] *ERROR* MES failed to response msg=2"
        ),
        FAIL,
        "the MES scheduler hung",
    ),
    # pop-os/cosmic-epoch#3764, words of kernel 7.0
    Fault(
        "gpu.amdgpu-errors",
        said(A, "[  312.5] amdgpu 0000:03:00.0: GPU reset begin!. Source:  1"),
        FAIL,
        "the GPU was reset",
    ),
    Fault(
        "gpu.amdgpu-errors",
        said(
            A,
            "[ 50.1] amdgpu 0000:03:00.0: amdgpu: [gfxhub] page fault (src_id:0 ring:24 vmid:8 pasid:32771)",
            "[ 50.1] amdgpu 0000:03:00.0: amdgpu: GCVM_L2_PROTECTION_FAULT_STATUS:0x00800932",
        ),
        WARN,
        "page faults",
    ),
    Fault(
        "gpu.heat",
        but(N, nvidia={"nvml": (nvml(temperature=88, throttle_reasons=0x40),)}),
        WARN,
        "hardware throttles it",
    ),
    Fault("gpu.heat", but(N, nvidia={"nvml": (nvml(temperature=66, throttle_reasons=0x20),)}), WARN, "thermal pads"),
    Fault(
        "gpu.power-brake",
        but(N, nvidia={"nvml": (nvml(throttle_reasons=0x80),)}),
        WARN,
        "power-brake slowdown is active",
    ),
    Fault(
        "gpu.heat",
        but(A, amd={"gpus": (amd_gpu(temperature_edge=62.0, temperature_junction=98.0),)}),
        WARN,
        "36 °C above",
    ),
    Fault("gpu.heat", but(A, amd={"gpus": (amd_gpu(temperature_edge=88.0, temperature_junction=109.0),)}), WARN, "109"),
    Fault("gpu.power-cap", but(N, nvidia={"nvml": (nvml(power_limit=250.0),)}), WARN, "250 W; the default is 350 W"),
    Fault("gpu.power-cap", but(A, amd={"gpus": (amd_gpu(power_cap=200.0),)}), WARN, "200 W; the default is 303 W"),
)

LOOK_ALIKES = (
    LookAlike("gpu.supported", but(A, cards=(amd_card(), raphael())), "integrated graphics are ignored"),
    LookAlike(
        "gpu.vram",
        but(N, cards=(nvidia_card(device="2805"),), nvidia={"nvml": (nvml(memory_total=16380 << 20),)}),
        "16 GB",
    ),
    LookAlike(
        "gpu.vram",
        but(N, cards=(nvidia_card(device="1eb8"),), nvidia={"nvml": (nvml(memory_total=15360 << 20),)}),
        "T4 with ECC",
    ),
    LookAlike(
        "gpu.kept-for-vm", but(no_gpu(), cards=(nvidia_card(vendor="8086", driver="vfio-pci"),)), "no GPU of ours"
    ),
    LookAlike("gpu.integrated-beside", beside_raphael(2, 1, ROCR_VISIBLE_DEVICES="1"), "hidden by the variable"),
    LookAlike("gpu.integrated-beside", but(A, cards=(amd_card(), raphael())), "KFD does not list it"),
    LookAlike("gpu.compute-mode", N, "default mode"),
    LookAlike("gpu.mig", but(N, nvidia={"nvml": (nvml(mig=True, mig_instances=2),)}), "MIG with instances"),
    LookAlike("gpu.busy-memory", but(N, nvidia={"nvml": (nvml(memory_used=900 << 20),)}), "a desktop"),
    LookAlike(
        "gpu.fell-off-bus",
        said(N, "[ 5.1] NVRM: GPU at PCI:0000:01:00: GPU-8f1c3a52-7d44-4c0e-9b1a-2f6d1f0c7a11"),
        "a UUID",
    ),
    LookAlike(
        "gpu.fell-off-bus",
        but(A, cards=(amd_card(device="747e", revision="ff"),)),
        "ff is the RX 7700 XT's real revision byte",
    ),
    LookAlike("gpu.power-state", but(N, cards=(nvidia_card(power_state="D3cold", link=None),)), "it only sleeps"),
    LookAlike(
        "gpu.power-state",
        said(N, "[ 77.1] iwlwifi 0000:04:00.0: Unable to change power state from D3cold to D0, device inaccessible"),
        "the network card",
    ),
    LookAlike(
        "gpu.link-width",
        but(N, cards=(nvidia_card(link=Link(speed=2.5, width=16, max_speed=16.0, max_width=16)),)),
        "speed drops when the card idles",
    ),
    LookAlike(
        "gpu.link-width",
        but(N, cards=(nvidia_card(device="2805", link=Link(speed=2.5, width=8, max_speed=16.0, max_width=16)),)),
        "a 4060 Ti has eight lanes",
    ),
    LookAlike(
        "gpu.bar-space",
        said(N, "[ 2.8] pci 0000:01:00.0: BAR 1 [mem size 0x800000000 64bit pref]: can't assign; no space"),
        "/sys shows that the window has its place",
    ),
    LookAlike(
        "gpu.bar-space",
        said(
            but(N, cards=(nvidia_card(bar_bytes=None),)),
            "[ 1.1] pci 0000:01:00.0: BAR 1 [mem size 0x800000000 64bit pref]: can't assign; no space",
            "[ 1.2] pci 0000:01:00.0: BAR 1 [mem 0x6000000000-0x67ffffffff 64bit pref]: assigned",
        ),
        "the second try found room",
    ),
    # ROCm/legacy-rocm-build#6281 and #1626: virtual functions, I/O ports, the ROM
    LookAlike(
        "gpu.bar-space",
        said(
            N,
            "[ 4.1] pci 0000:01:00.0: VF BAR 0 [mem size 0x00400000 64bit pref]: can't assign; no space",
            "[ 4.1] pci 0000:01:00.0: BAR 5: no space for [io  size 0x0080]",
            "[ 4.1] pci 0000:01:00.0: BAR 6: no space for [mem size 0x00080000 pref]",
            "[ 4.1] pci 0000:00:15.0: BAR 1: no space for [mem size 0x1000]",
        ),
        "windows that nobody needs, and another device's",
    ),
    LookAlike("gpu.aer", but(N, cards=(nvidia_card(aer_correctable=7),)), "a few after a wake-up"),
    LookAlike("gpu.rebar", A, "all of it is visible"),
    LookAlike("gpu.xid", said(N, "[ 9.1] NVRM: Xid errors are described in the manual"), "no address, no number"),
    LookAlike(
        "gpu.amdgpu-errors",
        said(
            A,
            "[ 4.1] amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 uses VM inv eng 0 on hub 0",
            "[ 4.1] amdgpu 0000:03:00.0: amdgpu: Using BACO for runtime pm",
            "[ 4.1] amdgpu 0000:03:00.0: amdgpu: MODE1 reset",
            "[ 4.1] amdgpu 0000:03:00.0: amdgpu: ring mes_kiq_3.1.0 uses VM inv eng 13 on hub 0",
        ),
        "what a healthy start says",
    ),
    LookAlike(
        "gpu.amdgpu-errors",
        but(
            said(A, "[ 9.1] amdgpu 0000:0e:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3"),
            cards=(amd_card(), raphael()),
        ),
        "the integrated graphics hung, not the card",
    ),
    LookAlike(
        "gpu.heat", but(N, nvidia={"nvml": (nvml(temperature=78, throttle_reasons=0x4),)}), "power cap is not heat"
    ),
    LookAlike(
        "gpu.heat",
        but(A, amd={"gpus": (amd_gpu(temperature_edge=30.0, temperature_junction=62.0),)}),
        "cold, so no verdict",
    ),
    LookAlike("gpu.power-cap", but(N, nvidia={"nvml": (nvml(power_limit=340.0),)}), "3 % below"),
    LookAlike("gpu.present", two_vendors(), "two cards"),
)

BLIND = (
    Blind(
        "gpu.present",
        but(no_gpu(), cards=None, unread=(Unread(source="/sys/bus/pci/devices", reason="denied"),)),
        "denied",
    ),
    Blind("gpu.supported", but(N, cards=(nvidia_card(device="ffff"),)), "10de:ffff (unknown to gpu-setup)"),
    Blind("gpu.xid", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("gpu.fell-off-bus", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("gpu.power-state", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("gpu.bar-space", but(N, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("gpu.amdgpu-errors", but(A, kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("gpu.heat", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "timed-out"),
    Blind("gpu.power-cap", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "timed-out"),
    Blind("gpu.compute-mode", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "timed-out"),
    Blind("gpu.busy-memory", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "timed-out"),
    Blind("gpu.mig", but(N, nvidia={"nvml": (nvml(mig=True),)}), "nvidia-smi -L"),
    Blind("gpu.link-width", but(N, cards=(nvidia_card(link=None),)), "link width"),
    Blind("gpu.rebar", but(N, cards=(nvidia_card(bar_bytes=None),)), "BAR"),
    Blind("gpu.vram", but(A, cards=(amd_card(device="744c", revision="00"),), amd=Amd(loaded=True)), "memory"),
)
