"""Memory errors, the slot's generation, GSP and fabric manager, what the initramfs knows, kernels for amdgpu-dkms."""

from __future__ import annotations

from checks.facts.host import Host, Link, RocmInstall, Unread
from tests.checks.rules.case import FAIL, PASS, WARN, Blind, Fault, LookAlike
from tests.checks.rules.cases_card import UNREADABLE_LOG, said
from tests.checks.rules.hosts import (
    KERNEL,
    NEWER,
    OLDER,
    amd_card,
    amd_gpu,
    built,
    but,
    healthy_amd,
    healthy_nvidia,
    nvidia_card,
    nvml,
    port,
    raphael,
)

N, A = healthy_nvidia(), healthy_amd()
FULL = Link(speed=16.0, width=16, max_speed=16.0, max_width=16)
THIRD = Link(speed=8.0, width=16, max_speed=8.0, max_width=16)
BLACKLIST = "/etc/modprobe.d/blacklist-nouveau.conf"
INITRD = f"/boot/initrd.img-{KERNEL}"


def gpu(**facts: object) -> Host:
    return but(N, nvidia={"nvml": (nvml(**facts),)})


def card(**facts: object) -> Host:
    return but(N, cards=(nvidia_card(**facts),))


def silent(*lines: str, **facts: object) -> Host:
    """NVML lists no card."""
    return said(but(N, nvidia={"nvml": (), **facts}), *lines)


def radeon(*bridges: object) -> Host:
    return but(A, cards=(amd_card(bridges=bridges),))


def lit(*others: object) -> Host:
    return but(N, cards=(nvidia_card(connectors_connected=("DP-1",)), *others))


def dated(blacklist: int) -> Host:
    """The initrd was built at 1,000,000, the person's blacklist written at this time."""
    return but(N, kernel={"dates": ((INITRD, 1_000_000), (BLACKLIST, blacklist))})


def dkms(version: str, *states: tuple[str, str], **kernel: object) -> Host:
    builds = tuple(built("amdgpu", version, release, state) for release, state in states)
    return but(A, kernel={"dkms": builds, **kernel})


FAULTS = (
    Fault("gpu.ecc", gpu(ecc_uncorrected=2), FAIL, "2 uncorrected errors"),
    Fault("gpu.ecc", but(A, amd={"gpus": (amd_gpu(ecc_uncorrected=1),)}), FAIL, "1 uncorrected error."),
    Fault("gpu.row-remap", gpu(rows_remapped=3, rows_failed=True), FAIL, "could not replace"),
    Fault(
        "gpu.row-remap", gpu(rows_remapped=1, rows_pending=True), WARN, "replacement of a failing memory row is pending"
    ),
    Fault("gpu.row-remap", gpu(rows_remapped=1, rows_pending=False), PASS, "has replaced 1"),
    # 0x80 together with 0x8, the reason that NVML gives for any hardware slow-down
    Fault("gpu.power-brake", gpu(throttle_reasons=0x88), WARN, "power-brake slowdown is active"),
    Fault(
        "gpu.bf16",
        but(card(device="1eb8"), nvidia={"nvml": (nvml(compute_capability="7.5"),)}),
        PASS,
        "does not support BF16",
    ),
    Fault("gpu.bf16", but(card(device="1db1"), nvidia={"nvml": None}), PASS, "(compute capability 7.0)"),
    Fault("gpu.display", lit(raphael()), PASS, "is connected to the training GPU"),
    # an older board; idle, so the current speed tells nothing
    Fault("gpu.link-speed", card(bridges=(port(link=THIRD),)), PASS, "The slot supports PCIe 3.0, the card PCIe 4.0"),
    # NVIDIA/open-gpu-kernel-modules#1010: the link stays at generation 1 under load
    Fault("gpu.link-speed", but(N, nvidia={"nvml": (nvml(utilisation=97),)}), WARN, "at PCIe 1.0 instead of PCIe 4.0"),
    # a 7900 XTX always shows x16 to its own switch; the switch's upper port has four lanes
    Fault(
        "gpu.link-width",
        radeon(port(slot="0000:02:00.0", link=FULL), port(slot="0000:01:00.0", link=Link(speed=16.0, width=4))),
        WARN,
        "4 of 16",
    ),
    Fault("gpu.aer", card(bridges=(port(aer_correctable=4711),)), WARN, "counted by its port 0000:00:01.0"),
    # NVIDIA/open-gpu-kernel-modules#1230, driver 595.71.05
    Fault(
        "driver.gsp",
        silent(
            "[   86.1] NVRM: GPU6 _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP",
            "[   86.1] NVRM: GPU6 RmInitAdapter: Cannot initialize GSP firmware RM",
        ),
        FAIL,
        "(GSP) did not start",
    ),
    # NVIDIA/open-gpu-kernel-modules#639
    Fault(
        "driver.gsp",
        silent(
            "[   12.0] nvidia 0000:01:00.0: Direct firmware load for nvidia/595.84/gsp_ga10x.bin failed with error -2",
            firmware=("595.71.05",),
        ),
        FAIL,
        "firmware for version 595.84 is missing",
    ),
    # NVIDIA/open-gpu-kernel-modules#673, driver 520
    Fault(
        "driver.gsp",
        silent("[   20.4] NVRM s_executeBooterUcode_TU102: Booter failed with non-zero error code: 0xa"),
        FAIL,
        "did not start",
    ),
    Fault("driver.fabric-manager", but(N, nvidia={"nvswitches": 4, "fabric_manager": False}), FAIL, "is not running"),
    Fault("kernel.initramfs", dated(1_000_900), WARN, f"{BLACKLIST} is newer"),
    Fault("kernel.amdgpu-dkms", dkms("6.14.14", (KERNEL, "added")), WARN, "up to 6.14"),
    Fault(
        "kernel.amdgpu-dkms",
        dkms("6.16.13", (OLDER, "installed"), ("6.14.0-37-generic", "installed"), next_boot=NEWER, release=OLDER),
        WARN,
        NEWER,
    ),
    Fault(
        "rocm.version",
        but(A, amd={"rocm": (RocmInstall(path="/opt/rocm-6.2.2", version="6.2.2"),), "rocm_on_path": True}),
        PASS,
        "older than 7.2",
    ),
)

LOOK_ALIKES = (
    LookAlike("gpu.ecc", N, "a GeForce has no counter"),
    LookAlike("gpu.ecc", gpu(ecc_uncorrected=0), "none so far"),
    LookAlike("gpu.row-remap", gpu(rows_remapped=0, rows_pending=False, rows_failed=False), "none replaced"),
    LookAlike("gpu.power-brake", gpu(throttle_reasons=0x4), "the power limit is at work, as it should"),
    LookAlike("gpu.bf16", N, "Ampere"),
    LookAlike("gpu.bf16", A, "RDNA3 has BF16"),
    LookAlike("gpu.display", lit(), "the only adapter of the machine"),
    LookAlike("gpu.display", but(N, cards=(nvidia_card(), raphael())), "the display is on the other one"),
    LookAlike("gpu.link-speed", N, "an idle card lowers its link"),
    LookAlike(
        "gpu.link-speed",
        but(card(link=FULL, bridges=(port(link=FULL),)), nvidia={"nvml": (nvml(utilisation=97),)}),
        "busy, and up to speed",
    ),
    LookAlike(
        "gpu.link-speed",
        but(card(bridges=(port(link=THIRD),)), os={"virtualisation": "kvm"}),
        "a virtual machine's ports are make-believe",
    ),
    LookAlike(
        "gpu.link-width",
        but(card(bridges=(port(link=Link(width=1)),)), os={"virtualisation": "kvm"}),
        "QEMU's ports show one lane",
    ),
    LookAlike(
        "gpu.link-width", radeon(port(slot="0000:02:00.0", link=FULL), port(slot="0000:01:00.0", link=FULL)), "all x16"
    ),
    LookAlike(
        "driver.gsp",
        said(
            N, "[ 2.0] nvidia 0000:01:00.0: Direct firmware load for nvidia/595.84/gsp_ga10x.bin failed with error -2"
        ),
        "the first try, from the initramfs; the card works",
    ),
    LookAlike(
        "driver.gsp", silent("[ 9.1] NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x31:0xffff:2468)"), "no GSP"
    ),
    LookAlike("driver.fabric-manager", but(N, nvidia={"nvswitches": 0, "fabric_manager": None}), "no NVSwitch"),
    LookAlike("driver.fabric-manager", but(N, nvidia={"nvswitches": 4, "fabric_manager": True}), "it runs"),
    LookAlike("kernel.initramfs", dated(999_000), "the initramfs came later"),
    LookAlike("kernel.initramfs", dated(1_000_030), "written by the same installation"),
    LookAlike(
        "kernel.amdgpu-dkms", dkms("6.14.14", (KERNEL, "installed")), "it was built for the newer kernel after all"
    ),
    LookAlike("kernel.amdgpu-dkms", A, "the kernel's own amdgpu"),
    LookAlike("rocm.version", A, "no ROCm on the host"),
    LookAlike(
        "rocm.version",
        but(A, amd={"rocm": (RocmInstall(path="/opt/rocm-7.2.4", version="7.2.4"),), "rocm_on_path": True}),
        "the stack's own",
    ),
)

BLIND = (
    Blind("gpu.power-brake", but(N, nvidia={"nvml": None, "nvml_problem": "timed-out"}), "driver.nvml"),
    Blind("gpu.bf16", but(card(device="3000"), nvidia={"nvml": None}), "Cannot determine the compute capability"),
    Blind("driver.gsp", but(silent(), kernel={"log": None}, unread=UNREADABLE_LOG), "adm"),
    Blind("driver.fabric-manager", but(N, nvidia={"nvswitches": 4, "fabric_manager": None}), "/run/systemd"),
    Blind("kernel.initramfs", but(N, unread=(Unread(source="stat", reason="timed-out"),)), "timed-out"),
    Blind("kernel.initramfs", but(N, kernel={"dates": ((BLACKLIST, 7),)}), "ls -l /boot"),
    Blind("kernel.amdgpu-dkms", but(A, kernel={"dkms": None}), "/var/lib/dkms"),
    Blind(
        "rocm.version",
        but(A, amd={"rocm": (RocmInstall(path="/opt/rocm"),), "rocm_on_path": True}),
        "Cannot determine the version",
    ),
)
